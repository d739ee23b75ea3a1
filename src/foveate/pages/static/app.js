// The page: tabs, the text, the language, and which models there are.
import { compare } from "./compare.js";
import { look } from "./look.js";
import { scramble } from "./scramble.js";
import { surprise } from "./surprise.js";
import { COLOURS, element, get } from "./tools.js";
import { train } from "./train.js";
import { sayAgain, said, speak, whole, word } from "./words.js";
import { write } from "./write.js";

const VIEWS = { look, surprise, scramble, write, train, compare };
const WITH_TEXT = ["look", "surprise", "scramble"];
const TEXT = `It was a bright morning when the ship left the harbour. The captain stood at the wheel and watched the gulls, and his daughter Margaret counted the boats that came in with the tide. "There are seven," she said, "and the last one is ours." The old man did not answer. He had seen that boat before, on the night of the storm, and he had hoped that he would never see it again.

By noon the wind had turned. Margaret went below to write in her book, as she did every day, and the captain called for more sail. Nobody spoke of the boat. It followed them all the same, a white spot on the grey water, and when the evening came it was closer than it had been in the morning.`;
const find = (id) => document.getElementById(id);

const coarse = (model) => model.runs.some((run) => run.stride > 1);

let models = [];
const textWatchers = [];
const page = {
  text: () => find("text").value,
  onText: (watcher) => textWatchers.push(watcher),
  model: (name) => models.find((model) => model.name === name),
  // of a model wherever it is drawn: as in the report, a plain run first, then what is compared with it
  colour: (name) => {
    const rank = (model) => (coarse(model) ? 1 : model.run ? 0 : 2);
    const names = [...models].sort((a, b) => rank(a) - rank(b)).map((model) => model.name);
    return COLOURS[Math.max(0, names.indexOf(name)) % COLOURS.length];
  },
  // the layers of a model, as runs of its walk; ``layers`` says more than a model's files where those say nothing
  runs: (name, layers = []) => {
    const known = models.find((model) => model.name === name)?.runs ?? [];
    return known.length ? known : layers.map(({ stride }) => ({ stride, layers: 1 }));
  },
};

const views = Object.fromEntries(Object.entries(VIEWS).map(([name, view]) => [name, view(find(name), page)]));

function open(name) {
  if (!(name in VIEWS)) name = "look";
  for (const each in VIEWS) {
    find(each).hidden = each !== name;
    find(`tab-${each}`).setAttribute("aria-selected", each === name);
    find(`tab-${each}`).tabIndex = each === name ? 0 : -1;
  }
  find("text-box").hidden = !WITH_TEXT.includes(name);
  if (location.hash !== `#${name}`) history.replaceState(null, "", `#${name}`);
  views[name].open?.();
}

function tabs() {
  for (const name in VIEWS) {
    const tab = element("button", { role: "tab", id: `tab-${name}`, type: "button", "aria-controls": name, "data-word": name });
    tab.onclick = () => open(name);
    find("tabs").append(tab);
  }
  find("tabs").onkeydown = (event) => {
    const names = Object.keys(VIEWS), at = names.indexOf(event.target.id.replace("tab-", ""));
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const name = names.at(to % names.length);
    open(name);
    find(`tab-${name}`).focus();
  };
}

function say() {
  speak(find("language").value);
  document.title = `Foveate: ${word("subtitle")}`;
  find("tabs").setAttribute("aria-label", word("tabs"));
  find("text-size").textContent = word("characters", { n: whole(page.text().length) });
  for (const option of document.querySelectorAll("option[data-none]")) option.textContent = word("none");
  for (const box of document.querySelectorAll(".tokens")) box.setAttribute("aria-label", word("text"));
  for (const box of document.querySelectorAll(".scroll")) box.setAttribute("aria-label", word("numbers")), box.setAttribute("role", "group");
  for (const view of Object.values(views)) view.again?.();
  sayAgain();
}

function choices() {
  const usable = models.filter((model) => !model.error);
  for (const select of document.querySelectorAll("select[data-models]")) {
    const optional = select.dataset.models.includes("optional");
    select.replaceChildren(...(optional ? [element("option", { value: "", "data-none": "" }, word("none"))] : []), ...usable.map(({ name }) => new Option(name, name)));
    if (optional && usable.length > 1) select.value = usable[1].name;
  }
  const multi = usable.find(coarse), plain = usable.find((model) => !coarse(model));
  for (const form of document.querySelectorAll("form")) {
    if (!multi || !form.model) continue;
    // a multi-scale model beside a plain one; what is compared is compared with the plain one
    const [first, second] = form.closest("#compare") ? [plain ?? multi, multi] : [multi, plain];
    form.model.value = first.name;
    if (form.against) form.against.value = second && second !== first ? second.name : "";
  }
  const errors = models.filter((model) => model.error).map((model) => element("span", {}, `${model.name}: `, said(model.error)));
  if (!usable.length) errors.unshift(element("span", { "data-word": "no_models" }, word("no_models")));
  trouble(...errors);
}

function trouble(...lines) {
  find("trouble").replaceChildren(...lines.flatMap((line, at) => (at ? [" · ", line] : [line])));
  find("trouble").hidden = !lines.length;
}

tabs();
find("text").value = TEXT;
find("text").oninput = () => {
  find("text-size").textContent = word("characters", { n: whole(page.text().length) });
  for (const watcher of textWatchers) watcher();
};
find("file").onchange = async () => {
  const [file] = find("file").files;
  if (!file) return;
  find("text").value = (await file.slice(0, 400_000).text()).replaceAll("\r\n", "\n");
  find("text").oninput();
};
const wanted = new URLSearchParams(location.search).get("language") ?? navigator.language.slice(0, 2);
find("language").value = wanted === "pt" ? "pt" : "en";
find("language").onchange = say;
say();
open(location.hash.slice(1));
addEventListener("hashchange", () => open(location.hash.slice(1)));
try {
  ({ models } = await get("api/models"));
  choices();
  views.train.begin(models);
  if (models.some((model) => !model.error)) views.look.begin();
  if (location.hash === "#train") views.train.open();
  document.body.dataset.ready = models.length;
} catch (error) {
  trouble(said(error.message));
}
