// Scramble: what stands before a boundary in random order, and what that costs after it, drawn as it is measured.
import { chart, out, table, Task, work } from "./tools.js";
import { number, whole, word } from "./words.js";

export function scramble(section, page) {
  const form = section.querySelector("form"), task = new Task(section);
  let shown = null, permutations = 1, length = null;

  function slide() {
    const share = Number(form.boundary.value);
    form.where.value = length ? word("of", { n: whole(boundary()), share }) : `${share} %`;
  }
  const boundary = () => Math.min(length - 1, Math.max(1, Math.round((length * form.boundary.value) / 100)));

  function draw(original, scrambled, running, at) {
    const line = (values) => values.map((value, distance) => [distance + 1, value]);
    const series = [{ name: word("original"), colour: "#7d8590", points: line(original) }];
    if (scrambled) series.push({ name: word("scrambled"), colour: "#2f81f7", points: line(scrambled) });
    const label = `${word("original")}, ${word("scrambled")}: ${word("nats")}`;
    chart(out(section, "chart"), { label, series, xlabel: word("past"), marks: at ? [at] : [], x: whole, y: (value) => number(value, 1) });
    if (running) chart(out(section, "running"), { label: word("running"), series: [{ name: word("running"), colour: "#d9822b", points: line(running) }], xlabel: word("past"), height: 150, least: 1, x: whole, y: whole });
  }

  function show(found) {
    shown = found;
    length = found.tokens;
    slide();
    const scrambled = found.original.map((nats, at) => nats + found.delta[at]);
    draw(found.original, scrambled, found.running, found.horizon || null);
    const least = found.horizon === found.farthest;
    out(section, "horizon").textContent = word(least ? "horizon_least" : "horizon", { n: whole(found.horizon), p: found.permutations });
    const details = section.querySelector("details");
    const fill = () => details.open && table(out(section, "table"), word("numbers"), [word("distance"), word("original"), word("scrambled"), word("difference"), word("running")],
      found.delta.map((more, at) => [`${at + 1}`, number(found.original[at]), number(scrambled[at]), number(more), whole(found.running[at])]));
    details.ontoggle = fill;
    fill();
    section.dataset.ready = found.permutations;
  }

  const ask = () => task.run(async (signal) => {
    let original = null;
    const body = { model: form.model.value, text: page.text(), unit: form.unit.value, permutations, boundary: length ? boundary() : null };
    const found = await work("scramble", body, (event) => {
      if (event.original) original = event.original;
      if (event.original && !event.permutation) draw(original);
      if (event.scrambled) draw(original, event.scrambled);
      task.say(word("working"), (event.permutation ?? 0) / permutations);
    }, signal);
    show(found);
  });

  form.onsubmit = (event) => (event.preventDefault(), (permutations = 1), ask());
  section.querySelector(".another").onclick = () => ((permutations = shown ? Math.min(64, permutations + 1) : 1), ask());
  form.boundary.oninput = slide;
  form.boundary.onchange = () => shown && ((permutations = 1), ask());
  page.onText(() => ((length = null), (shown = null), slide()));
  form.model.addEventListener("change", () => ((length = null), (shown = null), slide()));
  slide();
  return { again: () => (slide(), shown && show(shown)) };
}
