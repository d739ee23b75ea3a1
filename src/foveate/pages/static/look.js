// Look back: what one token sees, and when which layer works.
import { clock, element, out, sizeColour, table, Task, tokens, work } from "./tools.js";
import { number, percent, whole, word } from "./words.js";

const GONE = 0, NOT_YET = -1, OPENED = -2; // what stands for a size, as in lookback.py

export function look(section, page) {
  const form = section.querySelector("form"), task = new Task(section);
  let shown = null, picked = -1;

  const given = (name) => (form[name].value === "" || form[name].closest("[hidden]") ? null : Number(form[name].value));
  const ask = (token) => task.run(async (signal) => {
    const body = { model: form.model.value, text: page.text(), token, layer: given("layer"), head: given("head") };
    if (form.zoom.value && !form.zoom.closest("[hidden]")) Object.assign(body, { near: given("near"), opened: given("opened") });
    const anew = token === -1 || !shown || shown.text !== body.text;
    const found = await work("look", body, (event) => {
      // the text stands there before it is coloured
      if (event.pieces && anew) tokens(out(section, "tokens"), event.pieces, { label: (at) => event.pieces[at], tint: () => {} });
      if (event.progress != null) task.say(word("working"), event.progress);
    }, signal);
    show(found, anew, body.text);
  });

  const where = (size) =>
    size === undefined ? word("later") : size === GONE ? word("gone") : size === NOT_YET ? word("not_yet") : size === OPENED ? word("opened") : word("at_size", { n: size });
  const help = (size) =>
    size === OPENED ? word("opened_help") : size === NOT_YET ? word("not_yet_help") : size === GONE ? word("gone_help") : size === 1 ? word("group_one") : word("group_n", { n: size });
  const colour = (size) => (size === OPENED ? "var(--opened)" : size > 0 ? sizeColour(size) : "var(--line)");

  function show(found, anew, text) {
    // tokens after the picked one are not read; ``pieces`` begins with the mark that a document begins after
    shown = { found, text };
    picked = found.position - 1;
    const place = (at) => at + 1;
    const label = (at) => word("about_token", { token: found.pieces[place(at)].trim() || "␣", where: where(found.size[place(at)]), mass: percent(found.mass[place(at)] ?? 0) });
    const most = Math.max(...found.mass.slice(1), 1e-9);
    const tint = (one, at) => {
      const size = found.size[place(at)], mass = found.mass[place(at)] ?? 0;
      one.classList.toggle("later", size === undefined || size === NOT_YET);
      one.classList.toggle("gone", size === GONE);
      one.classList.toggle("opened", size === OPENED);
      if (size > 0 || size === OPENED) {
        one.style.setProperty("--tint", `color-mix(in srgb, ${colour(size)} 24%, transparent)`);
        one.style.borderBottomColor = `color-mix(in srgb, ${colour(size)} ${Math.round(100 * Math.sqrt(mass / most))}%, transparent)`;
      }
      if (at === picked) one.setAttribute("aria-current", "true");
    };
    const about = (at) => (out(section, "about").textContent = label(at));
    const hadFocus = out(section, "tokens").contains(document.activeElement);
    const made = tokens(out(section, "tokens"), found.pieces.slice(1), { label, tint, onFocus: about, onPick: ask });
    made.focus(picked);
    if (hadFocus) made.all[picked].focus({ preventScroll: true });
    // within the box: the page stays where it is
    const box = out(section, "tokens"), at = made.all[picked];
    if (at.offsetTop + at.offsetHeight > box.scrollTop + box.clientHeight || at.offsetTop < box.scrollTop) box.scrollTop = at.offsetTop - box.clientHeight / 2;
    about(picked);
    summary(found);
    const runs = page.runs(form.model.value, found.layers);
    clock(out(section, "clock"), runs, (stride) => (found.position + 1) % stride === 0);
    rows(found);
    if (anew) choices(found);
    for (const each of section.querySelectorAll(".after")) each.hidden = false;
    section.dataset.ready = found.position;
  }

  // The attention as one bar, and what its colours mean.
  function summary(found) {
    const parts = found.groups.map((group) => {
      const part = element("i");
      part.style.setProperty("--tint", colour(group.size));
      part.style.flexGrow = group.mass;
      return part;
    });
    const said = found.groups.map((group) => `${where(group.size)} ${percent(group.mass, 0)}`).join(", ");
    out(section, "bar").replaceChildren(...parts);
    out(section, "bar").setAttribute("aria-label", `${word("attention")}: ${said}`);
    const groups = Object.fromEntries(found.groups.map((group) => [group.size, group]));
    const last = (size) => size === GONE || size === NOT_YET;
    const sizes = [...new Set([...Object.keys(found.tokens), ...Object.keys(groups)])].map(Number);
    sizes.sort((a, b) => last(a) - last(b) || (a === OPENED ? 1.5 : a) - (b === OPENED ? 1.5 : b));
    out(section, "legend").replaceChildren(...sizes.map((size) => {
      const square = element("i");
      square.style.setProperty("--tint", colour(size));
      const name = element("strong", {}, where(size)), group = groups[size];
      const count = word("tokens_n", { n: whole(found.tokens[size] ?? 0) });
      const more = group ? word("share", { share: percent(group.mass, 0), keys: number(group.keys, 1) }) : "";
      return element("li", {}, square, element("span", {}, name, `: ${help(size)} `, element("small", {}, [count, more].filter(Boolean).join(" · "))));
    }));
  }

  function rows(found) {
    const sizes = [...new Set(found.layers.flatMap((layer) => Object.keys(layer.mass)))].map(Number);
    sizes.sort((a, b) => (a === OPENED ? 1.5 : a) - (b === OPENED ? 1.5 : b));
    const share = (mass) => (mass == null ? "" : percent(mass));
    const made = found.layers.map((layer) => [`${layer.layer}`, `${layer.attention} @${layer.stride}`, word(layer.ran ? "yes" : "no"), ...sizes.map((size) => share(layer.mass[size]))]);
    table(out(section, "table"), word("look_table"), [word("layer"), word("kind_of"), word("worked"), ...sizes.map(where)], made);
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

  // a walk says itself how far text is read; other models can zoom
  function zooms() {
    for (const each of form.querySelectorAll(".zooms")) each.hidden = Boolean(page.model(form.model.value)?.walk);
    for (const each of form.querySelectorAll(".zoomed")) each.hidden = !form.zoom.value || Boolean(page.model(form.model.value)?.walk);
  }

  form.layer.append(new Option(word("all"), ""));
  form.head.append(new Option(word("all"), ""));
  form.onsubmit = (event) => (event.preventDefault(), ask(-1));
  form.layer.onchange = form.head.onchange = () => shown && ask(picked);
  form.model.onchange = () => ((form.layer.value = form.head.value = ""), zooms(), ask(-1));
  form.zoom.onchange = () => (zooms(), ask(-1));
  form.near.onchange = form.opened.onchange = () => shown && ask(picked);
  return {
    again: () => {
      if (!shown) return;
      const kept = [form.layer.value, form.head.value];
      show(shown.found, false, shown.text);
      choices(shown.found);
      [form.layer.value, form.head.value] = kept;
    },
    begin: () => (zooms(), section.hidden || ask(-1)),
    zooms,
  };
}
