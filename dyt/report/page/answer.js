"use strict";
// The answer: the findings with their numbers; and a study with all that is known of it.

// -- findings ---------------------------------------------------------------------------------------------------------

function dots(points) {
  return [...Map.groupBy(points, (p) => `${p.study}${p.unit}`).values()].map((own) => {
    const [{ unit, study }] = own, low = Math.min(...own.map((p) => p.low)), high = Math.max(...own.map((p) => p.high));
    const at = (v) => `${4 + (92 * (v - low)) / (high - low || 1)}%`;
    const text = (v) => (unit === "accuracy" ? `${(100 * v).toFixed(1)} %` : v.toFixed(2));
    return el("div", { class: "dots" }, own.map((p) => el("div", { class: "dot" }, el("span", { title: p.label }, shortened(p.label, 60)),
      svg("svg", { height: 18, role: "img", "aria-label": `${p.label}: ${text(p.value)}, ${text(p.low)} to ${text(p.high)}` },
        svg("line", { x1: "0%", x2: "100%", y1: 9, y2: 9, stroke: "var(--grid)" }),
        svg("line", { x1: at(p.low), x2: at(p.high), y1: 9, y2: 9, stroke: familyOf(p), "stroke-width": 3, opacity: 0.5 }),
        svg("circle", { cx: at(p.value), cy: 9, r: 5, fill: familyOf(p) })),
      el("b", {}, text(p.value)))), el("div", { class: "note" }, study ? `${study}: ` : "", unit === "nats" ? "validation loss in nats, lower is better" : unit === "accuracy" ? "accuracy, higher is better" : unit));
  });
}

const familyOf = ({ label, norm }) => {
  if (norm) return look(norm).colour;
  const norms = { LayerNorm: "layernorm", RMSNorm: "rmsnorm", DyT: "dyt", Derf: "derf", tanh: "dyt", "no norm": "none", BatchNorm: "batchnorm" };
  const key = Object.keys(norms).find((n) => label.startsWith(n));
  return look(key ? norms[key] : "none").colour;
};

function findingsOf() {
  if (!data.findings?.length) return null;
  return el("div", { class: "findings" }, data.findings.map((f) => el("section", { class: "card" }, el("h3", {}, `${f.says}.`), dots(f.points),
    el("details", {}, el("summary", {}, "More"), el("p", {}, f.more),
      [...new Set(f.points.map((p) => p.study).filter(Boolean))].map((s) => [el("a", { href: link({ view: "studies", study: s }) }, `study ${s}`), " ",
        el("a", { href: link({ view: "curves", study: s }) }, "curves"), " "])))));
}

// The runs that no study has, a card for each model and data: how the best of each arm ended.
function ownOf() {
  const own = data.runs.filter((r) => !r.studies.length), variants = variantsOf(own, OWN);
  const places = [...new Set(variants.flatMap((v) => [...v.places.keys()]))].slice(0, 12);
  return el("div", { class: "findings" }, places.map((place) => {
    const runs = variants.flatMap((v) => v.places.get(place) ?? []), metric = runs.find((r) => r.metric && r.status === "finished")?.metric ?? runs[0].metric;
    const points = picks(variants, place, metric).map((v) => ({ v, ...interval(ending(v.places.get(place), metric).values) }))
      .filter((p) => p.n).map((p) => ({ label: p.v.name, norm: p.v.norm, study: "", unit: { "val/loss": "nats", "val/top1": "accuracy" }[metric] ?? metric, value: p.mean, low: p.mean - p.half, high: p.mean + p.half }));
    const best = points.length ? points.reduce((a, b) => ((higher(metric) ? b.value > a.value : b.value < a.value) ? b : a)) : null, lost = runs.filter(gone).length;
    return el("section", { class: "card" }, el("h3", {}, shortened(place, 70)), best ? el("p", {}, shortened(best.label, 70), ` ends ${higher(metric) ? "highest" : "lowest"}.`) : el("p", {}, runs.some((r) => !ended(r)) ? "No run has finished yet." : "No run finished."), dots(points),
      el("p", { class: "note" }, `${runs.filter((r) => r.status === "finished").length} of ${runs.length} runs finished. `,
        lost ? el("a", { href: link({ view: "runs", study: OWN, q: LOST }) }, `${lost} diverged or failed: why`) : ""));
  }));
}

