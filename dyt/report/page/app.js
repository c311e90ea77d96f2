"use strict";
// Layers, the table of runs, and what holds the page together: navigation, theme, and refreshing while it is watched.

const STATS = { alpha: "alpha", in_std: "std of the input", in_mean: "mean of the input", saturated: "share with |alpha x| > 2",
  grad_norm: "gradient norm", tanh_r2: "R² of the best tanh", line_r2: "R² of the best line" };

function layersOf(run) {
  const layers = new Map();
  for (const [key, [steps, values]] of Object.entries(data.curves[run.id] ?? {})) {
    if (!key.startsWith("probe/")) continue;
    const [, layer, stat] = key.split("/");
    if (!layers.has(layer)) layers.set(layer, {});
    layers.get(layer)[stat] = steps.map((s, i) => [s, values[i]]);
  }
  return layers;
}

function slider(label, key, count, text) {
  return el("label", {}, `${label}: ${text}`, el("input", { type: "range", id: `slide-${key}`, min: 0, max: Math.max(0, count - 1),
    value: state[key] === "" ? count - 1 : state[key], onchange: (e) => set({ [key]: e.target.value }) }));  // not oninput: drawing anew would end the drag
}

const depth = (i, n) => `hsl(${250 - (200 * i) / Math.max(1, n - 1)} 65% ${state.theme === "dark" ? 62 : 45}%)`;

function layersView() {
  const runs = chosen().filter((r) => Object.keys(data.curves[r.id] ?? {}).some((k) => k.startsWith("probe/")));
  const run = byId.get(state.run) && runs.includes(byId.get(state.run)) ? byId.get(state.run) : runs[0];
  const out = [el("h2", {}, "By layer and over time"), el("div", { class: "controls" },
    choice("Runs of", "study", studyOptions()), filter())];
  if (!run) return [...out, el("p", {}, "None of these runs was probed (trainer.probe_every=100)."), scurveView()];
  const layers = layersOf(run), stats = Object.keys(STATS).filter((s) => [...layers.values()].some((l) => l[s]));
  const stat = stats.includes(state.stat) ? state.stat : stats[0];
  const named = [...layers].filter(([, l]) => l[stat]), i = Math.min(Number(state.layer) || 0, named.length - 1);
  const [name, here] = named[i], steps = here[stat].map((p) => p[0]);
  const at = state.at === "" ? steps.length - 1 : Math.min(Number(state.at), steps.length - 1);
  out[1].append(
    el("label", {}, "Run", el("select", { id: "choose-run", onchange: (e) => set({ run: e.target.value }) },
      runs.map((r) => el("option", { value: r.id, selected: r === run }, `${r.norm} s${r.seed} ${r.group} (${r.model})`)))),
    el("label", {}, "Statistic", el("select", { id: "choose-stat", onchange: (e) => set({ stat: e.target.value }) },
      stats.map((s) => el("option", { value: s, selected: s === stat }, STATS[s])))),
    slider("Layer", "layer", named.length, name), slider("Step", "at", steps.length, String(steps[at])));
  const about = (layer, what) => ([x, y]) => [layer, `step ${number(x)}: ${what} ${number(y)}`];
  const over = named.map(([layer, l], j) => ({ name: layer, colour: depth(j, named.length), points: l[stat], faint: j !== i,
    width: j === i ? 3 : 1.2, about: about(layer, STATS[stat]) }));
  if (stat === "alpha" && here.in_std) {
    over.push({ name: `1/std of ${name}`, colour: css("--text"), dash: "dashed", width: 2,
      points: here.in_std.map(([s, v]) => [s, 1 / v]), about: about(name, "1/std of the input") });
  }
  const by = [{ name: STATS[stat], colour: colour(run.norm), dots: 7, points: named.map(([, l], j) => [j, (l[stat][at] ?? l[stat].at(-1))[1]]),
    about: ([j, y]) => [named[j][0], `step ${steps[at]}: ${STATS[stat]} ${number(y)}`] }];
  out.push(el("div", { class: "facets" },
    chart(over, [], { title: `${STATS[stat]} over time, ${run.norm} seed ${run.seed}`, x: "step", y: STATS[stat] }),
    chart(by, [], { title: `${STATS[stat]} by layer at step ${steps[at]}`, x: "layer, from the input on", y: STATS[stat] })),
  scurveView());
  return out;
}

