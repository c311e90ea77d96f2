"use strict";
// Curves by variant: a panel for each place where variants were tried.

const PANELS = 4;  // that the view opens with

function metrics(runs) {
  const found = new Set();
  for (const run of runs) for (const m of Object.keys(data.curves[run.id] ?? {})) if (!m.startsWith("probe/") && m !== "time_s") found.add(m);
  return ["val/loss", "val/top1", "train/loss"].filter((m) => found.delete(m)).concat([...found].sort());
}

function curvesView() {
  const now = scope((s) => s === OWN || data.runs.some((r) => r.studies.includes(s) && data.curves[r.id]));
  const study = studyOf(now), runs = chosen(now), found = metrics(runs);
  const curved = (m) => runs.some((r) => data.curves[r.id]?.[m]?.[0].length > 1);  // a metric that is measured once, at the end, is no curve
  const metric = found.includes(state.metric) ? state.metric : study && found.includes(study.metric) && curved(study.metric) ? study.metric : found.find(curved) ?? found[0];
  const shown = runs.filter((r) => data.curves[r.id]?.[metric]);
  const variants = variantsOf(shown, now), size = {}, silent = state.q ? [] : runs.filter((r) => !data.curves[r.id]?.[metric]);
  for (const v of variants) for (const [place, own] of v.places) size[place] = (size[place] ?? 0) + own.length;
  const places = Object.keys(size).sort((a, b) => size[b] - size[a]);  // the fullest first
  const hidden = new Set(words(state.hide)), added = new Set(words(state.add));
  const first = new Map(places.map((place) => [place, picks(variants, place, study?.metric ?? metric)]));
  const opening = [...new Set([...first.values()].flat())];
  giveLooks(variants, opening);
  const open = (v, place) => !hidden.has(v.id) && (first.get(place).includes(v) || added.has(v.id)) && v.places.has(place);
  const used = state.panels ? places : places.slice(0, PANELS);
  const panels = used.map((place) => panel(place, [...first.get(place), ...variants.filter((v) => !first.get(place).includes(v))].filter((v) => open(v, place)), metric, study));
  const drawn = shown.filter((r) => used.includes(about(r, now).place) && open(variants.find((v) => v.name === about(r, now).variant), about(r, now).place));
  const controls = el("div", { class: "controls" }, studyChoice("Runs of", now), filter(),
    choice("Metric", "metric", found.map((m) => [m, m]), metric), options(choice("x-axis", "x", Object.entries(UNITS)),
    choice("Seeds", "seeds", [["auto", "mean, and interval where it is legible"], ["band", "mean and 95% interval"], ["multiples", "a small chart each"], ["each", "one by one"]]),
    el("label", {}, `Smoothing ${state.smooth}`, el("input", { type: "range", id: "smooth", min: 0, max: 0.98, step: 0.02, value: state.smooth, onchange: (e) => set({ smooth: e.target.value }) })),
    check("log y", "log"), check("log x", "logx"), study?.papers.length ? check("make room for the papers' numbers", "papers") : null,
    button("CSV", () => table(drawn, metric, now), { id: "csv" }),
    button("copy link", (e) => { address({ study: now, metric }); navigator.clipboard?.writeText(location.href).catch(() => {}); e.target.textContent = "link copied"; }, { id: "link" })));
  return [el("h2", {}, study ? `Curves: ${study.name}` : "Curves"), study ? note(study.title) : null, live(), controls, legend(variants, opening, metric),
    shown.length ? el("div", { class: "facets" }, panels.map((p) => p.chart)) : el("p", {}, "No run fits; clear the filter."),
    silent.length ? note(`${silent.length} of these runs have no ${metric}. `, silent.some(gone) ? el("a", { href: link({ view: "runs", study: now, q: LOST }) }, `${silent.filter(gone).length} diverged or failed before`) : "") : null,
    panels.flatMap((p) => p.multiples.length ? [el("h3", {}, `${p.place}: each with its 95% interval, beside the mean of the baseline`), el("div", { class: "multiples" }, p.multiples)] : []),
    places.length > PANELS ? button(state.panels ? `only the first ${PANELS} panels` : `all ${places.length} panels`, () => set({ panels: state.panels ? "" : "all" }), { id: "panels" }) : null,
    pinned(variants, used, metric), panels.length ? summary(panels, metric, now) : null,
    note(`${drawn.length} of ${data.runs.length} runs are drawn; at most ${data.thinned_to} points a curve, lowest and highest of each stretch kept. A cross marks where a run diverged. `
      + "Arrow keys move the crosshair of a chart that has the focus; shift and wheel zooms.")];
}

