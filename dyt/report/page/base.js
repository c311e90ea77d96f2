"use strict";
// What all views share: elements made of text (never of HTML), the state that stands in the address, numbers, downloads.

const data = window.DYT;

function el(tag, about = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return made;
}

// -- state: what is shown, as text in the address, so that a view can be linked to ------------------------------------

const DEFAULTS = {
  view: "studies", study: "", q: "", metric: "", x: "step", log: "", logx: "", smooth: "0", seeds: "band", facet: "1",
  hide: "", run: "", stat: "alpha", layer: "0", at: "", curve: "0", theme: "", sort: "", compare: "",
};
const state = { ...DEFAULTS };

function read() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(DEFAULTS)) state[key] = asked.get(key) ?? DEFAULTS[key];
  const kept = (key, fits) => { if (!fits(state[key])) state[key] = DEFAULTS[key]; };
  for (const key of ["layer", "at", "curve"]) kept(key, (v) => /^\d*$/.test(v));
  kept("smooth", (v) => Number(v) >= 0 && Number(v) < 1);
  kept("x", (v) => ["step", "samples", "wall"].includes(v));
  kept("seeds", (v) => ["band", "each"].includes(v));
}

function set(change) {
  Object.assign(state, change);
  const asked = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value !== DEFAULTS[key]) asked.set(key, value);
  history.replaceState(null, "", `#${asked}`);
  render();
}

const words = (text) => text.split(",").filter(Boolean);
const toggled = (text, word) => {
  const list = words(text);
  return (list.includes(word) ? list.filter((w) => w !== word) : [...list, word]).join(",");
};

// -- runs -------------------------------------------------------------------------------------------------------------

const byId = new Map(data.runs.map((run) => [run.id, run]));
const OWN = "runs";  // the choice of runs that no study has

// Words that a run must have in its name, status or settings; -word: must not have. A key=value counts as a number.
function has(run, word) {
  const [key, value] = word.split("=");
  const own = Object.hasOwn(run.config, key) ? run.config[key] : undefined;
  if (value && own !== undefined && Number.isFinite(Number(value)) && Number.isFinite(Number(own))) return Number(own) === Number(value);
  return run.text.includes(word);
}

function matches(run, q) {
  run.text ??= [run.name, run.group, run.status, run.model, run.norm, run.data, ...run.studies,
    ...Object.entries(run.config).map(([k, v]) => `${k}=${v}`)].join(" ").toLowerCase();
  return q.toLowerCase().split(/\s+/).filter(Boolean)
    .every((w) => (w.startsWith("-") && w.length > 1 ? !has(run, w.slice(1)) : has(run, w)));
}

function chosen() {
  return data.runs.filter((run) => {
    const of = state.study === "" || (state.study === OWN ? !run.studies.length : run.studies.includes(state.study));
    return of && matches(run, state.q);
  });
}

// -- numbers and downloads --------------------------------------------------------------------------------------------

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(size < 10 ? 4 : 2);
}

// Student's t at 97.5%, by degrees of freedom.
const T = [NaN, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131,
  2.12, 2.11, 2.101, 2.093, 2.086];

function interval(values) {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  if (n < 2) return { mean, half: 0, n };
  const deviation = Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (n - 1));
  return { mean, half: ((T[n - 1] ?? 1.98) * deviation) / Math.sqrt(n), n };
}

function download(name, content, type) {
  const url = content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

const quoted = (value) => {
  let text = String(value ?? "");
  if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;  // no formula in a spreadsheet
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csv = (rows) => rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";

// -- pieces -----------------------------------------------------------------------------------------------------------

function choice(label, key, options) {
  const select = el("select", { onchange: (e) => set({ [key]: e.target.value }), id: `choose-${key}` },
    options.map(([value, text]) => el("option", { value, selected: value === state[key] }, text)));
  return el("label", {}, label, select);
}

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

const badge = (status) => el("span", { class: `badge ${status.split(" ")[0]}` }, status);
const colour = (norm) => data.colours[norm] ?? "#777777";
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// A piece of a line as it stands in the chart.
function swatch(norm, dash = "solid") {
  const space = "http://www.w3.org/2000/svg";
  const [box, line] = [document.createElementNS(space, "svg"), document.createElementNS(space, "line")];
  const gaps = { solid: "", dashed: "6 4", dotted: "2 3" }[dash] ?? dash.join(" ");
  for (const [key, value] of Object.entries({ x1: 0, x2: 24, y1: 5, y2: 5, stroke: colour(norm), "stroke-width": 3,
    "stroke-dasharray": gaps })) line.setAttribute(key, value);
  box.setAttribute("viewBox", "0 0 24 10");
  box.setAttribute("class", "swatch");
  box.setAttribute("aria-hidden", "true");
  box.append(line);
  return box;
}
