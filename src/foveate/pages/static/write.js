// Write: two models go on with one prompt, as they decode it, with what that costs.
import { clock, element, out, Task, work } from "./tools.js";
import { bytes, number, whole, word } from "./words.js";

export function write(section, page) {
  const form = section.querySelector("form"), task = new Task(section);
  let panels = [];

  function panel(name) {
    const text = element("p", { class: "prose" }), costs = element("dl"), squares = element("div", { class: "clock" });
    const box = element("article", { class: "panel", "data-model": name }, element("h2", {}, name), costs, squares, text);
    box.style.setProperty("--tint", page.colour(name));
    const runs = page.runs(name), layers = runs.reduce((sum, run) => sum + run.layers, 0);
    const perToken = runs.reduce((sum, run) => sum + run.layers / run.stride, 0);
    text.append(element("strong", {}, form.prompt.value));
    const made = { name, box, perToken, last: null };
    made.again = () => {
      const event = made.last;
      if (!event) return;
      // the layers of a stride work at the token that completes a unit
      const ran = (stride) => (event.position + 1) % stride === 0;
      clock(squares, runs, ran);
      const rows = [["speed", number(event.tokens_per_s, 1)], ["state", bytes(event.state_bytes, 1)], ["tokens", whole(event.tokens)]];
      if (layers) rows.splice(2, 0, ["ran", `${number(perToken, 1)} / ${layers}`]);
      costs.replaceChildren(...rows.map(([key, value]) => element("div", {}, element("dt", {}, word(key)), element("dd", { "data-value": key }, value))));
    };
    made.told = (event) => {
      if (event.piece) text.append(event.piece);
      if (event.tokens != null) made.last = event;
      made.again();
    };
    return made;
  }

  // The first against the second, where both are done.
  function verdict() {
    const [a, b] = panels;
    const both = a?.last?.tokens_per_s && b?.last?.tokens_per_s && section.dataset.ready === "2";
    const ratio = (x, y) => number(x / y, 2);
    out(section, "verdict").textContent = both
      ? word("verdict", { a: a.name, b: b.name, s: ratio(a.last.tokens_per_s, b.last.tokens_per_s), m: ratio(a.last.state_bytes, b.last.state_bytes) }) : "";
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    const names = [form.model.value, form.against.value].filter((name, at, all) => name && all.indexOf(name) === at);
    panels = names.map(panel);
    out(section, "panels").replaceChildren(...panels.map(({ box }) => box));
    delete section.dataset.ready;
    verdict();
    task.run(async (signal) => {
      const given = (name) => (form[name].value === "" ? null : Number(form[name].value));
      for (const [at, name] of names.entries()) {
        const body = { model: name, prompt: form.prompt.value, tokens: given("tokens"), temperature: given("temperature"), seed: given("seed") };
        panels[at].told(await work("write", body, (told) => (panels[at].told(told), task.say(`${name}: ${word("working")}`, (told.tokens ?? 0) / (body.tokens || 100))), signal));
      }
      section.dataset.ready = names.length;
      verdict();
    });
  };
  return { again: () => (panels.forEach((each) => each.again()), verdict()) };
}
