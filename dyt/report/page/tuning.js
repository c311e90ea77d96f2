"use strict";
// Tuning: the final metric against a searched key for every arm, and a heat map where two keys were swept.

const levelText = (v) => (Math.abs(v) >= 1e4 ? brief(v) : String(v));
const numeric = (v) => v !== undefined && v !== "" && Number.isFinite(Number(v));

// The keys with more than one numeric level among these runs, the searched one first.
function sweptKeys(runs, now, study) {
  const levels = {};
  for (const run of runs) for (const [key, v] of Object.entries(about(run, now).cell)) if (numeric(v)) (levels[key] ??= new Set()).add(String(v));
  const keys = Object.keys(levels).filter((k) => levels[k].size > 1), first = [study?.search, "lr", "optim.lr"];
  return keys.sort((a, b) => (first.indexOf(b) + 1 ? 1 : 0) - (first.indexOf(a) + 1 ? 1 : 0));
}

const sweeps = (s) => sweptKeys(data.runs.filter((r) => inScope(r, s)), s, studyOf(s)).length > 0;

// Where the searched key itself had several levels: what the view opens on.
const searched = (s) => {
  const key = studyOf(s)?.search;
  return Boolean(key) && new Set(data.runs.filter((r) => r.in[s]).map((r) => r.in[s].cell[key]).filter(numeric)).size > 2;
};

function tuningView() {
  const open = scopes().filter(searched), plain = open.filter((s) => data.runs.some((r) => r.in[s]?.baseline && r.norm === "layernorm"));  // LayerNorm is what most ask about
  const now = scope(sweeps, (s) => (plain.length ? plain.includes(s) : open.length ? open.includes(s) : sweeps(s))), study = studyOf(now), runs = chosen(now), keys = sweptKeys(runs, now, study);
  const metricOf = (own) => study?.metric ?? (own.find((r) => r.metric && r.status === "finished") ?? own.find((r) => r.metric))?.metric ?? "val/loss", metric = study ? study.metric : "final", key = keys.includes(state.key) ? state.key : keys[0];
  const head = [el("h2", {}, study ? `Tuning: ${study.name}` : "Tuning"), el("div", { class: "controls" }, studyChoice("Runs of", now),
    keys.length ? choice("Searched key", "key", keys.map((k) => [k, k]), key) : null, filter())];
  if (!key) return [...head, el("p", {}, "Nothing was searched here: every arm had one value of each key. Choose another study.")];
  const groups = Map.groupBy(runs.filter((r) => numeric(about(r, now).cell[key])), (r) => about(r, now).place);
  const tried = [...groups].filter(([, own]) => new Set(own.map((r) => about(r, now).cell[key])).size > 1), arms = armsOf(tried.flatMap(([, own]) => own), key, metricOf, now);
  const panels = tried.map(([place, own]) => tuned(place, own, key, metricOf(own), now, arms));
  return [...head, el("p", {}, `${study ? `Final ${metric}` : "What the runs are judged by, at the end,"} against ${key}: mean and 95% interval over seeds. A star marks the best of each arm. A best at either end of the range was not searched far enough.`),
    armLegend(arms), el("div", { class: "facets" }, panels.map((p) => p.chart)), bests(panels, key, metric), keys.length > 1 ? heats(groups, keys, key, metricOf(runs), now) : null];
}

// An arm: what all else but the key says.
function armOf(run, now, key) {
  const own = about(run, now), cell = Object.entries(own.cell).filter(([k]) => k !== key && k !== "norm" && numeric(own.cell[k]) && !["setting", "data"].includes(k));
  const base = own.arm !== own.variant ? own.arm : own.variant.split(", ").filter((w) => !w.startsWith(`${key} `)).join(", ");
  return base || cell.join(" ");
}

// The arms by name, each with its look and whether it is drawn: the baseline and the best seven at first.
function armsOf(runs, key, metricOf, now) {
  const turn = inTurn(), groups = [...Map.groupBy(runs, (r) => armOf(r, now, key))];
  const best = (own) => Math.min(...[...Map.groupBy(own, (r) => `${about(r, now).place} ${about(r, now).cell[key]}`).values()].map((same) => badness(same, metricOf(same))));
  const order = groups.map(([name, own]) => ({ name, id: slug(name), norm: own[0].norm, baseline: own.some((r) => about(r, now).baseline), best: best(own) }))
    .sort((a, b) => b.baseline - a.baseline || a.best - b.best);
  order.forEach((arm, i) => Object.assign(arm, look(arm.norm, turn(arm.norm)), { opening: i < MOST, shown: i < MOST ? !words(state.hide).includes(arm.id) : words(state.add).includes(arm.id) }));
  return new Map(order.map((arm) => [arm.name, arm]));
}

