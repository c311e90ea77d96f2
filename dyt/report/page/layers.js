"use strict";
// Layers: a statistic of every layer over time, as lines and as one picture; the S-curves of trained norms.

const STATS = { alpha: "alpha", in_std: "std of the input", in_mean: "mean of the input", saturated: "share with |alpha x| > 2",
  grad_norm: "gradient norm", tanh_r2: "R² of the best tanh", line_r2: "R² of the best line" };

const probed = (run) => Object.keys(data.curves[run.id] ?? {}).some((k) => k.startsWith("probe/"));

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

const depth = (i, n) => `hsl(${250 - (200 * i) / Math.max(1, n - 1)} 65% ${document.documentElement.dataset.theme === "dark" ? 62 : 40}%)`;

function layersView() {
  const telling = (s) => data.runs.filter((r) => inScope(r, s) && r.unit === "tokens" && Object.entries(data.curves[r.id] ?? {}).some(([k, [steps]]) => k.endsWith("/saturated") && steps.length > 2)).length;
  const open = scopes().filter((s) => data.runs.some((r) => inScope(r, s) && probed(r))), fullest = open.reduce((a, b) => (telling(b) > telling(a) ? b : a), open[0]);
  const now = scope((s) => open.includes(s), (s) => s === fullest);
  const runs = chosen(now).filter(probed), asked = byId.get(state.run);
  const run = runs.includes(asked) ? asked : runs.find((r) => r.norm.startsWith("dyt") && r.unit === "tokens") ?? runs.find((r) => r.norm.startsWith("dyt")) ?? runs[0];
  const out = [el("h2", {}, "By layer and over time"), el("div", { class: "controls" }, studyChoice("Runs of", now), filter())];
  if (!run) return [...out, el("p", {}, "None of these runs was probed (trainer.probe_every=100)."), samplesView(chosen(now), now), scurveView()];
  const layers = layersOf(run), stats = Object.keys(STATS).filter((s) => [...layers.values()].some((l) => l[s]));
  const stat = stats.includes(state.stat) ? state.stat : stats[0];
  const named = [...layers].filter(([, l]) => l[stat]), i = Math.min(Number(state.layer) || 0, named.length - 1);
  const [name, here] = named[i], steps = here[stat].map((p) => p[0]);
  const at = state.at === "" ? steps.length - 1 : Math.min(Number(state.at), steps.length - 1);
  const label = about(run, now).variant;
  out[1].append(
    el("label", {}, "Run", el("select", { id: "choose-run", onchange: (e) => set({ run: e.target.value }) },
      runs.map((r) => el("option", { value: r.id, selected: r === run }, `${about(r, now).variant}, seed ${r.seed} (${about(r, now).place})`)))),
    choice("Statistic", "stat", stats.map((s) => [s, STATS[s]]), stat),
    slider("Layer", "layer", named.length, name), slider("Step", "at", steps.length, number(steps[at])));
  const full = [...layers].filter(([, l]) => l.saturated).map(([n, l]) => [n, l.saturated.at(-1)[1]]).sort((a, b) => b[1] - a[1]);
  if (full.length) out.push(el("p", { id: "saturates" }, full[0][1] > 0.001 ? `Most saturated at the end: ${full[0][0]}, where ${(100 * full[0][1]).toFixed(1)}% of the inputs have |alpha x| > 2`
    + (full.length > 1 ? `; least: ${full.at(-1)[0]}, ${(100 * full.at(-1)[1]).toFixed(1)}%.` : ".") : "No layer saturates at the end of this run."));
  const told = (layer, what) => ([x, y]) => [layer, `step ${number(x)}: ${what} ${number(y)}`];
  const over = named.map(([layer, l], j) => ({ name: layer, label: layer, colour: depth(j, named.length), points: l[stat], faint: j !== i, width: j === i ? 3 : 1.2, about: told(layer, STATS[stat]) }));
  if (stat === "alpha" && here.in_std) {
    over.push({ name: `1/std of ${name}`, label: `1/std of ${name}`, colour: css("--text"), dash: "dashed", width: 2, points: here.in_std.map(([s, v]) => [s, 1 / v]), about: told(name, "1/std of the input") });
  }
  const [least, most] = extent(over), log = least > 0 && most > 8 * least;  // 1/std may be far from alpha
  const by = [{ name: STATS[stat], label: STATS[stat], colour: look(run.norm).colour, dots: 7, points: named.map(([, l], j) => [j, (l[stat][at] ?? l[stat].at(-1))[1]]),
    about: ([j, y]) => [named[j][0], `step ${steps[at]}: ${STATS[stat]} ${number(y)}`] }];
  const cells = named.flatMap(([, l], j) => l[stat].map(([s, v]) => ({ value: [steps.indexOf(s), j, v] }))).filter((c) => c.value[0] >= 0);
  out.push(el("div", { class: "facets" },
    chart(over, [], { title: `${STATS[stat]} over time: ${label}, seed ${run.seed}`, x: "step", y: STATS[stat], cross: "layers", log }),
    heat(`${STATS[stat]} by layer and time, the input's side at the bottom`, "darker is smaller", steps.map(number), named.map(([n]) => n), cells, { x: "step", y: "layer" }),
    chart(by, [], { title: `${STATS[stat]} by layer at step ${number(steps[at])}`, x: "layer, from the input on", y: STATS[stat] }), bends(run, layers, steps[at])),
    note(`Lines: ${named[0][0]} in blue to ${named.at(-1)[0]} in yellow; the thick one is ${name}`, stat === "alpha" && here.in_std ? ", the dashed one 1/std of its input." : "."), samplesView(chosen(now), now), scurveView());
  return out;
}

