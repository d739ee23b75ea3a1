// The page's words, in the two languages of its first readers; what the server says is in messages.js.
import { MESSAGES } from "./messages.js";

const WORDS = {
  en: {
    subtitle: "watch a model look back", language: "Language", tabs: "Views", text: "Text", file: "Open a file …",
    look: "Look back", surprise: "Surprise", scramble: "Scramble", write: "Write", train: "Train", compare: "Compare",
    model: "Model", against: "Against", beside: "Beside", none: "nothing", layer: "Layer", head: "Head", all: "averaged", stop: "Stop",
    working: "working …", waiting: "waiting for its turn …", stopped: "stopped", characters: "{n} characters",
    look_go: "Look back", look_help: "Click a token, or walk with the arrow keys and press Enter. What stands before it takes the colour of the resolution at which the model sees it from there: averaged over layers, the one that gives it most attention. The line under a token is the attention it gets.",
    at_size: "{n}x", group_one: "token by token", group_n: "groups of {n} tokens", gone: "gone", not_yet: "not in a unit yet",
    gone_help: "no chosen layer sees it", not_yet_help: "its unit is not complete", later: "not read yet", tokens_n: "{n} tokens",
    clock: "The clock", clock_help: "A square is a layer, a row a resolution. Filled ones worked at this token; the others wait for their unit to be complete.",
    look_groups: "Layer by layer", attention: "attention", worked: "worked", yes: "yes", no: "no",
    about_token: "{token}: seen at {where}, attention {mass}",
    surprise_go: "Score", surprise_one: "The darker a token, the more it surprised {a}: its loss, in nats.",
    surprise_two: "Blue where {a} was surprised less, orange where {b} was; the numbers are nats.",
    about_nats: "{token}: {nats} nats", about_both: "{token}: {a} against {b} nats, difference {d}", numbers: "All numbers", token: "token", nats: "nats", difference: "difference",
    bpb: "bits per byte", per_token: "nats per token", tokens: "tokens", bytes: "bytes", context: "window", kind: "kind", items: "pieces", mean: "mean difference, nats",
    first_of_sentence: "first word of a sentence", between_words: "between words", seen_before: "words seen before", new_word: "new words", name: "names", number: "numbers",
    unit: "What is moved", unit_token: "tokens", unit_word: "words", unit_sentence: "sentences", boundary: "The scrambled part ends at", of: "{n} of the text ({share} %)",
    scramble_go: "Scramble", another: "Another permutation", scramble_help: "What stands before the boundary is put in random order. Below is how much each later token surprises the model, before and after, and the difference.",
    original: "original", scrambled: "scrambled", past: "tokens past the boundary", more: "nats more, scrambled", running: "horizon so far, tokens",
    horizon: "Order horizon: {n} tokens (permutations: {p}).", horizon_least: "Order horizon: at least {n} tokens (permutations: {p}).", distance: "distance",
    prompt: "Prompt", length: "Tokens", temperature: "Temperature", seed: "Seed", write_go: "Write", speed: "tokens per second", state: "state", ran: "layers run per token",
    runs: "Runs", axis: "Over", axis_tokens: "tokens", axis_time: "time", samples: "a text at every checkpoint, of runs that write none", train_help: "The log is read as it grows, every two seconds while this view is open.",
    valid_curve: "Bits per byte, held out", loss_curve: "Training loss, nats per token", speed_curve: "Tokens per second", run: "run", done: "done", step: "step", kept: "kept for backward, predicted", memory: "a step's memory, predicted", seconds: "seconds", no_curve: "nothing logged yet",
    base: "First model", effort: "How well", quick: "quickly, some text", full: "as foveate compare does", compare_go: "Compare", save: "Save the page", compare_help: "Quality, memory and speed, as foveate compare measures them; the page can be saved as one file.",
    report: "Report", no_models: "none of the models can be used",
    opened: "opened", opened_help: "zoom reads its group token by token", zoom: "Far text", zoom_off: "as it is", zoom_on: "zoomed", near: "Sharp tokens", opens: "Groups opened", share: "{share} of the attention, {keys} keys",
    look_lead: "How sharply does a model see what it has read? Choose a word.", surprise_lead: "Which words does a model not expect?", scramble_lead: "How far back does the order of words matter?",
    write_lead: "Watch two models write, and what it costs them.", train_lead: "Watch models learn.", compare_lead: "Two models, measured side by side.",
    look_table: "The attention of each layer", kind_of: "sees", surprise_table: "On the whole text", kinds_table: "Where {a} does better than {b}: below zero", surprise_each: "Surprise of each token, nats",
    verdict: "{a} against {b}: {s} times the tokens per second, {m} times the state.", no_runs: "none of the models is a run of foveate train", no_sample: "it has written nothing yet", runs_table: "Where the runs are", walk: "walk", loss_short: "loss", memory_now: "peak memory", memory_curve: "Peak memory of the training process", texts: "What they write",
  },
  pt: {
    subtitle: "veja um modelo olhar para trás", language: "Língua", tabs: "Vistas", text: "Texto", file: "Abrir um ficheiro …",
    look: "Olhar para trás", surprise: "Surpresa", scramble: "Baralhar", write: "Escrever", train: "Treinar", compare: "Comparar",
    model: "Modelo", against: "Contra", beside: "Ao lado", none: "nada", layer: "Camada", head: "Cabeça", all: "média", stop: "Parar",
    working: "a trabalhar …", waiting: "à espera da sua vez …", stopped: "parado", characters: "{n} caracteres",
    look_go: "Olhar", look_help: "Clique num token, ou ande com as setas e carregue em Enter. O que está antes dele ganha a cor da resolução a que o modelo o vê daí: na média das camadas, a que lhe dá mais atenção. A linha por baixo é a atenção que cada token recebe.",
    at_size: "{n}x", group_one: "token a token", group_n: "grupos de {n} tokens", gone: "perdido", not_yet: "ainda sem unidade",
    gone_help: "nenhuma camada escolhida o vê", not_yet_help: "a sua unidade não está completa", later: "ainda não lido", tokens_n: "{n} tokens",
    clock: "O relógio", clock_help: "Um quadrado é uma camada, uma linha é uma resolução. As cheias trabalharam neste token; as outras esperam que a sua unidade esteja completa.",
    look_groups: "Camada a camada", attention: "atenção", worked: "trabalhou", yes: "sim", no: "não",
    about_token: "{token}: visto a {where}, atenção {mass}",
    surprise_go: "Medir", surprise_one: "Quanto mais escuro o token, mais surpreendeu {a}: a sua perda, em nats.",
    surprise_two: "Azul onde {a} se surpreendeu menos, laranja onde foi {b}; os números são nats.",
    about_nats: "{token}: {nats} nats", about_both: "{token}: {a} contra {b} nats, diferença {d}", numbers: "Todos os números", token: "token", nats: "nats", difference: "diferença",
    bpb: "bits por byte", per_token: "nats por token", tokens: "tokens", bytes: "bytes", context: "janela", kind: "tipo", items: "pedaços", mean: "diferença média, nats",
    first_of_sentence: "primeira palavra da frase", between_words: "entre palavras", seen_before: "palavras já vistas", new_word: "palavras novas", name: "nomes", number: "números",
    unit: "O que se move", unit_token: "tokens", unit_word: "palavras", unit_sentence: "frases", boundary: "A parte baralhada acaba em", of: "{n} do texto ({share} %)",
    scramble_go: "Baralhar", another: "Outra permutação", scramble_help: "O que está antes da fronteira fica em ordem aleatória. Abaixo está quanto cada token seguinte surpreende o modelo, antes e depois, e a diferença.",
    original: "original", scrambled: "baralhado", past: "tokens depois da fronteira", more: "nats a mais, baralhado", running: "horizonte até aqui, tokens",
    horizon: "Horizonte da ordem: {n} tokens (permutações: {p}).", horizon_least: "Horizonte da ordem: pelo menos {n} tokens (permutações: {p}).", distance: "distância",
    prompt: "Início", length: "Tokens", temperature: "Temperatura", seed: "Semente", write_go: "Escrever", speed: "tokens por segundo", state: "estado", ran: "camadas por token",
    runs: "Treinos", axis: "Sobre", axis_tokens: "tokens", axis_time: "tempo", samples: "um texto em cada ponto guardado, dos treinos que não escrevem", train_help: "O registo é lido enquanto cresce, de dois em dois segundos, com esta vista aberta.",
    valid_curve: "Bits por byte, texto não treinado", loss_curve: "Perda de treino, nats por token", speed_curve: "Tokens por segundo", run: "treino", done: "feito", step: "passo", kept: "guardado para trás, previsto", memory: "memória de um passo, prevista", seconds: "segundos", no_curve: "ainda nada registado",
    base: "Primeiro modelo", effort: "Com que rigor", quick: "depressa, algum texto", full: "como foveate compare", compare_go: "Comparar", save: "Guardar a página", compare_help: "Qualidade, memória e velocidade, como foveate compare as mede; a página pode ser guardada num só ficheiro.",
    report: "Relatório", no_models: "nenhum dos modelos pode ser usado",
    opened: "aberto", opened_help: "o zoom lê o seu grupo token a token", zoom: "Texto distante", zoom_off: "tal como é", zoom_on: "com zoom", near: "Tokens nítidos", opens: "Grupos abertos", share: "{share} da atenção, {keys} chaves",
    look_lead: "Com que nitidez vê um modelo o que já leu? Escolha uma palavra.", surprise_lead: "Que palavras não espera um modelo?", scramble_lead: "Até que distância importa a ordem das palavras?",
    write_lead: "Veja dois modelos escrever, e quanto lhes custa.", train_lead: "Veja modelos a aprender.", compare_lead: "Dois modelos, medidos lado a lado.",
    look_table: "A atenção de cada camada", kind_of: "vê", surprise_table: "Em todo o texto", kinds_table: "Onde {a} é melhor do que {b}: abaixo de zero", surprise_each: "Surpresa de cada token, nats",
    verdict: "{a} contra {b}: {s} vezes os tokens por segundo, {m} vezes o estado.", no_runs: "nenhum dos modelos é um treino de foveate train", no_sample: "ainda não escreveu nada", runs_table: "Onde vão os treinos", walk: "percurso", loss_short: "perda", memory_now: "memória, máximo", memory_curve: "Memória máxima do processo de treino", texts: "O que escrevem",
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

// A line of the server's in the page's language; one that is not known stays as it is.
const CATALOGUE = MESSAGES.map(([english, portuguese]) => {
  const names = [...english.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
  const pattern = english.split(/\{\w+\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("(.+?)");
  return { names, pattern: new RegExp(`^${pattern}$`, "s"), portuguese };
});

export function translated(message) {
  if (language === "en") return message;
  for (const { names, pattern, portuguese } of CATALOGUE) {
    const found = message.match(pattern);
    if (found) return portuguese.replace(/\{(\w+)\}/g, (whole, name) => found[1 + names.indexOf(name)]);
  }
  return message;
}

// An element with such a line, which is said again where the language changes.
export function said(message) {
  const element = document.createElement("span");
  element.dataset.said = message;
  tell(element);
  return element;
}

function tell(element) {
  const text = translated(element.dataset.said);
  element.textContent = text;
  element.lang = language !== "en" && text === element.dataset.said ? "en" : language;
}

export const sayAgain = () => document.querySelectorAll("[data-said]").forEach(tell);

export const number = (value, digits = 3) =>
  value == null ? "–" : value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");
export const whole = (value) => (value == null ? "–" : Math.round(value).toLocaleString(language));
export const percent = (share, digits = 2) => `${number(100 * share, digits)}\u00a0%`;

export function bytes(value, digits = 2) {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < 4; at++) value /= 1000;
  return `${number(value, at ? digits : 0)}\u00a0${units[at]}`;
}