function armLegend(arms) {
  const all = [...arms.values()], rest = all.filter((a) => !a.opening && !a.shown), item = (a) => el("button", { type: "button", id: `arm-${a.id}`, "data-arm": a.id, "aria-pressed": String(!a.shown),
    onclick: () => set(a.opening ? { hide: toggled(state.hide, a.id) } : { add: toggled(state.add, a.id) }) }, swatch(a), shortened(a.name, 40));
  return el("div", { class: "legend", role: "group", "aria-label": "Arms; press to hide or show" }, all.filter((a) => !rest.includes(a)).map(item),
    rest.length ? button(`${rest.length} more`, () => set({ add: [...words(state.add), ...rest.map((a) => a.id)].join(",") }), { id: "more" }) : null);
}

function tuned(place, runs, key, metric, now, arms) {
  const lines = [], marks = [], rows = [], most = Math.max(...runs.map((r) => Number(about(r, now).cell[key])));
  for (const [name, own] of Map.groupBy(runs, (r) => armOf(r, now, key))) {
    const levels = [...Map.groupBy(own, (r) => Number(about(r, now).cell[key]))].sort((a, b) => a[0] - b[0]);
    const at = levels.map(([level, runs]) => ({ level, runs, ...ending(runs, metric) }));
    const fine = at.filter((p) => p.values.length), shape = arms.get(name);
    const means = fine.map((p) => [p.level, interval(p.values).mean]);
    const best = fine.length ? fine[bestOf(fine.map((p) => p.runs), metric)] : null;
    const edge = best && levels.length > 1 && (best === at[0] || best === at.at(-1)) ? (best === at[0] ? "lowest" : "highest") : "";
    if (shape.shown) lines.push({ ...shape, name, label: name, star: true, short: levels.at(-1)[0] < most, width: shape.baseline ? 2.8 : 1.8, points: means, bars: fine.filter((p) => p.values.length > 1).map((p) => { const { mean, half } = interval(p.values); return [p.level, mean - half, mean + half]; }),
      about: ([x, y]) => [name, `${key} ${x}: ${metric} ${number(y)}`] });
    if (best && shape.shown) marks.push({ x: best.level, y: interval(best.values).mean, symbol: STAR, size: 16, colour: shape.colour });
    for (const p of shape.shown ? at : []) if (p.lost) marks.push({ x: p.level, y: higher(metric) ? -Infinity : Infinity });
    rows.push({ name, shape, best, edge, levels, gone: counted(at, "lost"), open: counted(at, "open") });
  }
  const all = lines.flatMap((l) => l.points.map((p) => p[1])).sort((a, b) => a - b);
  const [low, high, middle] = [all[0], all.at(-1), all[Math.floor(all.length / 2)]], cut = lines.length > 2 && !higher(metric) && high - middle > 4 * (middle - low) ? middle + 2.5 * (middle - low) : undefined;
  const pad = 0.08 * ((cut ?? high ?? 1) - (low ?? 0) || 1);
  const axes = { title: place, x: key, y: metric, logx: lines.some((l) => l.points.some((p) => p[0] > 0)) && lines.every((l) => l.points.every((p) => p[0] > 0)), ends: true, cross: "tuning",
    min: Number((low - pad).toPrecision(4)), max: Number((cut ?? high + pad).toPrecision(4)), cutHigh: cut !== undefined };
  const levels = lines.flatMap((l) => l.points.map((p) => p[0]));
  if (axes.logx) Object.assign(axes, { xmin: Math.min(...levels) / 1.3, xmax: Math.max(...levels) * 1.3, xticks: [...new Set(levels)].sort((a, b) => a - b) });
  return { place, rows, chart: chart(lines, marks, axes) };
}
const counted = (levels, what) => levels.filter((p) => p[what]).map((p) => `${p[what]} of ${p.runs.length} at ${levelText(p.level)}`);
const STAR = "path://M10,0L13,7L20,7.5L14.5,12L16.5,20L10,15.5L3.5,20L5.5,12L0,7.5L7,7Z";