// How far DyT bends each layer's input at a step: tanh(alpha x), x in standard deviations of that input.
function bends(run, layers, step) {
  if (!run.norm.startsWith("dyt") || (run.config["norm.squash"] ?? "tanh") !== "tanh") return null;
  const value = (points) => (points?.find(([s]) => s === step) ?? points?.at(-1))?.[1], own = [...layers].map(([name, l]) => [name, value(l.alpha), value(l.in_std)]).filter(([, a, std]) => a && std);
  if (!own.length) return null;
  const lines = own.map(([name, a, std], i) => ({ name, label: name, colour: depth(i, own.length), width: 1.6, points: Array.from({ length: 61 }, (_, k) => (k - 30) / 10).map((z) => [z, Math.tanh(a * std * z)]),
    about: ([z, y]) => [name, `alpha ${number(a)}, std of the input ${number(std)}`, `${z} std: ${number(y)}`] }));
  return chart(lines, [], { title: `How far each layer bends at step ${number(step)}: tanh(alpha x)`, x: "input in its standard deviations", y: "output, before gamma and beta" });
}

// What runs' models make: text as it was written, pictures and reconstructions as a sheet.
function samplesView(runs, now) {
  const own = runs.filter((r) => r.sample || r.picture).sort((a, b) => Boolean(b.picture) - Boolean(a.picture));
  if (!own.length) return note("No samples: a run of a language model writes samples.txt into its directory when it ends, one of a diffusion model samples.png.");
  const seeds = Map.groupBy(own, (r) => `${about(r, now).variant}\n${about(r, now).place}`), first = [...seeds.values()].map((same) => same.reduce((a, b) => (b.seed < a.seed ? b : a)));
  const most = state.more ? first.length : 6;
  return el("div", { id: "samples" }, el("h2", {}, "What the models make"), note("Of each variant the first seed, after training."),
    el("div", { class: "facets" }, first.slice(0, most).map((run) => el("section", { class: "facet" },
      el("h3", {}, shortened(`${about(run, now).variant}, seed ${run.seed}`, 60), " ", el("span", { class: "note" }, about(run, now).place)),
      run.picture ? el("img", { class: "figure", src: run.picture, loading: "lazy", alt: `Samples of ${about(run, now).variant}, seed ${run.seed}` }) : null,
      run.sample ? el("pre", { dir: "auto", tabindex: 0, "aria-label": `Text by ${about(run, now).variant}, seed ${run.seed}` }, run.sample) : null))),
    first.length > most ? button(`all ${first.length} variants`, () => set({ more: "1" }), { id: "more" }) : null);
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
    { name: "LayerNorm", colour: look("layernorm").colour, points: dots, dots: 4, width: 0, about: ([x, y]) => [`${s.setting}: ${s.layer}`, `input ${number(x)}, output ${number(y)}`] },
    { name: "best tanh", colour: look("dyt").colour, points: fit, width: 3, about: ([x, y]) => ["best tanh", `${number(x)}: ${number(y)}`] },
  ], [], { title: `${s.setting}: ${s.layer}, ${brief(s.a)} tanh(${brief(s.b)} x), R² ${s.r2.toFixed(2)}`, x: "input", y: "output, before gamma and beta" })));
}
