// What every view needs: work asked of the server, elements, tokens that the keyboard walks through, tables, charts.
import { said, word } from "./words.js";

// Asks for work and hands on its events; gives the result. Throws an Error with one line that says what is wrong.
export async function work(name, body, onEvent, signal) {
  const answer = await fetch(`api/${name}`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
  }).catch(unreached);
  if (!answer.ok) throw new Error(await complaint(answer));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the server has ended the answer");
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      const event = JSON.parse(line);
      if (event.error) throw new Error(event.error);
      if ("result" in event) return event.result;
      onEvent?.(event);
    }
  }
}

export async function get(path) {
  const answer = await fetch(path).catch(unreached);
  if (!answer.ok) throw new Error(await complaint(answer));
  return answer.json();
}

function unreached(error) {
  if (error.name === "AbortError") throw error;
  throw new Error("the server does not answer; is foveate app still running?");
}

async function complaint(answer) {
  const body = await answer.json().catch(() => null);
  return body?.error?.message ?? `the server answers ${answer.status}`;
}

// A view's work: one at a time, with progress, a button that stops it, and a line for what went wrong.
export class Task {
  constructor(section) {
    this.line = section.querySelector(".task");
    this.button = section.querySelector(".stop");
    this.button?.addEventListener("click", () => this.stop());
  }

  stop() {
    this.controller?.abort();
  }

  async run(does) {
    this.stop();
    const controller = (this.controller = new AbortController());
    if (this.button) this.button.disabled = false;
    this.say(word("waiting"), null);
    try {
      await does(controller.signal);
      if (this.controller === controller) this.line.replaceChildren();
    } catch (error) {
      if (this.controller !== controller) return;
      if (error.name === "AbortError") this.line.replaceChildren(element("span", { "data-word": "stopped" }, word("stopped")));
      else this.complain(error.message);
    } finally {
      if (this.controller === controller && this.button) this.button.disabled = true;
    }
  }

  say(text, share) {
    const bar = element("progress", { max: 1, "aria-label": text });
    if (share != null) bar.value = share;
    this.line.replaceChildren(text, bar);
  }

  complain(...texts) {
    const lines = texts.flatMap((text, at) => (at ? [" · ", said(text)] : [said(text)]));
    this.line.replaceChildren(element("p", { class: "error", role: "alert" }, ...lines));
  }
}

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value != null) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const out = (section, name) => section.querySelector(`[data-out="${name}"]`);

// A text's tokens: one of them is in the tab order, the arrow keys go from one to the next. ``onPick`` is told the number.
const PART = 400;
export function tokens(box, pieces, { label, tint, onFocus, onPick }) {
  const all = pieces.map((piece, at) => {
    const one = element("b", { role: "button", tabindex: "-1", "data-at": at, "aria-label": label(at) }, piece || "·");
    tint(one, at);
    return one;
  });
  const parts = [];
  for (let first = 0; first < all.length; first += PART) {
    const part = element("span", { class: all.length > 4 * PART ? "part" : "" });
    part.append(...all.slice(first, first + PART));
    parts.push(part);
  }
  box.replaceChildren(...parts);
  let current = all[0];
  const focus = (one) => {
    current?.setAttribute("tabindex", "-1");
    current = one;
    current.setAttribute("tabindex", "0");
  };
  if (current) focus(current);
  box.scrollTop = 0;
  const at = (event) => event.target.closest?.("[data-at]");
  box.onfocusin = box.onmouseover = (event) => at(event) && onFocus?.(Number(at(event).dataset.at));
  box.onclick = (event) => at(event) && (focus(at(event)), onPick?.(Number(at(event).dataset.at)));
  box.onkeydown = (event) => {
    const here = at(event);
    if (!here) return;
    const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10, Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      event.preventDefault();
      const next = Math.min(all.length - 1, Math.max(0, Number(here.dataset.at) + moves[event.key]));
      focus(all[next]);
      all[next].focus();
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      focus(here);
      onPick?.(Number(here.dataset.at));
    }
  };
  return { all, focus: (number) => focus(all[number]) };
}

export function table(box, caption, head, rows) {
  const cells = (kind, row) => element("tr", {}, ...row.map((cell, at) => element(at ? kind : kind === "th" ? "th" : "td", at ? {} : { class: "word", scope: kind === "th" ? "col" : null }, cell)));
  const made = element("table", {}, element("caption", {}, caption), element("thead", {}, cells("th", head)), element("tbody", {}, ...rows.map((row) => cells("td", row))));
  box.replaceChildren(made);
}