function answerView() {
  const own = data.runs.some((r) => !r.studies.length) ? [el("h2", {}, "Your own runs"), ownOf()] : null;
  if (!tests().length) return [live(), own, el("h2", {}, "No study has verdicts yet"), el("p", {}, "A study turns runs into verdicts on the papers' claims. Run one, for instance: ", el("code", {}, "python scripts/reproduce.py gpt_norms"))];
  return [live(), el("h2", {}, data.findings?.length ? "What was found" : "Verdicts"), findingsOf(), own, forest()];
}

// -- one study --------------------------------------------------------------------------------------------------------

function studiesView() {
  const told = data.studies.filter((s) => s.tests.length || s.under_way).map((s) => `${s.name}/${s.scale}`);
  const now = told.includes(state.study) ? state.study : [remembered(), ...data.main, ...told].find((s) => told.includes(s));
  const study = studyOf(now);
  if (!study) return answerView();
  const runs = data.runs.filter((r) => r.studies.includes(now)), lost = runs.filter((r) => r.status === "diverged");
  const others = data.studies.filter((s) => s.name === study.name && s !== study && !s.tests.length && !s.under_way);
  return [
    el("h2", {}, `${study.name} (${study.scale})`), el("p", {}, study.title),
    el("div", { class: "controls" }, choice("Study", "study", told.map((s) => [s, s]), now),
      ["curves", "tuning", "layers", "runs"].map((view) => el("a", { class: "go", href: link({ view, study: now }) }, `its ${view}`))),
    live(), study.under_way ? null : progress(study, runs.filter(ended).length),
    study.under_way ? [el("p", {}, "No verdict yet. It will say whether:"), el("ul", {}, study.claims.map((c) => el("li", {}, c)))] : null,
    study.tests.length ? scroll(el("table", { class: "stack" },
      el("thead", {}, el("tr", {}, ["claim", "the papers", "ours, 95% interval", "seeds", "p (Holm)", "verdict"].map((t) => el("th", { scope: "col" }, t)))),
      el("tbody", {}, study.tests.map((t) => el("tr", {}, el("td", { class: "name" }, t.says), el("td", { "data-head": "the papers" }, t.papers_say ?? "–"),
        el("td", { "data-head": "ours" }, t.we_found ?? "–"), el("td", { class: "number", "data-head": "seeds" }, String(t.seeds ?? "–")),
        el("td", { class: "number", "data-head": "p (Holm)" }, t.p_holm === null || t.p_holm === undefined ? "–" : number(t.p_holm)),
        el("td", {}, badge(t.verdict), t.why && t.why !== t.we_found ? el("div", { class: "note" }, t.why) : null)))))) : null,
    lost.length ? note(`${lost.length} of ${runs.length} runs diverged. `, el("a", { href: link({ view: "runs", study: now, q: "diverged" }) }, "Which, and why")) : null,
    study.figure ? el("img", { class: "figure", src: study.figure, loading: "lazy", alt: `Figure of ${study.name}: ${study.title}` }) : null,
    el("h3", {}, "Run it again"), el("p", {}, el("code", {}, study.command), study.cost ? `  Cost: ${study.cost}` : ""),
    study.own ? note("This repository's own hypothesis, in no paper.") : null,
    el("h3", {}, "Raw files"), el("ul", { id: "files" }, study.files.map((f) => el("li", {}, fileLink(f, f.split("/").slice(-4).join("/"))))),
    others.length ? [el("h3", {}, "Not run"), el("ul", {}, others.map((s) => el("li", {}, `${s.scale}: `, el("code", {}, s.command))))] : null,
  ];
}

function progress(study, done) {
  if (done >= study.asked) return null;
  return el("p", {}, el("progress", { max: study.asked, value: done, "aria-label": "Runs done" }), ` ${done} of ${study.asked} runs are there.`);
}
