// Write: two models go on with one prompt, as they decode it, with what that costs.
import { clock, COLOURS, element, out, Task, work } from "./tools.js";
import { bytes, number, whole, word } from "./words.js";

export function write(section, page) {
  const form = section.querySelector("form"), task = new Task(section);

  function panel(name, colour) {
    const text = element("p"), costs = element("dl"), squares = element("div", { class: "clock" });
    const box = element("article", { class: "panel", "data-model": name }, element("h2", {}, name), squares, text, costs);
    box.style.setProperty("--tint", colour);
    const runs = page.runs(name), layers = runs.reduce((sum, run) => sum + run.layers, 0);
    const perToken = runs.reduce((sum, run) => sum + run.layers / run.stride, 0);
    text.append(element("strong", {}, form.prompt.value));
    const told = (event) => {
      if (event.piece) text.append(event.piece);
      if (event.tokens == null) return;
      // the layers of a stride work at the token that completes a unit
      const ran = (stride) => (event.position + 1) % stride === 0;
      const now = runs.reduce((sum, run) => sum + (ran(run.stride) ? run.layers : 0), 0);
      clock(squares, runs, ran);
      const rows = [["tokens", whole(event.tokens)], ["speed", number(event.tokens_per_s, 1)], ["state", bytes(event.state_bytes)]];
      if (layers) rows.push(["ran", `${number(perToken, 1)} / ${layers}`], ["now", whole(now)]);
      costs.replaceChildren(...rows.flatMap(([key, value]) => [element("dt", {}, word(key)), element("dd", { "data-value": key }, value)]));
    };
    return { box, told };
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    const names = [form.model.value, form.against.value].filter((name, at, all) => name && all.indexOf(name) === at);
    const panels = names.map((name, at) => panel(name, COLOURS[at]));
    out(section, "panels").replaceChildren(...panels.map(({ box }) => box));
    delete section.dataset.ready;
    task.run(async (signal) => {
      const given = (name) => (form[name].value === "" ? null : Number(form[name].value));
      for (const [at, name] of names.entries()) {
        const body = { model: name, prompt: form.prompt.value, tokens: given("tokens"), temperature: given("temperature"), seed: given("seed") };
        panels[at].told(await work("write", body, (told) => (panels[at].told(told), task.say(`${name}: ${word("working")}`, (told.tokens ?? 0) / (body.tokens || 100))), signal));
      }
      section.dataset.ready = names.length;
    });
  };
  return {};
}
