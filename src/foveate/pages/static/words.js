// The page's words, in the two languages of its first readers.
const WORDS = {
  en: {
    subtitle: "watch a model look back", language: "Language", tabs: "Views", text: "Text", file: "or load a file",
    look: "Look back", surprise: "Surprise", scramble: "Scramble", write: "Write", train: "Train", compare: "Compare",
    model: "Model", against: "Against", beside: "Beside", none: "nothing", layer: "Layer", head: "Head", all: "averaged", stop: "Stop",
    working: "working …", waiting: "waiting for its turn …", stopped: "stopped", characters: "{n} characters",
    look_go: "Look back", look_help: "Choose a token, with the mouse or the arrow keys: what stands before it is coloured by the resolution at which the model sees it as it reads that token; averaged over layers, by the one that gives it most attention. The line under a token is the attention it gets.",
    at_size: "{n}x", group_one: "each token by itself", group_n: "groups of {n} tokens", gone: "gone", not_yet: "not in a unit yet",
    gone_help: "no chosen layer sees it", not_yet_help: "its unit is not complete", later: "not read yet", tokens_n: "{n} tokens",
    clock: "The clock", clock_help: "A square is a layer, a row a resolution; those with a frame worked at this token.", every: "every {n}",
    look_groups: "Attention by resolution", attention: "attention", seen_at: "seen at", mass: "attention", keys: "keys", worked: "worked", yes: "yes", no: "no",
    start: "start of the text", about_token: "{token}: seen at {where}, attention {mass}",
    surprise_go: "Score", surprise_one: "The darker a token, the more it surprised {a}: its loss, in nats.",
    surprise_two: "Blue where {a} was surprised less, orange where {b} was; the numbers are nats.",
    about_nats: "{token}: {nats} nats", about_both: "{token}: {a} against {b} nats, difference {d}", numbers: "All numbers", token: "token", nats: "nats", difference: "difference",
    bpb: "bits per byte", per_token: "nats per token", tokens: "tokens", bytes: "bytes", context: "window", kind: "kind", items: "pieces", mean: "mean difference, nats",
    first_of_sentence: "first word of a sentence", between_words: "between words", seen_before: "words seen before", new_word: "new words", name: "names", number: "numbers",
    unit: "What is moved", unit_token: "tokens", unit_word: "words", unit_sentence: "sentences", boundary: "The scrambled part ends at", of: "{n} of the text ({share} %)",
    scramble_go: "Scramble", another: "Another permutation", scramble_help: "What stands before the boundary is put in random order; the curve is how much more each later token then surprises.",
    original: "original", scrambled: "scrambled", past: "tokens past the boundary", more: "nats more, scrambled", running: "horizon so far, tokens",
    horizon: "Order horizon: {n} tokens (permutations: {p}).", horizon_least: "Order horizon: at least {n} tokens (permutations: {p}).", distance: "distance",
    prompt: "Prompt", length: "Tokens", temperature: "Temperature", seed: "Seed", write_go: "Write", speed: "tokens per second", state: "state", ran: "layers run per token", now: "layers at this token",
    runs: "Runs", axis: "Over", axis_tokens: "tokens", axis_time: "time", samples: "write a line at every checkpoint", train_help: "The log is read as it grows, every two seconds while this view is open.",
    valid_curve: "Bits per byte, held out", loss_curve: "Training loss, nats per token", speed_curve: "Tokens per second", run: "run", done: "done", step: "step", kept: "kept for backward, predicted", memory: "a step's memory, predicted", checkpoint: "checkpoint", seconds: "seconds", no_curve: "nothing logged yet",
    base: "First model", effort: "How well", quick: "quickly, some text", full: "as foveate compare does", compare_go: "Compare", save: "Save the page", compare_help: "Quality, memory and speed, as foveate compare measures them; the page can be saved as one file.",
    report: "Report", no_models: "none of the models can be used", scoring: "reading …",
  },
  pt: {
    subtitle: "veja um modelo olhar para trás", language: "Língua", tabs: "Vistas", text: "Texto", file: "ou abra um ficheiro",
    look: "Olhar para trás", surprise: "Surpresa", scramble: "Baralhar", write: "Escrever", train: "Treinar", compare: "Comparar",
    model: "Modelo", against: "Contra", beside: "Ao lado", none: "nada", layer: "Camada", head: "Cabeça", all: "média", stop: "Parar",
    working: "a trabalhar …", waiting: "à espera da sua vez …", stopped: "parado", characters: "{n} caracteres",
    look_go: "Olhar", look_help: "Escolha um token, com o rato ou com as setas: o que está antes dele ganha a cor da resolução a que o modelo o vê quando lê esse token; na média das camadas, a que lhe dá mais atenção. A linha por baixo é a atenção que cada token recebe.",
    at_size: "{n}x", group_one: "cada token por si", group_n: "grupos de {n} tokens", gone: "perdido", not_yet: "ainda sem unidade",
    gone_help: "nenhuma camada escolhida o vê", not_yet_help: "a sua unidade não está completa", later: "ainda não lido", tokens_n: "{n} tokens",
    clock: "O relógio", clock_help: "Um quadrado é uma camada, uma linha é uma resolução; as que têm moldura trabalharam neste token.", every: "cada {n}",
    look_groups: "Atenção por resolução", attention: "atenção", seen_at: "visto a", mass: "atenção", keys: "chaves", worked: "trabalhou", yes: "sim", no: "não",
    start: "início do texto", about_token: "{token}: visto a {where}, atenção {mass}",
    surprise_go: "Medir", surprise_one: "Quanto mais escuro o token, mais surpreendeu {a}: a sua perda, em nats.",
    surprise_two: "Azul onde {a} se surpreendeu menos, laranja onde foi {b}; os números são nats.",
    about_nats: "{token}: {nats} nats", about_both: "{token}: {a} contra {b} nats, diferença {d}", numbers: "Todos os números", token: "token", nats: "nats", difference: "diferença",
    bpb: "bits por byte", per_token: "nats por token", tokens: "tokens", bytes: "bytes", context: "janela", kind: "tipo", items: "pedaços", mean: "diferença média, nats",
    first_of_sentence: "primeira palavra da frase", between_words: "entre palavras", seen_before: "palavras já vistas", new_word: "palavras novas", name: "nomes", number: "números",
    unit: "O que se move", unit_token: "tokens", unit_word: "palavras", unit_sentence: "frases", boundary: "A parte baralhada acaba em", of: "{n} do texto ({share} %)",
    scramble_go: "Baralhar", another: "Outra permutação", scramble_help: "O que está antes da fronteira fica em ordem aleatória; a curva diz quanto mais surpreende então cada token seguinte.",
    original: "original", scrambled: "baralhado", past: "tokens depois da fronteira", more: "nats a mais, baralhado", running: "horizonte até aqui, tokens",
    horizon: "Horizonte da ordem: {n} tokens (permutações: {p}).", horizon_least: "Horizonte da ordem: pelo menos {n} tokens (permutações: {p}).", distance: "distância",
    prompt: "Início", length: "Tokens", temperature: "Temperatura", seed: "Semente", write_go: "Escrever", speed: "tokens por segundo", state: "estado", ran: "camadas por token", now: "camadas neste token",
    runs: "Treinos", axis: "Sobre", axis_tokens: "tokens", axis_time: "tempo", samples: "escrever uma linha em cada ponto guardado", train_help: "O registo é lido enquanto cresce, de dois em dois segundos, com esta vista aberta.",
    valid_curve: "Bits por byte, texto não treinado", loss_curve: "Perda de treino, nats por token", speed_curve: "Tokens por segundo", run: "treino", done: "feito", step: "passo", kept: "guardado para trás, previsto", memory: "memória de um passo, prevista", checkpoint: "ponto guardado", seconds: "segundos", no_curve: "ainda nada registado",
    base: "Primeiro modelo", effort: "Com que rigor", quick: "depressa, algum texto", full: "como foveate compare", compare_go: "Comparar", save: "Guardar a página", compare_help: "Qualidade, memória e velocidade, como foveate compare as mede; a página pode ser guardada num só ficheiro.",
    report: "Relatório", no_models: "nenhum dos modelos pode ser usado", scoring: "a ler …",
  },
};

let language = "en";

export function word(key, values = {}) {
  return (WORDS[language][key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function speak(wanted) {
  language = wanted in WORDS ? wanted : "en";
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
}

export const number = (value, digits = 3) =>
  value == null ? "–" : value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
export const whole = (value) => (value == null ? "–" : Math.round(value).toLocaleString(language));
export const percent = (share) => `${number(100 * share, 2)} %`;

export function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < 4; at++) value /= 1000;
  return `${number(value, at ? 2 : 0)} ${units[at]}`;
}