function scurveView() {
  if (!data.scurves.length) return null;
  const i = Math.min(Number(state.curve) || 0, data.scurves.length - 1), s = data.scurves[i];
  const xs = s.points.map((p) => p[0]), low = Math.min(...xs), high = Math.max(...xs);
  const fit = Array.from({ length: 120 }, (_, k) => low + ((high - low) * k) / 119).map((x) => [x, s.a * Math.tanh(s.b * x)]);
  const dots = s.points.slice().sort((a, b) => a[0] - b[0]);
  return el("div", {}, el("h2", {}, "What trained LayerNorms draw"), el("div", { class: "controls" },
    slider("Layer", "curve", data.scurves.length, `${s.setting}: ${s.layer}`)),
  el("div", { class: "facets" }, chart([
    { name: "LayerNorm", colour: colour("layernorm"), points: dots, dots: 4, width: 0, about: ([x, y]) => [`${s.setting}: ${s.layer}`, `input ${number(x)}, output ${number(y)}`] },
    { name: "best tanh", colour: colour("dyt"), points: fit, width: 3, about: ([x, y]) => ["best tanh", `${number(x)}: ${number(y)}`] },
  ], [], { title: `${s.setting}: ${s.layer}, ${s.a} tanh(${s.b} x), R² ${number(s.r2)}`, x: "input", y: "output, before gamma and beta" })));
}

// -- the table of runs ------------------------------------------------------------------------------------------------

const COLUMNS = {
  status: (r) => r.status, norm: (r) => r.norm, model: (r) => r.model, data: (r) => r.data, seed: (r) => r.seed,
  "val/loss": (r) => r.final["val/loss"], "val/top1": (r) => r.final["val/top1"], "train/loss": (r) => r.final["train/loss"],
  best: (r) => r.best["val/top1"] ?? r.best["val/loss"], parameters: (r) => r.parameters,
  step: (r) => r.step, seconds: (r) => r.wall_s, name: (r) => r.name,
};

function runsView() {
  const runs = chosen(), [key, down] = state.sort.split(":");
  if (COLUMNS[key]) {
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    const missing = (v) => v === undefined || v === null;
    runs.sort((a, b) => {
      const [x, y] = [COLUMNS[key](a), COLUMNS[key](b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return down ? order(y, x) : order(x, y);
    });
  }
  const picked = words(state.compare);
  const head = Object.keys(COLUMNS).map((c) => el("th", { scope: "col", "aria-sort": c === key ? (down ? "descending" : "ascending") : "none" },
    el("button", { type: "button", id: `sort-${c}`, onclick: () => set({ sort: key === c && !down ? `${c}:down` : c }) }, c, c === key ? (down ? " ↓" : " ↑") : "")));
  return [el("h2", {}, "Runs"),
    el("div", { class: "controls" }, choice("Runs of", "study", studyOptions()), filter(),
      el("span", { id: "count", role: "status" }, `${runs.length} of ${data.runs.length} runs`)),
    picked.length ? compare(picked) : el("p", { class: "note" }, "Tick two runs to see how their settings and results differ."),
    el("div", { class: "scroll" }, el("table", { id: "runs" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "compare"), head)),
      el("tbody", {}, runs.slice(0, 1000).map((run) => el("tr", {},
        el("td", {}, el("input", { type: "checkbox", id: `compare-${run.id}`, "aria-label": `compare ${run.name}`, checked: picked.includes(run.id),
          onchange: () => set({ compare: words(toggled(state.compare, run.id)).slice(-2).join(",") }) })),
        Object.entries(COLUMNS).map(([c, of]) => cell(run, c, of(run)))))))),
    runs.length > 1000 ? el("p", {}, "The first 1,000 are shown; filter for the others.") : null];
}

function cell(run, column, value) {
  if (column === "status") {
    return el("td", { title: run.why }, badge(run.status), run.step < run.max_steps ? ` ${Math.floor((100 * run.step) / run.max_steps)}%` : "",
      run.broken ? el("div", { class: "note" }, `${run.broken} broken lines left out`) : null);
  }
  if (column === "norm") return el("td", {}, swatch(run.norm), ` ${run.norm}`);
  if (column === "name") {
    const at = run.dir?.startsWith("/") ? `file://${encodeURI(run.dir).replace(/[#?]/g, encodeURIComponent)}` : null;
    return el("td", { class: "name" }, at ? el("a", { href: at }, run.name) : run.name,
      /^https?:\/\//.test(run.url ?? "") ? [" ", el("a", { href: run.url, rel: "noreferrer" }, "W&B")] : null,
      run.studies.length ? el("div", { class: "note" }, run.studies.join(", ")) : null);
  }
  return el("td", { class: typeof value === "number" ? "number" : null }, typeof value === "number" ? number(value) : value ?? "–");
}

