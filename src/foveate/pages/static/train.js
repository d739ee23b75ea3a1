// Train: the logs of runs as they grow, over one another, and the texts that they write.
import { chart, element, get, out, table, Task, work } from "./tools.js";
import { bytes, number, percent, whole, word } from "./words.js";

const EVERY = 2000; // milliseconds
const PROMPT = "The captain", LENGTH = 40, SHOWN = 4;

export function train(section, page) {
  const form = section.querySelector("form"), task = new Task(section), runs = new Map();
  form.onsubmit = (event) => event.preventDefault();
  form.axis.onchange = show;

  function begin(models) {
    const names = models.filter((model) => model.run).map((model) => model.name);
    out(section, "runs").replaceChildren(...names.map((name) => {
      const box = element("input", { type: "checkbox", name: "run", value: name, checked: "" }), square = element("i");
      box.onchange = () => poll();
      square.style.setProperty("--tint", page.colour(name));
      runs.set(name, { name, box, colour: page.colour(name), records: [], after: 0, log: 0 });
      return element("label", {}, box, square, ` ${name}`);
    }));
    if (!names.length) out(section, "runs").replaceChildren(element("span", { "data-word": "no_runs" }, word("no_runs")));
  }

  const chosen = () => [...runs.values()].filter((run) => run.box.checked);
  const of = (run, kind) => run.records.filter((record) => record.kind === kind);

  async function poll() {
    const troubles = [];
    for (const run of chosen()) {
      try {
        for (let more = true; more; ) {
          const found = await get(`api/run?name=${encodeURIComponent(run.name)}&after=${run.after}&log=${run.log}`);
          if (found.log !== run.log) run.records = [];
          run.records.push(...found.records);
          more = found.records.length > 0 && found.after !== run.after;
          const newer = found.checkpoint !== null && found.checkpoint !== run.checkpoint;
          Object.assign(run, { after: found.after, log: found.log, tokens: found.tokens, walk: found.walk, checkpoint: found.checkpoint });
          if (newer && !more) sample(run);
          else if (newer) run.checkpoint = null;
        }
        run.memory ??= await get(`api/memory?name=${encodeURIComponent(run.name)}`).catch(() => undefined);
      } catch (error) {
        troubles.push(error.message);
      }
    }
    if (troubles.length) task.complain(...troubles);
    else task.line.replaceChildren();
    show();
  }

  // A run that writes no texts itself is asked for one at every checkpoint.
  async function sample(run) {
    if (!form.samples.checked || of(run, "sample").length) return;
    const step = run.checkpoint;
    try {
      const found = await work("write", { model: run.name, prompt: PROMPT, tokens: LENGTH, temperature: 0 }, null);
      run.sample = { prompt: PROMPT, text: found.text, step };
    } catch (error) {
      run.sample = { prompt: "", text: error.message, step };
    }
    show();
  }

  function show() {
    const axis = form.axis.value, picked = chosen();
    const draw = (name, kind, key, y) => {
      const series = picked.map((run) => ({ name: run.name, colour: run.colour, points: of(run, kind).filter((record) => record[key] != null).map((record) => [record[axis], record[key]]) })).filter((line) => line.points.length);
      const box = out(section, name);
      if (series.length) chart(box, { label: `${word(`${name}_curve`)}: ${series.map((line) => line.name).join(", ")}`, series, xlabel: word(axis === "tokens" ? "tokens" : "seconds"), x: whole, y });
      else box.replaceChildren(word("no_curve"));
    };
    draw("valid", "valid", "bpb", (value) => number(value, 2));
    draw("loss", "train", "loss", (value) => number(value, 2));
    draw("speed", "train", "tokens_per_s", whole);
    draw("memory", "train", "memory_bytes", (value) => bytes(value, 1));
    const last = (run, kind) => of(run, kind).at(-1);
    const rows = picked.map((run) => [
      run.name, run.walk ?? "", whole(last(run, "train")?.step), percent(Math.min(1, (last(run, "train")?.tokens ?? 0) / (run.tokens || 1)), 0),
      number(last(run, "train")?.loss), number(last(run, "valid")?.bpb, 4), bytes(last(run, "train")?.memory_bytes), bytes(run.memory?.training_bytes), bytes(run.memory?.kept_bytes),
    ]);
    table(out(section, "table"), word("runs_table"), [word("run"), word("walk"), word("step"), word("done"), word("loss_short"), word("bpb"), word("memory_now"), word("memory"), word("kept")], rows);
    out(section, "samples").replaceChildren(...picked.map((run) => {
      const texts = of(run, "sample").slice(-SHOWN).reverse();
      if (!texts.length && run.sample) texts.push(run.sample);
      const box = element("article", { class: "panel" }, element("h3", {}, run.name), ...texts.map((each) =>
        element("p", { class: "prose" }, element("small", {}, `${word("step")} ${whole(each.step)}`), element("br"), element("strong", {}, each.prompt), each.text)));
      if (!texts.length) box.append(element("p", { class: "quiet" }, word("no_sample")));
      box.style.setProperty("--tint", run.colour);
      return box;
    }));
    section.dataset.ready = picked.reduce((sum, run) => sum + run.records.length, 0);
  }

  let timer = null;
  async function loop() {
    await poll();
    clearTimeout(timer);
    if (!section.hidden) timer = setTimeout(loop, EVERY);
  }
  return { begin, again: show, open: () => (clearTimeout(timer), loop()) };
}
