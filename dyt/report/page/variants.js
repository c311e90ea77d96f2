"use strict";
// Variants: runs that differ in their seed only. Their names are made in Python (dyt/config/variants.py).

const MOST = 8;  // lines that a panel opens with

// Where a run stands in a scope: {variant, place, arm, cell, baseline}.
function about(run, scope) {
  if (run.in[scope]) return run.in[scope];
  const [[of, own]] = Object.entries(run.in);
  return scope === ALL && of !== OWN ? { ...own, place: `${of}: ${own.place}` } : own;
}

const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}.]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40) || "variant";

// The variants of runs, those of the baseline first, each with a look of its own.
function variantsOf(runs, scope) {
  const found = new Map(), used = new Set();
  for (const run of runs) {
    const own = about(run, scope);
    if (!found.has(own.variant)) {
      let id = slug(own.variant);
      for (let i = 2; used.has(id); i++) id = `${slug(own.variant)}~${i}`;
      used.add(id);
      found.set(own.variant, { id, name: own.variant, arm: own.arm, norm: run.norm, baseline: own.baseline, places: new Map() });
    }
    const places = found.get(own.variant).places;
    if (!places.has(own.place)) places.set(own.place, []);
    places.get(own.place).push(run);
  }
  return [...found.values()];
}

// What the metric was at the end of a run that finished; of any other there is no such value, nor of one that ended no
// better than chance, as the studies count it (dyt/studies/judging/cells.py).
const finalOf = (run, metric) => (run.status === "finished" && !(run.chance && metric === run.metric) ? run.final[metric] : undefined);

// Over runs: their final values, how many were lost, and how many have not ended (or were cut off); none sorts last.
function ending(runs, metric) {
  const values = runs.map((r) => finalOf(r, metric)).filter((v) => v !== undefined), open = runs.filter((r) => r.status !== "finished" && !gone(r)).length;
  return { values, mean: values.length ? interval(values).mean : undefined, lost: runs.length - open - values.length, open };
}

function badness(runs, metric) {
  const { mean, lost } = ending(runs, metric);
  return (lost / runs.length) * 1e12 + (mean === undefined ? 1e15 : higher(metric) ? -mean : mean);
}

// The best of several lists of runs, judged by the seeds that all have, as the studies choose a searched level.
function bestOf(lists, metric) {
  const done = lists.map((own) => new Set(own.filter((r) => r.status === "finished" || r.status === "diverged").map((r) => r.seed)));
  const common = [...(done[0] ?? [])].filter((seed) => done.every((seeds) => seeds.has(seed)));
  const bad = lists.map((own) => badness(common.length ? own.filter((r) => common.includes(r.seed)) : own, metric));
  return bad.indexOf(Math.min(...bad));
}

// The variants that a panel opens with: the best of each arm, the baseline's first, then the norms in turn.
function picks(variants, place, metric) {
  const here = variants.filter((v) => v.places.has(place));
  const arms = Map.groupBy(here, (v) => (here.length > MOST ? v.arm : v.name));
  const best = [...arms.values()].map((own) => own[bestOf(own.map((v) => v.places.get(place)), metric)]);
  const order = (a, b) => badness(a.places.get(place), metric) - badness(b.places.get(place), metric);
  const norms = [...Map.groupBy(best.filter((v) => !v.baseline).sort(order), (v) => v.norm).values()];
  const turns = [];
  for (let i = 0; norms.some((own) => own[i]); i++) turns.push(...norms.map((own) => own[i]).filter(Boolean));
  const base = best.filter((v) => v.baseline).sort((a, b) => (b.norm === "layernorm") - (a.norm === "layernorm") || order(a, b));
  return [...base, ...turns].slice(0, MOST);
}

// Looks by variant, those that panels open with first: a norm's first lines differ most.
function giveLooks(variants, first) {
  const turn = inTurn();
  for (const v of [...first, ...variants.filter((v) => !first.includes(v))]) Object.assign(v, look(v.norm, turn(v.norm)));
}
