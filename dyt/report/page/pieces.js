"use strict";
// Pieces of views: controls, badges, colours, and links to files.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function choice(label, key, options, selected = state[key]) {
  const select = el("select", { onchange: (e) => set({ [key]: e.target.value }), id: `choose-${key}` },
    options.map(([value, text]) => el("option", { value, selected: value === selected }, text)));
  return el("label", {}, label, select);
}

const studyChoice = (label, now) => choice(label, "study", [...scopes(), ALL].map((s) => [s, scopeName(s)]), now);

function check(label, key, on = "1") {
  const box = el("input", { type: "checkbox", id: `check-${key}`, checked: state[key] === on,
    onchange: (e) => set({ [key]: e.target.checked ? on : "" }) });
  return el("label", { class: "check" }, box, label);
}

function filter() {
  let wait;
  const box = el("input", { type: "search", id: "filter", value: state.q, placeholder: "words, optim.lr=2e-3, -diverged",
    oninput: (e) => { clearTimeout(wait); wait = setTimeout(() => set({ q: e.target.value }), 150); } });
  return el("label", {}, "Filter", box);
}

function slider(label, key, count, text) {
  return el("label", {}, `${label}: ${text}`, el("input", { type: "range", id: `slide-${key}`, min: 0, max: Math.max(0, count - 1),
    value: state[key] === "" ? count - 1 : state[key], onchange: (e) => set({ [key]: e.target.value }) }));  // not oninput: drawing anew would end the drag
}

// Controls that a phone folds away.
let unfoldedOptions = false;
function options(...controls) {
  if (innerWidth > 640) return controls;
  return el("details", { open: unfoldedOptions, ontoggle: (e) => { unfoldedOptions = e.target.open; } }, el("summary", { id: "options" }, "Options"), el("div", { class: "controls" }, controls));
}

const button = (text, onclick, about = {}) => el("button", { type: "button", onclick, ...about }, text);
// What may be wider than the screen: scrolled by finger, wheel or arrow keys.
const scroll = (table) => el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": table.caption?.textContent || "Table" }, table);
const badge = (status) => el("span", { class: `badge ${status.split(" ")[0]}` }, status);
const note = (...text) => el("p", { class: "note" }, ...text);

// A long name, shortened in the middle; the whole of it on hover and for a screen reader.
function shortened(text, most = 48) {
  const all = [...text];
  if (all.length <= most) return el("bdi", {}, text);
  const [head, tail] = [Math.ceil(most * 0.6), Math.floor(most * 0.4) - 1];
  return el("bdi", { title: text }, `${all.slice(0, head).join("")}…${all.slice(-tail).join("")}`);
}

function fileLink(path, text = path) {
  if (!path?.startsWith("/")) return el("code", {}, text);
  const at = `file://${encodeURI(path).replace(/[#?]/g, encodeURIComponent)}`;
  return el("a", { href: at, title: path }, text);
}

// -- colours: a family for each norm, and lines within it that can be told apart --------------------------------------

const DASHES = ["solid", "dashed", "dotted", [8, 3, 2, 3], [12, 4]];
const SHAPES = ["circle", "rect", "triangle", "diamond", "emptyCircle", "emptyRect", "emptyTriangle", "emptyDiamond"];
const SHADES = [[0, 0], [12, -14], [-14, 12], [-26, -8], [6, 18], [20, -6], [-8, -22]];  // hue and lightness, added

function hsl(hex) {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255);
  const [most, least] = [Math.max(r, g, b), Math.min(r, g, b)], d = most - least, l = (most + least) / 2;
  if (!d) return [0, 0, l * 100];
  const h = most === r ? ((g - b) / d) % 6 : most === g ? (b - r) / d + 2 : (r - g) / d + 4;
  return [(h * 60 + 360) % 360, (d / (1 - Math.abs(2 * l - 1))) * 100, l * 100];
}

// Which line of its norm's family each is that asks in turn.
function inTurn() {
  const used = {};
  return (norm) => { const family = data.colours[norm] ?? norm; return (used[family] = (used[family] ?? -1) + 1); };
}

// The k-th line of a norm.
function look(norm, k = 0) {
  const [h, s, l] = hsl(data.colours[norm] ?? "#777777"), [hue, light] = SHADES[k % SHADES.length];
  const dark = document.documentElement.dataset.theme === "dark";
  const bright = Math.min(dark ? 82 : 62, Math.max(dark ? 48 : 24, l + light + (dark ? 8 : 0)));
  return { colour: `hsl(${(h + hue + 360) % 360} ${s}% ${bright}%)`, dash: DASHES[k % DASHES.length], shape: SHAPES[k % SHAPES.length] };
}

// A piece of a line as it stands in the chart.
function swatch({ colour, dash = "solid" }) {
  const gaps = { solid: "", dashed: "6 4", dotted: "2 3" }[dash] ?? dash.join(" ");
  return svg("svg", { viewBox: "0 0 24 10", class: "swatch", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: 24, y1: 5, y2: 5, stroke: colour, "stroke-width": 3, "stroke-dasharray": gaps }));
}
