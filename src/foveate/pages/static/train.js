// Train: the logs of runs as they grow, over one another, and a line of text at every checkpoint.
import { chart, COLOURS, element, get, out, table, Task, work } from "./tools.js";
import { bytes, number, percent, whole, word } from "./words.js";

const EVERY = 2000; // milliseconds
const PROMPT = "The captain", LENGTH = 40;

export function train(section, page) {
  const form = section.querySelector("form"), task = new Task(section), runs = new Map();
  form.onsubmit = (event) => event.preventDefault();
  form.axis.onchange = show;

  function begin(models) {
    const names = models.filter((model) => model.run).map((model) => model.name);
    out(section, "runs").replaceChildren(...names.map((name, at) => {
      const box = element("input", { type: "checkbox", name: "run", value: name, checked: "" });
      box.onchange = () => poll();
      runs.set(name, { name, box, colour: COLOURS[at % COLOURS.length], records: [], after: 0, log: 0 });
      return element("label", {}, box, ` ${name}`);
    }));
  }

  const chosen = () => [...runs.values()].filter((run) => run.box.checked);

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
          if (newer) sample(run);
        }
        run.memory ??= await get(`api/memory?name=${encodeURIComponent(run.name)}`).catch(() => undefined);
      } catch (error) {
        troubles.push(error.message);
      }
    }
    if (troubles.length) task.complain(troubles.join(" · "));
    else task.line.replaceChildren();
    show();
  }

  async function sample(run) {
    if (!form.samples.checked) return;
    try {
      const found = await work("write", { model: run.name, prompt: PROMPT, tokens: LENGTH, temperature: 0 }, null);
      run.sample = { text: found.text, step: run.checkpoint };
    } catch (error) {
      run.sample = { text: error.message, step: run.checkpoint };
    }
    show();
  }

  function show() {
    const axis = form.axis.value, picked = chosen();
    const draw = (name, kind, key, digits) => {
      const series = picked.map((run) => ({ name: run.name, colour: run.colour, points: run.records.filter((record) => record.kind === kind && record[key] != null).map((record) => [record[axis], record[key]]) }));
      const box = out(section, name);
      if (series.some((line) => line.points.length)) chart(box, { label: `${word(`${name}_curve`)}: ${picked.map((run) => run.name).join(", ")}`, series, xlabel: word(axis === "tokens" ? "tokens" : "seconds"), x: whole, y: (value) => number(value, digits) });
      else box.replaceChildren(word("no_curve"));
    };
    draw("valid", "valid", "bpb", 2);
    draw("loss", "train", "loss", 2);
    draw("speed", "train", "tokens_per_s", 0);
    const last = (run, kind) => run.records.findLast((record) => record.kind === kind);
    const rows = picked.map((run) => [
      run.name, run.walk ?? "", whole(last(run, "train")?.step), percent(Math.min(1, (last(run, "train")?.tokens ?? 0) / (run.tokens || 1))),
      number(last(run, "train")?.loss), number(last(run, "valid")?.bpb, 4), bytes(run.memory?.training_bytes), bytes(run.memory?.kept_bytes),
    ]);
    table(out(section, "table"), word("runs"), [word("run"), "walk", word("step"), word("done"), word("loss_curve"), word("bpb"), word("memory"), word("kept")], rows);
    out(section, "samples").replaceChildren(...picked.filter((run) => run.sample).map((run) => {
      const box = element("article", { class: "panel" }, element("h2", {}, `${run.name}, ${word("step")} ${run.sample.step}`), element("p", {}, element("strong", {}, PROMPT), run.sample.text));
      box.style.setProperty("--tint", run.colour);
      return box;
    }));
    section.dataset.ready = picked.reduce((sum, run) => sum + run.records.length, 0);
  }

  let timer = null;
  async function loop() {
    await poll();
    if (!section.hidden) timer = setTimeout(loop, EVERY);
  }
  return { begin, again: show, open: () => (clearTimeout(timer), loop()) };
}
