"use strict";
// The four views: studies and their verdicts, curves, layers, and the table of runs.

const studyOptions = () => [["", `all ${data.runs.length} runs`],
  ...(data.runs.some((r) => !r.studies.length) ? [[OWN, "runs of no study"]] : []),
  ...[...new Set(data.runs.flatMap((r) => r.studies))].sort().map((s) => [s, s])];

// -- studies ----------------------------------------------------------------------------------------------------------

function studiesView() {
  const counts = {};
  for (const test of data.studies.flatMap((s) => s.tests)) counts[test.verdict] = (counts[test.verdict] ?? 0) + 1;
  const told = Object.entries(counts).map(([verdict, n]) => `${n} ${verdict}`).join(", ");
  return [
    el("h2", {}, "Every claim, the papers' numbers, and ours"),
    el("p", {}, told ? `${told}. At small scale a toy cannot contradict ImageNet: agrees and disagrees are about the `
      + "direction; reproduced and contradicted are kept for the papers' own recipes." : "No study was run."),
    data.studies.filter((s) => s.tests.length).map((study) => el("section", { class: "card", id: `study-${study.name}-${study.scale}` },
      el("h3", {}, `${study.name} (${study.scale}): ${study.title}`),
      el("p", { class: "note" }, el("code", {}, study.command), study.cost ? `  cost: ${study.cost}` : "",
        study.own ? "  This repository's own hypothesis, in no paper." : ""),
      el("div", { class: "scroll" }, el("table", {},
        el("thead", {}, el("tr", {}, ["claim", "the papers", "ours, 95% interval", "seeds", "verdict"]
          .map((t) => el("th", { scope: "col" }, t)))),
        el("tbody", {}, study.tests.map((t) => el("tr", {}, el("td", { class: "name" }, t.says),
          el("td", {}, t.papers_say ?? "–"), el("td", {}, t.we_found ?? "–"), el("td", { class: "number" }, String(t.seeds ?? "–")),
          el("td", {}, badge(t.verdict))))))),
      study.figure ? el("details", { open: data.studies.length < 4 }, el("summary", {}, "figure"),
        el("img", { class: "figure", src: study.figure, loading: "lazy", alt: `Figure of ${study.name}: ${study.title}` }))
        : null,
      el("p", {}, el("a", { href: `#view=curves&study=${encodeURIComponent(`${study.name}/${study.scale}`)}` }, "its curves")))),
    el("h2", {}, "Not run"),
    el("ul", {}, data.studies.filter((s) => !s.tests.length).map((s) => el("li", {}, `${s.name} (${s.scale}): `,
      el("code", {}, s.command)))),
  ];
}

// -- curves -----------------------------------------------------------------------------------------------------------

const UNITS = { step: "step", samples: "samples", wall: "wall time (s)" };

function xOf(run) {
  if (state.x === "samples") return (step) => step * (run.per_step ?? 1);
  if (state.x !== "wall") return (step) => step;
  const [known, seconds] = data.curves[run.id]?.time_s ?? [[run.step], [run.wall_s ?? run.step]];
  const [steps, times] = [[0, ...known], [0, ...seconds]];
  return (step) => {  // between the times that are known
    const next = steps.findIndex((s) => s >= step);
    const i = next < 0 ? steps.length - 1 : Math.max(1, next);
    const share = (step - steps[i - 1]) / (steps[i] - steps[i - 1] || 1);
    return Math.max(0, times[i - 1] + share * (times[i] - times[i - 1]));
  };
}

function points(run, metric) {
  const [steps, values] = data.curves[run.id]?.[metric] ?? [[], []];
  const x = xOf(run), weight = Number(state.smooth), out = [];
  let mean = 0, debias = 0;
  steps.forEach((step, i) => {
    mean = weight * mean + (1 - weight) * values[i];
    debias = weight * debias + (1 - weight);
    const y = mean / debias;
    if ((state.log === "" || y > 0) && (state.logx === "" || x(step) > 0)) out.push([x(step), y]);
  });
  return out;
}