function legend(variants, opening, metric) {
  const hidden = new Set(words(state.hide)), added = new Set(words(state.add)), pins = words(state.pin);
  const front = [...opening, ...variants.filter((v) => !opening.includes(v) && added.has(v.id))].sort((a, b) => b.baseline - a.baseline), rest = variants.filter((v) => !front.includes(v));
  const item = (v) => {
    const own = opening.includes(v), off = own ? hidden.has(v.id) : !added.has(v.id), runs = [...v.places.values()].flat();
    const lost = runs.filter((r) => r.status === "diverged").length;
    return el("span", { class: "item" }, el("button", { type: "button", id: `norm-${v.id}`, "data-norm": v.norm, "data-variant": v.id, "aria-pressed": String(off),
      onclick: () => set(own ? { hide: toggled(state.hide, v.id) } : { add: toggled(state.add, v.id) }) }, swatch(v), shortened(v.name, 40),
    lost ? el("span", { class: "badge diverged" }, ` ${lost} of ${runs.length} diverged`) : null),
    el("button", { type: "button", id: `pin-${v.id}`, class: "pin", "aria-pressed": String(pins.includes(v.id)), "aria-label": `pin ${v.name} for comparison`, title: "pin two to see their difference",
      onclick: () => set({ pin: words(toggled(state.pin, v.id)).slice(-2).join(",") }) }, pins.includes(v.id) ? "pinned" : "pin"));
  };
  return el("div", { class: "legend", role: "group", "aria-label": "Variants; press to hide or show" }, front.map(item),
    rest.length ? button(state.more ? "fewer" : `${rest.length} more`, () => set({ more: state.more ? "" : "1" }), { id: "more", "aria-expanded": String(Boolean(state.more)) }) : null,
    state.more ? rest.slice(0, 200).map(item) : null);
}

// The lines of one variant in a place: its mean with a band, or each seed.
function linesOf(variant, place, metric, unit) {
  const own = variant.places.get(place), look = { colour: variant.colour, dash: variant.dash, shape: variant.shape, name: variant.name, width: variant.baseline ? 2.8 : 1.8 };
  const members = own.map((run) => ({ run, points: points(run, metric) })).filter((m) => m.points.length);
  const value = ([x, y]) => `${unit} ${number(x)}: ${metric} ${number(y)}`, lines = [];
  if (!members.length) return lines;
  const gone = (run) => run.status === "diverged";
  if (state.seeds === "each") {
    return members.map((m) => ({ ...look, label: `${variant.name} s${m.run.seed}`, colour: gone(m.run) ? css("--bad") : look.colour, gone: gone(m.run), points: m.points, width: 1.2,
      raw: Number(state.smooth) ? points(m.run, metric, 0) : null, about: (p) => [m.run.name, `${m.run.norm}, seed ${m.run.seed}, ${m.run.status}`, value(p)] }));
  }
  const { line, area, end } = band(members);
  for (const m of members) {  // beyond the mean each goes on alone
    const rest = m.points.filter(([x]) => x >= end);
    if (rest.length > 1) lines.push({ ...look, points: rest, faint: true, gone: gone(m.run), about: (p) => [m.run.name, `${variant.name}, seed ${m.run.seed} alone: another seed ended`, value(p)] });
  }
  const whole = Number(state.smooth) ? band(members.map((m) => ({ points: points(m.run, metric, 0) }))).line : null;
  lines.push({ ...look, label: variant.name, points: line, raw: whole, band: area, gone: members.every((m) => gone(m.run)),
    about: (p) => [variant.name, `mean of ${members.length} seeds (${members.map((m) => m.run.seed).join(", ")})`, value(p)] });
  return lines;
}

function panel(place, variants, metric, study) {
  const runs = variants.flatMap((v) => v.places.get(place));
  const unit = state.x === "samples" ? [...new Set(runs.map((r) => r.unit ?? "samples"))].join(" or ") || "samples" : UNITS[state.x];
  let lines = variants.flatMap((v) => linesOf(v, place, metric, unit));
  const range = fitted(lines), refs = referencesOf(study, metric, variants);
  if (state.papers && refs.length) {
    if (range.max !== undefined) range.max = Math.max(range.max, ...refs.map((r) => r.y * 1.02));
    else range.max = Math.max(...refs.map((r) => r.y * 1.02), extent(lines)[1]);
    if (range.min !== undefined) range.min = Math.min(range.min, ...refs.map((r) => r.y * 0.98));
  }
  const crowded = state.seeds === "multiples" || (state.seeds === "auto" && covered(lines, range)), multiples = [];
  const axes = { title: place, x: unit, y: metric, log: state.log !== "", logx: state.logx !== "", ...range, ends: true, cross: state.x };
  if (crowded) {
    const base = lines.find((l) => l.label && l.name === variants.find((v) => v.baseline)?.name);
    for (const l of lines.filter((l) => l.label && l !== base)) {
      const few = base ? [{ ...base, band: null, dash: "dashed" }, l] : [l];
      multiples.push(chart(few, [], { ...axes, title: l.name, small: true, ends: false }));
    }
    lines = lines.map((l) => ({ ...l, band: null }));
  }
  const [least, most] = extent(lines), [low, high] = [axes.min ?? least, axes.max ?? most];
  const drawn = refs.filter((r) => r.y >= low && r.y <= high), out = refs.filter((r) => !drawn.includes(r));
  axes.refs = besides(drawn, (high - low) / 12);
  const marks = runs.filter((r) => r.status === "diverged").map((r) => points(r, metric).at(-1)).filter(Boolean).map(([x, y]) => ({ x, y }));
  const made = chart(lines, marks, axes);
  if (out.length) made.append(note(`The papers' numbers are outside this range: ${inWords(out)}.`));
  return { place, chart: made, multiples, variants };
}

