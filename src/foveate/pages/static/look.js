// Look back: what one token sees, and when which layer works.
import { clock, element, out, sizeColour, table, Task, tokens, work } from "./tools.js";
import { number, percent, whole, word } from "./words.js";

export function look(section, page) {
  const form = section.querySelector("form"), task = new Task(section);
  let shown = null, picked = -1;

  const ask = (token) => task.run(async (signal) => {
    const chosen = (name) => (form[name].value === "" ? null : Number(form[name].value));
    const body = { model: form.model.value, text: page.text(), token, layer: chosen("layer"), head: chosen("head") };
    const found = await work("look", body, (event) => task.say(word("working"), event.progress), signal);
    show(found, token === -1 || !shown || shown.text !== body.text, body.text);
  });

  function show(found, anew, text) {
    // tokens after the picked one are not read; ``pieces`` begins with the mark that a document begins after
    shown = { found, text };
    picked = found.position - 1;
    const place = (at) => at + 1;
    const where = (at) => {
      const size = found.size[place(at)];
      return size === undefined ? word("later") : size === 0 ? word("gone") : size < 0 ? word("not_yet") : word("at_size", { n: size });
    };
    const label = (at) => word("about_token", { token: found.pieces[place(at)].trim() || "␣", where: where(at), mass: percent(found.mass[place(at)] ?? 0) });
    const most = Math.max(...found.mass.slice(1), 1e-9);
    const tint = (one, at) => {
      const size = found.size[place(at)], mass = found.mass[place(at)] ?? 0;
      one.classList.toggle("later", size === undefined || size < 0);
      one.classList.toggle("gone", size === 0);
      if (size > 0) {
        one.style.setProperty("--tint", `color-mix(in srgb, ${sizeColour(size)} 24%, transparent)`);
        one.style.borderBottomColor = `color-mix(in srgb, ${sizeColour(size)} ${Math.round(100 * Math.sqrt(mass / most))}%, transparent)`;
      }
      if (at === picked) one.setAttribute("aria-current", "true");
    };
    const about = (at) => (out(section, "about").textContent = label(at));
    const hadFocus = out(section, "tokens").contains(document.activeElement);
    const made = tokens(out(section, "tokens"), found.pieces.slice(1), { label, tint, onFocus: about, onPick: ask });
    made.focus(picked);
    if (hadFocus) made.all[picked].focus({ preventScroll: true });
    else made.all[picked].scrollIntoView?.({ block: "nearest" });
    legend(found);
    const runs = page.runs(form.model.value, found.layers);
    clock(out(section, "clock"), runs, (stride) => (found.position + 1) % stride === 0);
    const sizes = [...new Set(found.layers.flatMap((layer) => Object.keys(layer.mass)))].map(Number).sort((a, b) => a - b);
    const sums = found.groups.map((group) => [word("at_size", { n: group.size }), percent(group.mass), number(group.keys, 1)]);
    const rows = found.layers.map((layer) => [`${layer.layer}`, `${layer.attention} @${layer.stride}`, word(layer.ran ? "yes" : "no"), ...sizes.map((size) => percent(layer.mass[size] ?? 0))]);
    table(out(section, "table"), sums.map(([name, mass, keys]) => `${name}: ${mass} (${keys} ${word("keys")})`).join(" · "),
      [word("layer"), word("attention"), word("worked"), ...sizes.map((size) => word("at_size", { n: size }))], rows);
    if (anew) choices(found);
    section.dataset.ready = found.position;
  }

  function legend(found) {
    const entry = (colour, name, help, count) => {
      const square = element("i");
      square.style.setProperty("--tint", colour);
      return element("li", {}, square, ` ${name}: ${help} (${word("tokens_n", { n: whole(count) })})`);
    };
    out(section, "legend").replaceChildren(...Object.entries(found.tokens).map(([size, count]) => [Number(size), count]).sort(([a], [b]) => (a <= 0) - (b <= 0) || a - b)
      .map(([size, count]) => size > 0
        ? entry(sizeColour(size), word("at_size", { n: size }), size === 1 ? word("group_one") : word("group_n", { n: size }), count)
        : entry("var(--line)", word(size ? "not_yet" : "gone"), word(size ? "not_yet_help" : "gone_help"), count)));
  }

  function choices(found) {
    const fill = (select, count) => {
      const kept = select.value;
      select.replaceChildren(new Option(word("all"), ""), ...Array.from({ length: count }, (_, at) => new Option(at, at)));
      select.value = kept !== "" && Number(kept) < count ? kept : "";
    };
    fill(form.layer, found.layers.length);
    fill(form.head, Math.min(...found.layers.map((layer) => layer.heads)));
  }

  form.layer.append(new Option(word("all"), ""));
  form.head.append(new Option(word("all"), ""));
  form.onsubmit = (event) => (event.preventDefault(), ask(-1));
  form.layer.onchange = form.head.onchange = () => shown && ask(picked);
  form.model.onchange = () => ((form.layer.value = form.head.value = ""), (shown = null));
  return { again: () => shown && (choices(shown.found), show(shown.found, false, shown.text)) };
}