// Mean over seeds with its 95% interval, as far as all of them go, on the steps of the seed with the most points.
function band(members) {
  const grid = members.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points.map((p) => p[0]);
  const first = Math.max(...members.map((m) => m.points[0][0])), end = Math.min(...members.map((m) => m.points.at(-1)[0]));
  const line = [], area = [], place = members.map(() => 0);
  for (const x of [...new Set([...grid, end])].sort((a, b) => a - b)) {
    if (x < first || x > end) continue;
    const values = members.map(({ points: p }, i) => {
      while (place[i] < p.length - 1 && p[place[i] + 1][0] <= x) place[i]++;
      const a = p[place[i]], b = p[place[i] + 1];
      return b && x > a[0] ? a[1] + ((x - a[0]) / (b[0] - a[0])) * (b[1] - a[1]) : a[1];
    });
    const { mean, half, n } = interval(values);
    line.push([x, mean]);
    const low = state.log ? Math.max(mean - half, mean * 1e-6) : mean - half;  // below a log axis's end is below
    if (n > 1) area.push([x, low, mean + half]);
  }
  return { line, area, end };
}

function metrics(runs) {
  const found = new Set();
  for (const run of runs) for (const m of Object.keys(data.curves[run.id] ?? {})) if (!m.startsWith("probe/") && m !== "time_s") found.add(m);
  return ["val/loss", "val/top1", "train/loss"].filter((m) => found.delete(m)).concat([...found].sort());
}

function curvesView() {
  const runs = chosen(), hidden = new Set(words(state.hide)), found = metrics(runs);
  const metric = found.includes(state.metric) ? state.metric : found[0];
  const shown = runs.filter((r) => data.curves[r.id]?.[metric]);
  const norms = [...new Set(shown.map((r) => r.norm))].sort();
  const facets = new Map();
  for (const run of shown) {
    if (hidden.has(run.norm)) continue;
    const key = state.facet ? `${run.model} · ${run.data}` : "all models and data";
    if (!facets.has(key)) facets.set(key, []);
    facets.get(key).push(run);
  }
  const made = [...facets].map(([title, members]) => facet(title, members, metric));
  const controls = el("div", { class: "controls" },
    choice("Runs of", "study", studyOptions()), filter(),
    el("label", {}, "Metric", el("select", { id: "choose-metric", onchange: (e) => set({ metric: e.target.value }) },
      found.map((m) => el("option", { value: m, selected: m === metric }, m)))),
    choice("x-axis", "x", Object.entries(UNITS)),
    choice("Seeds", "seeds", [["band", "mean and 95% interval"], ["each", "one by one"]]),
    el("label", {}, `Smoothing ${state.smooth}`, el("input", { type: "range", id: "smooth", min: 0, max: 0.98, step: 0.02,
      value: state.smooth, onchange: (e) => set({ smooth: e.target.value }) })),
    check("log y", "log"), check("log x", "logx"), check("facet by model and data", "facet"),
    el("button", { type: "button", id: "csv", onclick: () => table(shown.filter((r) => !hidden.has(r.norm)), metric) }, "CSV"),
    el("button", { type: "button", id: "link", onclick: (e) => {
      navigator.clipboard?.writeText(location.href).catch(() => {});
      e.target.textContent = "link copied";
    } }, "copy link"));
  const legend = el("div", { class: "legend", role: "group", "aria-label": "Norms; press to hide" }, norms.map((norm) =>
    el("button", { type: "button", id: `norm-${norm}`, "data-norm": norm, "aria-pressed": String(hidden.has(norm)),
      onclick: () => set({ hide: toggled(state.hide, norm) }) },
    swatch(norm), norm)));
  return [el("h2", {}, "Curves"), controls, legend,
    shown.length ? el("div", { class: "facets" }, made.map((m) => m.chart)) : el("p", {}, "No run fits; clear the filter."),
    made.length ? summary(made.flatMap((m) => m.groups), metric) : null,
    el("p", { class: "note" }, `${shown.length} of ${data.runs.length} runs; at most ${data.thinned_to} points a curve, `
      + "lowest and highest of each stretch kept. A cross marks where a run diverged. Shift and wheel zooms.")];
}