// The papers' numbers for the norms that are drawn, in the study's metric.
function referencesOf(study, metric, variants) {
  if (!study || metric !== study.metric) return [];
  const norms = new Set(variants.map((v) => v.norm));
  return study.papers.filter((p) => norms.has(p.arm)).slice(0, 6).map((p) => ({ y: p.value, name: p.name, model: p.model })).sort((a, b) => b.y - a.y);
}

const inWords = (refs) => [...Map.groupBy(refs, (r) => r.model)].map(([model, own]) => `${own.map((r) => `${r.name} ${r.y}`).join(", ")} (${model})`).join("; ");

// References that lie closer than `near` share one text, at the highest of them.
function besides(refs, near) {
  const groups = [];
  for (const ref of refs) {
    const last = groups.at(-1);
    if (last && last[0].y - ref.y < near) last.push(ref); else groups.push([ref]);
  }
  return groups.flatMap((own) => own.map((r, i) => ({ y: r.y, text: i ? "" : `papers: ${inWords(own)}` })));
}

function summary(panels, metric, now) {
  const head = ["variant", "tried on", "finished", "final", "best", "steps to target", "not finished"], most = 300;
  const better = higher(metric) ? Math.max : Math.min, rows = panels.flatMap((p) => p.variants.map((v) => ({ v, place: p.place, runs: v.places.get(p.place) })));
  const base = (place) => rows.find((r) => r.v.baseline && r.place === place), end = (place) => (base(place) ? ending(base(place).runs, metric).mean : undefined);
  const aims = new Map(panels.map((p) => [p.place, state.target !== "" ? Number(state.target) : end(p.place)])), same = [...new Set([...aims.values()])];
  const text = (values) => {
    if (!values.length) return "–";
    const { mean, half, n } = interval(values);
    return n > 1 ? `${number(mean)} ± ${number(half)}` : number(mean);
  };
  return el("div", {}, el("div", { class: "controls" }, el("label", {}, `Target for steps, ${metric}`, el("input", { id: "target", type: "number", step: "any", value: state.target !== "" ? state.target : same.length === 1 && same[0] !== undefined ? Number(same[0].toPrecision(5)) : "", placeholder: "the baseline's end",
    onchange: (e) => set({ target: e.target.value }) }))), scroll(el("table", { id: "summary" },
    el("caption", {}, `${metric} of finished runs: mean over seeds ± half of the 95% interval; the target is ${state.target ? "yours" : "where the baseline of the same place ends"}`
      + (rows.length > most ? ` (the first ${most} of ${rows.length} settings)` : "")),
    el("thead", {}, el("tr", {}, head.map((t, i) => el("th", { scope: "col", class: i > 1 && i < 6 ? "number" : null }, t)))),
    el("tbody", {}, rows.slice(0, most).map(({ v, place, runs }) => {
      const aim = aims.get(place);
      const done = runs.filter((r) => r.status === "finished"), others = {};
      for (const r of runs) if (r.status !== "finished") others[r.status] = (others[r.status] ?? 0) + 1;
      const values = done.map((r) => data.curves[r.id][metric][1]), reached = aim === undefined ? [] : done.map((r) => stepsTo(raw(r, metric), aim, higher(metric))).filter(Boolean);
      return el("tr", {}, el("td", {}, swatch(v), " ", shortened(v.name)), el("td", {}, shortened(place)), el("td", { class: "number" }, String(done.length)),
        el("td", { class: "number" }, text(values.map((x) => x.at(-1)))), el("td", { class: "number" }, text(values.map((x) => x.reduce((a, b) => better(a, b))))),
        el("td", { class: "number" }, !done.length || aim === undefined ? "–" : reached.length ? `${number(Math.round(interval(reached.map((r) => r[0])).mean))}${reached.length < done.length ? ` (${reached.length} of ${done.length})` : ""}` : "not reached"),
        el("td", {}, Object.entries(others).map(([status, n]) => el("span", { class: `badge ${status.split(" ")[0]}` }, `${n} ${status} `)), Object.keys(others).length ? "" : "–"));
    })))));
}

function table(runs, metric, now) {
  const rows = [["run", "variant", "norm", "model", "data", "seed", "status", "step", state.x === "step" ? "x" : state.x, metric]];
  for (const run of runs) {
    const [steps, values] = data.curves[run.id][metric], x = xOf(run);
    steps.forEach((s, i) => rows.push([run.name, about(run, now).variant, run.norm, run.model, run.data, run.seed, run.status, s, x(s), values[i]]));
  }
  download(`${metric.replace("/", "_")}.csv`, csv(rows), "text/csv");
}
