// Scramble: what stands before a boundary in random order, and what that costs after it, drawn as it is measured.
import { chart, COLOURS, out, table, Task, work } from "./tools.js";
import { number, whole, word } from "./words.js";

export function scramble(section, page) {
  const form = section.querySelector("form"), task = new Task(section);
  let shown = null, permutations = 1, length = null;

  function slide() {
    const share = Number(form.boundary.value);
    form.where.value = length ? word("of", { n: whole(boundary()), share }) : `${share} %`;
  }
  const boundary = () => Math.min(length - 1, Math.max(1, Math.round((length * form.boundary.value) / 100)));

  const line = (values) => values.map((value, distance) => [distance + 1, value]);
  function draw(original, scrambled, running, at) {
    const series = [{ name: word("scrambled"), colour: COLOURS[1], points: line(scrambled ?? []) }, { name: word("original"), colour: COLOURS[0], points: line(original) }];
    const both = { xlabel: word("past"), marks: at ? [at] : [], x: whole };
    chart(out(section, "chart"), { ...both, label: word("surprise_each"), series: scrambled ? series : series.slice(1), y: (value) => number(value, 1) });
    if (!scrambled) return;
    const more = [{ name: word("more"), colour: COLOURS[1], points: line(scrambled.map((nats, each) => nats - original[each])), area: true }];
    chart(out(section, "more"), { ...both, label: word("more"), series: more, height: 170, y: (value) => number(value, 2) });
    if (running) chart(out(section, "running"), { ...both, label: word("running"), series: [{ name: word("running"), colour: COLOURS[2], points: line(running), steps: true }], height: 130, least: 1, y: whole });
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
    for (const each of section.querySelectorAll(".after")) each.hidden = false;
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