function facet(title, runs, metric) {
  const groups = new Map();
  for (const run of runs) {
    const key = run.key;  // equal settings but for the seed
    if (!groups.has(key)) groups.set(key, { norm: run.norm, label: run.group, title: `${run.model} · ${run.data}`, members: [] });
    groups.get(key).members.push({ run, points: points(run, metric) });
  }
  for (const [key, group] of groups) if (!group.members.some((m) => m.points.length)) groups.delete(key);
  const lines = [], used = {};
  for (const group of groups.values()) {
    const dash = group.dash = DASHES[(used[group.norm] = (used[group.norm] ?? -1) + 1) % DASHES.length];
    const look = { colour: colour(group.norm), dash, name: group.norm };
    const members = group.members.filter((m) => m.points.length);
    if (state.seeds === "band") {
      const { line, area, end } = band(members);
      for (const m of members) {  // beyond the mean each goes on alone
        const rest = m.points.filter(([x]) => x >= end);
        if (rest.length > 1) lines.push({ ...look, points: rest, width: 1, about: ([x, y]) => [m.run.name,
          `${m.run.norm}, seed ${m.run.seed} alone: another seed ended`, `${UNITS[state.x]} ${number(x)}: ${metric} ${number(y)}`] });
      }
      lines.push({ ...look, points: line, band: area, about: ([x, y]) => [`${group.norm}: ${group.label}`,
        `mean of ${members.length} seeds (${members.map((m) => m.run.seed).join(", ")})`,
        `${UNITS[state.x]} ${number(x)}: ${metric} ${number(y)}`] });
    } else {
      for (const m of members) {
        lines.push({ ...look, points: m.points, width: 1.2, about: ([x, y]) => [m.run.name,
          `${m.run.norm}, seed ${m.run.seed}, ${m.run.status}`, `${UNITS[state.x]} ${number(x)}: ${metric} ${number(y)}`] });
      }
    }
  }
  const marks = runs.filter((r) => r.status === "diverged").map((r) => points(r, metric).at(-1)).filter(Boolean)
    .map(([x, y]) => ({ x, y }));
  const units = [...new Set(runs.map((r) => r.unit))];
  const x = state.x === "samples" ? units.join(" or ") : UNITS[state.x];
  const axes = { title, x, y: metric, log: state.log !== "", logx: state.logx !== "", max: range(lines) };
  return { chart: chart(lines, marks, axes), groups: [...groups.values()] };
}

// Where curves start far above all else, most of the height goes to what is told apart later.
function range(lines) {
  const all = lines.flatMap((l) => l.points.map((p) => p[1])).sort((a, b) => a - b);
  if (all.length < 20 || state.log) return undefined;
  const high = all[Math.floor(all.length * 0.98)], low = all[0];
  return all.at(-1) > high + 1.5 * (high - low) ? Number((high + 0.1 * (high - low)).toPrecision(3)) : undefined;
}

function summary(groups, metric) {
  const head = ["norm", "setting", "model and data", "finished", "final", "best", "not finished"];
  const better = /top\d/.test(metric) ? Math.max : Math.min, most = 300;
  return el("div", { class: "scroll" }, el("table", { id: "summary" },
    el("caption", {}, `${metric} of finished runs: mean over seeds ± half of the 95% interval`
      + (groups.length > most ? ` (the first ${most} of ${groups.length} settings)` : "")),
    el("thead", {}, el("tr", {}, head.map((t) => el("th", { scope: "col" }, t)))),
    el("tbody", {}, groups.slice(0, most).map(({ norm, dash, label, title, members }) => {
      const done = members.filter((m) => m.run.status === "finished"), others = {};
      for (const m of members) if (m.run.status !== "finished") others[m.run.status] = (others[m.run.status] ?? 0) + 1;
      const raw = done.map((m) => data.curves[m.run.id][metric][1]);
      const cell = (values) => {
        if (!values.length) return "–";
        const { mean, half, n } = interval(values);
        return n > 1 ? `${number(mean)} ± ${number(half)}` : number(mean);
      };
      return el("tr", {}, el("td", {}, swatch(norm, dash), ` ${norm}`),
        el("td", {}, label), el("td", {}, title), el("td", { class: "number" }, String(done.length)),
        el("td", { class: "number" }, cell(raw.map((v) => v.at(-1)))),
        el("td", { class: "number" }, cell(raw.map((v) => v.reduce((a, b) => better(a, b))))),
        el("td", {}, Object.entries(others).map(([status, n]) => `${n} ${status}`).join(", ") || "–"));
    }))));
}

function table(runs, metric) {
  const rows = [["run", "norm", "model", "data", "seed", "status", "step", state.x === "step" ? "x" : state.x, metric]];
  for (const run of runs) {
    const [steps, values] = data.curves[run.id][metric], x = xOf(run);
    steps.forEach((s, i) => rows.push([run.name, run.norm, run.model, run.data, run.seed, run.status, s, x(s), values[i]]));
  }
  download(`${metric.replace("/", "_")}.csv`, csv(rows), "text/csv");
}