function bests(panels, key, metric) {
  return scroll(el("table", { id: "bests" }, el("caption", {}, `The best ${key} of each arm, of runs that finished; runs that diverged, failed or ended no better than chance count as worse than any other`),
    el("thead", {}, el("tr", {}, ["arm", "tried on", `best ${key}`, metric, "searched", "lost"].map((t, i) => el("th", { scope: "col", class: i === 2 || i === 3 ? "number" : null }, t)))),
    el("tbody", {}, panels.flatMap((p) => p.rows.map((r) => el("tr", {}, el("td", {}, swatch(r.shape), " ", shortened(r.name)), el("td", {}, shortened(p.place)),
      el("td", { class: "number" }, r.best ? levelText(r.best.level) : "–"),
      el("td", { class: "number" }, r.best ? number(interval(r.best.values).mean) : "–"), el("td", {}, r.levels.map(([l]) => levelText(l)).join(", "), r.edge ? el("span", { class: "badge inconclusive" }, ` best is the ${r.edge} searched`) : null),
      el("td", {}, r.gone.length ? el("span", { class: "badge diverged" }, r.gone.join("; ")) : r.open.length ? "" : "–", r.open.length ? note(`not ended: ${r.open.join("; ")}`) : null)))))));
}

// A heat map over two swept keys, of the runs of one norm.
function heats(groups, keys, x, metric, now) {
  const within = (k) => [...groups.values()].some((own) => new Set(own.map((r) => about(r, now).cell[k]).filter(numeric)).size > 1);
  const y = keys.find((k) => k !== x && within(k)), rest = keys.filter((k) => k !== x && k !== y && within(k));
  if (!y) return null;
  const places = [...groups].flatMap(([place, runs]) => [...Map.groupBy(runs.filter((r) => numeric(about(r, now).cell[y])), (r) => `${about(r, now).variant.split(", ")[0]}, ${place}`)])
    .filter(([, own]) => [x, y].every((k) => new Set(own.map((r) => about(r, now).cell[k])).size > 1));
  if (!places.length) return null;
  const sorted = (own, k) => [...new Set(own.map((r) => String(about(r, now).cell[k])))].sort((a, b) => a - b);
  return el("div", {}, el("h2", {}, `${x} and ${y} together`), rest.length ? note(`Mean over ${rest.join(", ")} too.`) : null, el("div", { class: "facets" }, places.map(([name, own]) => {
    const [xs, ys] = [sorted(own, x), sorted(own, y)];
    const cells = [...Map.groupBy(own, (r) => `${xs.indexOf(String(about(r, now).cell[x]))},${ys.indexOf(String(about(r, now).cell[y]))}`)].map(([at, runs]) => {
      const { mean, lost } = ending(runs, metric);
      return { value: [...at.split(",").map(Number), mean ?? NaN], text: [mean === undefined ? "" : number(mean), lost ? `${lost} of ${runs.length} lost` : ""].filter(Boolean).join("\n") };
    });
    return heat(name, `final ${metric} by ${x} and ${y}`, xs, ys, cells, { x, y, flip: !higher(metric) });
  })));
}

function heat(title, about, xs, ys, cells, { x, y, flip = false, height = "" }) {
  const values = cells.map((c) => c.value[2]).filter(Number.isFinite), [low, high] = [Math.min(...values), Math.max(...values)];
  const scale = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"], colours = flip ? scale.slice().reverse() : scale;
  const most = 24, axis = (name, list) => ({ type: "category", data: list, name, nameLocation: "middle", nameGap: 30, axisLabel: { color: css("--soft"), hideOverlap: true, interval: list.length > most ? Math.ceil(list.length / most) - 1 : undefined, width: 120, overflow: "truncate" }, nameTextStyle: { color: css("--soft") } });
  return picture(title, `${title}: ${about}`, (still) => ({ animation: false, backgroundColor: still ? css("--back") : "transparent", title: still ? { text: still, textStyle: { fontSize: 13, color: css("--text") } } : undefined,
    textStyle: { color: css("--text") }, grid: { left: 130, right: 76, top: still ? 40 : 14, bottom: 44 }, xAxis: axis(x, xs), yAxis: { ...axis("", ys), nameGap: 80 },
    visualMap: { min: low, max: high === low ? low + 1e-9 : high, right: 0, top: "middle", calculable: false, itemHeight: 140, precision: 2, text: [brief(high), brief(low)], textStyle: { color: css("--text") }, inRange: { color: colours } },
    series: [{ type: "heatmap", silent: true, data: cells.map((c) => ({ value: c.value.map((v) => (Number.isNaN(v) ? "-" : v)),
      label: { show: Boolean(c.text), formatter: c.text, color: "#111", backgroundColor: "#ffffffcc", padding: [3, 5], fontSize: 12 } })) }] }), { height });
}
