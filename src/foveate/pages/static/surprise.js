// Surprise: the loss of each token, and the difference of two models.
import { out, table, Task, tokens, work } from "./tools.js";
import { number, whole, word } from "./words.js";

export function surprise(section, page) {
  const form = section.querySelector("form"), task = new Task(section);
  let shown = null;

  function show(found) {
    shown = found;
    const { items, models } = found, two = models.length === 2;
    const [a, b] = models.map((model) => model.name);
    const value = (item) => (two ? item.nats[0] - item.nats[1] : item.nats[0]);
    const most = Math.max(...items.map((item) => Math.abs(value(item))), 1e-9);
    const label = (at) => {
      const item = items[at], token = item.text.trim() || "␣";
      return two ? word("about_both", { token, a: number(item.nats[0]), b: number(item.nats[1]), d: number(value(item)) }) : word("about_nats", { token, nats: number(item.nats[0]) });
    };
    const tint = (one, at) => {
      const share = Math.sqrt(Math.abs(value(items[at])) / most), colour = two && value(items[at]) < 0 ? "var(--first)" : "var(--second)";
      one.style.setProperty("--tint", `color-mix(in srgb, ${colour} ${Math.round(42 * share)}%, transparent)`);
    };
    out(section, "explain").textContent = two ? word("surprise_two", { a, b }) : word("surprise_one", { a });
    tokens(out(section, "tokens"), items.map((item) => item.text), { label, tint, onFocus: (at) => (out(section, "about").textContent = label(at)) });
    out(section, "about").textContent = label(items.reduce((most, item, at) => (Math.abs(value(item)) > Math.abs(value(items[most])) ? at : most), 0));
    const rows = models.map((model) => [model.name, number(model.bpb, 4), number(model.nll_per_token, 4), whole(model.tokens), whole(model.bytes), whole(model.context)]);
    table(out(section, "summary"), word("surprise_table"), [word("model"), word("bpb"), word("per_token"), word("tokens"), word("bytes"), word("context")], rows);
    if (two) table(out(section, "kinds"), word("kinds_table", { a, b }), [word("kind"), word("items"), word("mean")], found.kinds.map((each) => [word(each.kind), whole(each.items), number(each.mean)]));
    else out(section, "kinds").replaceChildren();
    const head = two ? [word("token"), a, b, word("difference")] : [word("token"), word("nats")];
    const details = section.querySelector("details");
    const fill = () => details.open && table(out(section, "table"), word("numbers"), head, items.map((item) => [item.text, ...item.nats.map((nats) => number(nats)), ...(two ? [number(value(item))] : [])]));
    details.ontoggle = fill;
    fill();
    for (const each of section.querySelectorAll(".after")) each.hidden = false;
    section.dataset.ready = models.length;
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    const models = [form.model.value, form.against.value].filter((name, at, all) => name && all.indexOf(name) === at), text = page.text();
    task.run(async (signal) => show(await work("surprise", { models, text }, (told) => task.say(word("working"), told.progress), signal)));
  };
  return { again: () => shown && show(shown) };
}
