"use strict";
// What all views share: elements made of text (never of HTML), the state that stands in the address, numbers, downloads.

let data = window.DYT;

function fill(made, about, children) {
  for (const [key, value] of Object.entries(about)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") made.style.cssText = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat(3).filter((c) => c !== null && c !== undefined && c !== false));
  return made;
}
const el = (tag, about = {}, ...children) => fill(document.createElement(tag), about, children);
const svg = (tag, about = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), about, children);

// -- state: what is shown, as text in the address, so that a view can be linked to ------------------------------------

const DEFAULTS = {
  view: "answer", study: "", q: "", metric: "", x: "step", log: "", logx: "", smooth: "0", seeds: "auto", panels: "",
  hide: "", add: "", more: "", pin: "", papers: "", target: "", run: "", stat: "alpha", layer: "0", at: "", curve: "0",
  theme: "", sort: "", compare: "", fold: "1", cols: "", verdict: "", scale: "", of: "", key: "", arm: "",
};
const state = { ...DEFAULTS };

function read() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(DEFAULTS)) state[key] = asked.get(key) ?? DEFAULTS[key];
  const kept = (key, fits) => { if (!fits(state[key])) state[key] = DEFAULTS[key]; };
  for (const key of ["layer", "at", "curve"]) kept(key, (v) => /^\d*$/.test(v));
  kept("smooth", (v) => Number(v) >= 0 && Number(v) < 1);
  kept("target", (v) => v === "" || Number.isFinite(Number(v)));
  kept("x", (v) => Object.hasOwn(UNITS, v));
  kept("seeds", (v) => ["auto", "band", "multiples", "each"].includes(v));
}

function address(change) {
  Object.assign(state, change);
  const asked = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) if (value !== DEFAULTS[key]) asked.set(key, value);
  history.replaceState(null, "", `#${asked}`);
}

function set(change) {
  if (change.study) remember(change.study);
  address(change);
  render();
}

const link = (change) => `#${new URLSearchParams(change)}`;
const words = (text) => text.split(",").filter(Boolean);
const toggled = (text, word) => {
  const all = words(text);
  return (all.includes(word) ? all.filter((w) => w !== word) : [...all, word]).join(",");
};

// The study that was looked at last, where the browser lets a page from disk keep something.
function remember(study) {
  try { localStorage.setItem("dyt-study", study); } catch { /* then the main finding is shown */ }
}
function remembered() {
  try { return localStorage.getItem("dyt-study") ?? ""; } catch { return ""; }
}

// -- runs -------------------------------------------------------------------------------------------------------------

const OWN = "runs", ALL = "all";  // the runs that no study has; all runs
let byId = new Map(data.runs.map((run) => [run.id, run]));

function scopes() {
  const studies = [...new Set(data.runs.flatMap((r) => r.studies))].sort();
  return [...(data.runs.some((r) => !r.studies.length) ? [OWN] : []), ...studies];
}

// What a view opens on: what is running, the main finding, or whatever there is.
function home(fits) {
  const open = scopes().filter(fits), own = data.runs.some((r) => r.status === "running" && !r.studies.length);
  const first = [own ? OWN : "", ...data.main, ...open.filter((s) => s !== OWN), OWN];
  return first.find((s) => open.includes(s)) ?? ALL;
}
// The scope that is shown: what the address asks for, what was looked at last if it fits, else what fits best.
function scope(fits = () => true, best = fits) {
  if (state.study === ALL || scopes().includes(state.study)) return state.study;
  return scopes().includes(remembered()) && fits(remembered()) ? remembered() : home(best);
}
const studyOf = (scope) => data.studies.find((s) => `${s.name}/${s.scale}` === scope);
const scopeName = (s) => (s === ALL ? `all ${data.runs.length} runs` : s === OWN ? "runs of no study" : s);
const inScope = (run, s) => s === ALL || (s === OWN ? !run.studies.length : run.studies.includes(s));

// Words that a run must have in its name, status or settings; -word: must not have; one|other: either. A key=value counts
// as a number.
function has(run, word) {
  if (word.includes("|")) return word.split("|").filter(Boolean).some((one) => has(run, one));
  const [key, value] = word.split("=");
  const own = Object.hasOwn(run.config, key) ? run.config[key] : undefined;
  if (value && own !== undefined && Number.isFinite(Number(value)) && Number.isFinite(Number(own))) return Number(own) === Number(value);
  return run.text.includes(word);
}

function matches(run, q) {
  run.text ??= [run.name, run.status, run.model, run.norm, run.data, ...run.studies,
    ...Object.values(run.in).flatMap((about) => [about.variant, about.place]),
    ...Object.entries(run.config).map(([k, v]) => `${k}=${v}`)].join(" ").toLowerCase();
  return q.toLowerCase().split(/\s+/).filter(Boolean)
    .every((w) => (w.startsWith("-") && w.length > 1 ? !has(run, w.slice(1)) : has(run, w)));
}

const LOST = "diverged|failed";  // the filter of runs that were lost

const chosen = (scope) => data.runs.filter((run) => inScope(run, scope) && matches(run, state.q));

// -- numbers and downloads --------------------------------------------------------------------------------------------

const UNITS = { step: "step", samples: "samples", wall: "wall time (s)", share: "share of training" };
const higher = (metric) => data.rising.some((name) => metric.split("/").at(-1).startsWith(name));

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toFixed(size < 10 ? 4 : 2);
}

function brief(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return size && size < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(4));
}

function span(seconds) {
  if (!(seconds >= 0)) return "–";
  const [h, m] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  return h ? `${h} h ${m} min` : m ? `${m} min` : `${Math.round(seconds)} s`;
}

// Student's t at 97.5%, by degrees of freedom.
const T = [NaN, 12.7062, 4.30265, 3.18245, 2.77645, 2.57058, 2.44691, 2.36462, 2.306, 2.26216, 2.22814, 2.20099, 2.17881,
  2.16037, 2.14479, 2.13145, 2.11991, 2.10982, 2.10092, 2.09302, 2.08596];

// Beyond the table by its expansion in 1 / degrees of freedom, there within 2 in 10,000.
const Z = 1.959964, quantile = (f) => T[f] ?? Z + (Z ** 3 + Z) / (4 * f) + (5 * Z ** 5 + 16 * Z ** 3 + 3 * Z) / (96 * f * f);

function interval(values) {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  if (n < 2) return { mean, half: 0, sd: 0, n };
  const sd = Math.sqrt(values.reduce((a, v) => a + (v - mean) ** 2, 0) / (n - 1));
  return { mean, half: (quantile(n - 1) * sd) / Math.sqrt(n), sd, n };
}

function download(name, content, type) {
  const url = content.startsWith("data:") ? content : URL.createObjectURL(new Blob([content], { type }));
  const made = el("a", { href: url, download: name });
  document.body.append(made);
  made.click();
  made.remove();
}

const quoted = (value) => {
  let text = String(value ?? "");
  if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = `'${text}`;  // no formula in a spreadsheet
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};
const csv = (rows) => rows.map((row) => row.map(quoted).join(",")).join("\n") + "\n";
