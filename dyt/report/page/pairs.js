"use strict";
// Two pinned variants: their difference, paired by seed, with its interval.

// {mean, low, high, n, lost, won} of the final values: a minus b, seed by seed (dyt/studies/statistics.py: paired).
function difference(a, b, metric) {
  const ends = pairsOf(a, b).filter((pair) => pair.every((r) => r.status === "finished" || gone(r))).map((pair) => pair.map((r) => finalOf(r, metric) ?? null));
  const both = ends.filter(([x, y]) => x !== null && y !== null).map(([x, y]) => x - y);
  const lost = ends.filter(([x, y]) => x === null && y !== null).length, won = ends.filter(([x, y]) => x !== null && y === null).length;
  if (!both.length) return { n: 0, lost, won };
  const { mean, half, n } = interval(both);
  return { mean, low: n > 1 ? mean - half : null, high: n > 1 ? mean + half : null, n, lost, won };
}

function pinned(variants, places, metric) {
  const ids = words(state.pin);
  if (!ids.length) return null;
  const [a, b] = ids.map((id) => variants.find((v) => v.id === id));
  if (ids.length < 2 || !a || !b) return el("section", { class: "card", id: "pair" }, el("h3", {}, "Pin one more variant to see the difference"));
  const shared = places.filter((p) => a.places.has(p) && b.places.has(p));
  return el("section", { class: "card", id: "pair" }, el("h3", {}, a.name, " minus ", b.name, ", paired by seed"),
    shared.length ? null : el("p", {}, "They were never tried on the same model and data."),
    el("div", { class: "facets" }, shared.map((place) => pair(a, b, place, metric))), button("unpin", () => set({ pin: "" })));
}

function pair(a, b, place, metric) {
  const [ours, theirs] = [a.places.get(place), b.places.get(place)], found = difference(ours, theirs, metric);
  const sign = (v) => `${v >= 0 ? "+" : "−"}${Math.abs(v).toFixed(4)}`;
  const told = found.n ? `${sign(found.mean)}${found.low === null ? "" : ` [${sign(found.low)}, ${sign(found.high)}]`} ${metric} at the end, ${found.n} pairs of seeds` : "No pair of seeds in which both finished";
  const lost = [found.lost ? `${a.name} alone was lost in ${found.lost}` : "", found.won ? `${b.name} alone was lost in ${found.won}` : ""].filter(Boolean).join("; ");
  const members = pairsOf(ours, theirs).map(([x, y]) => {
    const [p, q] = [points(x, metric), points(y, metric)];
    if (!p.length || !q.length) return null;
    const at = reader(q), end = Math.min(p.at(-1)[0], q.at(-1)[0]);
    return { points: p.filter(([s]) => s >= q[0][0] && s <= end).map(([s, v]) => [s, v - at(s)]) };
  }).filter((m) => m?.points.length);
  const steps = stepsMore(ours, theirs, metric);
  const text = el("p", { class: "told" }, `${told}${lost ? `; ${lost}` : ""}.`, steps ? ` ${a.name} needs ${steps}.` : "");
  if (!members.length) return el("div", {}, el("h4", {}, place), text);
  const kept = state.log;
  state.log = "";  // a difference has a sign
  const { line, area } = band(members), lines = [{ ...a, name: `${a.name} − ${b.name}`, label: `${a.name} − ${b.name}`, points: line, band: area, width: 2,
    about: ([x, y]) => [`${a.name} − ${b.name}`, `${UNITS[state.x]} ${number(x)}: ${number(y)}`] }];
  const end = line.at(-1)[0], late = [0, ...line.map((p) => p[1]), ...area.filter(([x]) => x >= 0.15 * end).flatMap(([, low, high]) => [low, high])].sort((p, q) => p - q);
  const pad = 0.05 * (late.at(-1) - late[0] || 1), round = (v, to) => { const unit = 10 ** Math.floor(Math.log10(pad)); return Number((to(v / unit) * unit).toPrecision(6)); };
  const axes = { title: place, x: UNITS[state.x], y: `difference in ${metric}`, logx: state.logx !== "", min: round(late[0] - pad, Math.floor), max: round(late.at(-1) + pad, Math.ceil), refs: [{ y: 0, text: "no difference" }], cross: state.x };
  const made = chart(lines, [], axes);
  state.log = kept;
  made.append(text);
  return made;
}