function compare(ids) {
  const runs = ids.map((id) => byId.get(id)).filter(Boolean);
  if (runs.length < 2) return el("p", { class: "note" }, "Tick one more run.");
  const [a, b] = runs;
  const keys = [...new Set([...Object.keys(a.config), ...Object.keys(b.config)])].sort()
    .filter((k) => (a.whole && b.whole) || (k in a.config && k in b.config));
  const partly = a.whole && b.whole ? null
    : el("p", { class: "note" }, "Of a run whose directory is gone only the settings that were typed are known; the others are not compared.");
  const differing = keys.filter((k) => String(a.config[k] ?? "–") !== String(b.config[k] ?? "–"));
  const results = [...new Set([...Object.keys(a.final), ...Object.keys(b.final)])].sort();
  const row = (k, x, y) => el("tr", {}, el("th", { scope: "row" }, k), el("td", {}, x), el("td", {}, y));
  const text = (v) => (typeof v === "number" ? number(v) : String(v ?? "–"));
  return el("section", { class: "card", id: "compare" }, el("h3", {}, `${differing.length} settings differ`), partly,
    el("div", { class: "scroll" }, el("table", {}, el("thead", {}, row("", a.name, b.name)),
      el("tbody", {}, differing.map((k) => row(k, String(a.config[k] ?? "–"), String(b.config[k] ?? "–"))),
        row("status", a.status, b.status), results.map((k) => row(`final ${k}`, text(a.final[k]), text(b.final[k])))))),
    el("button", { type: "button", onclick: () => set({ compare: "" }) }, "close"));
}

// -- the page ---------------------------------------------------------------------------------------------------------

const VIEWS = { studies: ["Studies", studiesView], curves: ["Curves", curvesView], layers: ["Layers", layersView], runs: ["Runs", runsView] };

function render() {
  const view = Object.hasOwn(VIEWS, state.view) ? state.view : "studies";
  document.getElementById("tip").hidden = true;
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const focus = document.activeElement?.id, at = document.activeElement?.selectionStart;
  dispose();
  document.getElementById("views").replaceChildren(...Object.entries(VIEWS).map(([key, [name]]) => el("a", {
    id: `view-${key}`, href: `#view=${key}`, "aria-current": key === view ? "page" : null, onclick: (e) => { e.preventDefault(); set({ view: key }); } }, name)));
  const theme = document.getElementById("theme");
  theme.textContent = dark ? "light" : "dark";
  theme.setAttribute("aria-label", `Switch to ${theme.textContent} colours`);
  theme.onclick = () => set({ theme: dark ? "light" : "dark" });
  const main = document.getElementById("main");
  main.replaceChildren(...[VIEWS[view][1]()].flat(3).filter(Boolean));
  main.querySelectorAll(".plot").forEach((place) => place.start());
  const again = focus && document.getElementById(focus);
  if (again) {
    again.focus();
    if (at !== undefined && at !== null) again.setSelectionRange?.(at, at);
  }
  document.documentElement.dataset.drawn = String(Math.round(performance.now()));
  requestAnimationFrame(() => requestAnimationFrame(() => {  // the charts draw in the first frame after this
    document.documentElement.dataset.painted = String(Math.round(performance.now()));
  }));
}

document.getElementById("made").textContent = `${data.runs.length} runs, ${new Set(data.studies.map((s) => s.name)).size} studies`
  + (data.left_out ? `, ${data.left_out} damaged runs left out` : "") + `; made ${data.made}`;
read();
addEventListener("hashchange", () => { read(); render(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
render();

if (data.version && location.protocol.startsWith("http")) {  // scripts/report.py --watch: the address keeps the view
  setInterval(async () => {
    const now = await fetch("version.txt").then((r) => r.text()).catch(() => "");
    if (now && now.trim() !== data.version) location.reload();
  }, 2000);
}
