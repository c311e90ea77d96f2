"use strict";
// From runs to lines: the x-axis, smoothing, mean and interval over seeds, ranges, and steps to a target.

function xOf(run) {
  if (state.x === "samples") return (step) => step * (run.per_step ?? 1);
  if (state.x === "share") return (step) => step / (run.max_steps || run.step || 1);
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

function points(run, metric, weight = Number(state.smooth)) {
  const [steps, values] = data.curves[run.id]?.[metric] ?? [[], []];
  const x = xOf(run), out = [];
  let mean = 0, debias = 0;
  steps.forEach((step, i) => {
    mean = weight * mean + (1 - weight) * values[i];
    debias = weight * debias + (1 - weight);
    const y = mean / debias;
    if ((state.log === "" || y > 0) && (state.logx === "" || x(step) > 0)) out.push([x(step), y]);
  });
  return out;
}

// A line read at rising places, between its points.
function reader(points) {
  let i = 0;
  return (x) => {
    while (i < points.length - 1 && points[i + 1][0] <= x) i++;
    const [a, b] = [points[i], points[i + 1]];
    return b && x > a[0] ? a[1] + ((x - a[0]) / (b[0] - a[0])) * (b[1] - a[1]) : a[1];
  };
}

// Mean over seeds with its 95% interval, as far as all of them go, on the steps of the seed with the most points.
function band(members) {
  const grid = members.reduce((a, b) => (b.points.length > a.points.length ? b : a)).points.map((p) => p[0]);
  const first = Math.max(...members.map((m) => m.points[0][0])), end = Math.min(...members.map((m) => m.points.at(-1)[0]));
  const line = [], area = [], read = members.map((m) => reader(m.points));
  for (const x of [...new Set([...grid, end])].sort((a, b) => a - b)) {
    if (x < first || x > end) continue;
    const { mean, half, n } = interval(read.map((at) => at(x)));
    line.push([x, mean]);
    const low = state.log ? Math.max(mean - half, mean * 1e-6) : mean - half;  // below a log axis's end is below
    if (n > 1) area.push([x, low, mean + half]);
  }
  return { line, area, end };
}

// Lowest and highest value of lines.
function extent(lines) {
  let low = Infinity, high = -Infinity;
  for (const l of lines) for (const [, y] of l.points) { if (y < low) low = y; if (y > high) high = y; }
  return [low, high];
}

// The range in which what counts can be told apart: of what lines do after the first part of training, but for spikes.
function fitted(lines) {
  const end = lines.reduce((a, l) => Math.max(a, l.points.at(-1)?.[0] ?? a), -Infinity), sound = lines.filter((l) => !l.gone);
  const used = sound.length ? sound : lines, every = Math.ceil(used.reduce((a, l) => a + l.points.length, 0) / 30_000);  // enough to know a share
  const late = used.flatMap((l) => l.points.filter(([x], i) => (x >= 0.15 * end && i % every === 0) || i === l.points.length - 1).map((p) => p[1])).sort((a, b) => a - b);
  if (late.length < 3 || state.log) return {};
  const [low, high] = [late[Math.floor(0.005 * (late.length - 1))], late[Math.ceil(0.98 * (late.length - 1))]];
  const pad = 0.07 * (high - low || Math.abs(high) || 1), out = {}, [least, most] = extent(lines);
  if (most > high + 0.5 * (high - low)) Object.assign(out, { max: Number((high + pad).toPrecision(3)), cutHigh: true });
  if (least < low - 0.5 * (high - low)) Object.assign(out, { min: Number((low - pad).toPrecision(3)), cutLow: true });
  return out;
}

// At most `most` points of a line, lowest and highest of each stretch: what a screen can show of it.
function sparse(points, most) {
  if (points.length <= most) return points;
  const out = [points[0]], size = (points.length - 2) / Math.floor(most / 2);
  for (let from = 1; from < points.length - 1; from += size) {
    let low = Math.ceil(from), high = low;
    if (low >= points.length - 1) break;
    for (let i = low; i < Math.min(from + size, points.length - 1); i++) { if (points[i][1] < points[low][1]) low = i; if (points[i][1] > points[high][1]) high = i; }
    out.push(points[Math.min(low, high)]);
    if (low !== high) out.push(points[Math.max(low, high)]);
  }
  return [...out, points.at(-1)];
}

// Whether bands would hide each other: together they are higher than most of the chart.
function covered(lines, { min, max }) {
  const banded = lines.filter((l) => l.band?.length > 1);
  if (banded.length < 2) return false;
  const [least, most] = extent(banded), [low, high] = [min ?? least, max ?? most];
  const shares = banded.map((l) => interval(l.band.map(([, a, b]) => Math.max(0, Math.min(b, high) - Math.max(a, low)) / (high - low || 1))).mean);
  return shares.reduce((a, b) => a + b, 0) > 0.6;
}

// Where a curve reaches `target` after it was made monotone (isotonic regression): [step, at its first point]; null: never.
function stepsTo(points, target, up) {
  const sign = up ? -1 : 1, blocks = [];
  for (const [, y] of points) {
    blocks.push([sign * y, 1]);
    while (blocks.length > 1 && blocks.at(-2)[0] < blocks.at(-1)[0]) {
      const [b, n] = blocks.pop(), [a, m] = blocks.pop();
      blocks.push([(a * m + b * n) / (m + n), m + n]);
    }
  }
  const values = blocks.flatMap(([v, n]) => Array(n).fill(v)), aim = sign * target;
  const at = values.findIndex((v) => v <= aim + 1e-9);
  if (at < 0) return null;
  if (at === 0) return [points[0][0], true];
  const share = Math.min(1, Math.max(0, (aim - values[at - 1]) / (values[at] - values[at - 1])));
  return [points[at - 1][0] + share * (points[at][0] - points[at - 1][0]), false];
}

const raw = (run, metric) => { const [s, v] = data.curves[run.id]?.[metric] ?? [[], []]; return s.map((x, i) => [x, v[i]]); };

// Steps of `arm` against `base` to the baseline's end, in percent more, paired by seed (dyt/studies/judging/curves.py).
function stepsMore(arm, base, metric) {
  const up = higher(metric), logs = [];
  let never = 0, seeds = 0;
  for (const [a, b] of pairsOf(arm, base)) {
    const [ours, theirs] = [raw(a, metric), raw(b, metric)];
    if ([a, b].some((r) => r.status !== "finished" || r.chance) || !ours.length || !theirs.length) continue;
    seeds++;
    let end = theirs.at(-1)[1], found = stepsTo(ours, end, up);
    if (!found) { never++; end = ours.at(-1)[1]; found = stepsTo(ours, end, up); }
    const reference = stepsTo(theirs, end, up);
    if (found && reference && !(found[1] && reference[1])) logs.push(Math.log(Math.max(found[0], 1) / Math.max(reference[0], 1)));
  }
  if (!logs.length) return "";
  const { mean, half } = interval(logs), percent = (v) => Math.round(100 * Math.expm1(v));
  const more = percent(mean) >= 0, ends = [percent(mean - half), percent(mean + half)], told = more ? ends : ends.map((v) => -v || 0).reverse();
  return `${Math.abs(percent(mean))}% ${more ? "more" : "fewer"} steps [${told.join(", ")}] to ${never === seeds ? "its own end" : "the other's end"}`
    + (never ? `; not reached in ${never} of ${seeds}` : "");
}

function pairsOf(arm, base) {
  const seeds = new Map(base.map((r) => [r.seed, r]));
  return arm.filter((r) => seeds.has(r.seed)).map((r) => [r, seeds.get(r.seed)]);
}