// Lines over numbers, drawn in the box's own pixels, so that letters keep their size on a phone.
const NS = "http://www.w3.org/2000/svg";
export function chart(box, { label, series, xlabel, marks = [], height = 240, least = 0, x: showX, y: showY }) {
  const draw = () => box.replaceChildren(picture(Math.max(box.clientWidth, 200), height, { label, series, xlabel, marks, least, showX, showY }));
  draw();
  box.redraw ??= new ResizeObserver(() => box.again?.());
  box.again = () => box.clientWidth !== box.drawnAt && ((box.drawnAt = box.clientWidth), draw());
  box.drawnAt = box.clientWidth;
  box.redraw.observe(box);
}

function picture(width, height, { label, series, xlabel, marks, least, showX, showY }) {
  const svg = document.createElementNS(NS, "svg");
  const put = (name, attributes, text) => {
    const made = document.createElementNS(NS, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text != null) made.textContent = text;
    svg.append(made);
  };
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", label);
  const points = series.flatMap((line) => line.points);
  if (!points.length) return svg;
  const [left, right, top, bottom] = [62, 14, 14 + 18 * series.length, 44];
  const xs = points.map(([x]) => x), ys = points.map(([, y]) => y);
  if (series.some((line) => line.area)) ys.push(0);
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  if (y1 - y0 < 1e-9) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const X = (x) => left + ((x - x0) / (x1 - x0 || 1)) * (width - left - right);
  const Y = (y) => top + ((y1 - y) / (y1 - y0)) * (height - top - bottom);
  for (const tick of ticks(y0, y1, Math.max(2, Math.round((height - top - bottom) / 36)), least)) {
    put("line", { x1: left, x2: width - right, y1: Y(tick), y2: Y(tick), class: tick === 0 ? "zero" : "grid" });
    put("text", { x: left - 8, y: Y(tick) + 4, "text-anchor": "end" }, showY(tick));
  }
  const room = 8 * showX(x1).length + 34; // of a label
  for (const tick of ticks(x0, x1, Math.max(2, Math.floor((width - left - right) / room)), 1)) put("text", { x: X(tick), y: height - 26, "text-anchor": X(tick) > width - 40 ? "end" : "middle" }, showX(tick));
  put("text", { x: (left + width - right) / 2, y: height - 7, "text-anchor": "middle" }, xlabel);
  for (const mark of marks) put("line", { x1: X(mark), x2: X(mark), y1: top, y2: height - bottom, class: "mark" });
  series.forEach((line, at) => {
    put("rect", { x: left, y: 5 + 18 * at, width: 14, height: 4, rx: 2, fill: line.colour });
    put("text", { x: left + 20, y: 12 + 18 * at }, line.name);
    if (line.points.length === 1) put("circle", { cx: X(line.points[0][0]), cy: Y(line.points[0][1]), r: 3, fill: line.colour });
    const at_ = ([x, y]) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`;
    const drawn = line.steps ? line.points.flatMap(([x, y], each, all) => (each ? [[x, all[each - 1][1]], [x, y]] : [[x, y]])) : line.points;
    const path = drawn.map(at_).join(" ");
    if (line.area && drawn.length) put("polygon", { points: `${at_([drawn[0][0], 0])} ${path} ${at_([drawn.at(-1)[0], 0])}`, fill: line.colour, "fill-opacity": 0.25 });
    put("polyline", { points: path, fill: "none", stroke: line.colour, "stroke-width": 2, "stroke-linejoin": "round" });
  });
  return svg;
}

function ticks(low, high, count, least = 0) {
  const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((times) => times * power).find((each) => each >= Math.max(raw, least)) ?? Math.max(raw, least);
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) found.push(Math.abs(tick) < step * 1e-6 ? 0 : tick);
  return found;
}

export const COLOURS = ["#7d8590", "#2f81f7", "#d9822b", "#3f9c5a", "#a371c9", "#c0504d"]; // of models, as in the report
export const sizeColour = (size) => `var(--r${size >= 256 ? 256 : size >= 64 ? 64 : size >= 16 ? 16 : size >= 2 ? 4 : 1})`;

// The squares of a walk's layers, a row for each resolution; ``ran`` says which worked.
export function clock(box, runs, ran) {
  const strides = [...new Set(runs.map((run) => run.stride))].sort((a, b) => a - b);
  box.replaceChildren(...strides.map((stride) => {
    const row = element("div", {}, element("span", {}, `${stride}x`));
    for (const run of runs) for (let each = 0; each < run.layers; each++) {
      const here = run.stride === stride;
      const cell = element("i", { class: here ? (ran(stride) ? "ran" : "") : "none" });
      cell.style.setProperty("--tint", sizeColour(stride));
      row.append(cell);
    }
    return row;
  }));
}
