"use strict";
// The answer: the findings with their numbers, every verdict in one forest plot, and a study with all that is known of it.

const VERDICTS = ["agrees", "reproduced", "disagrees", "contradicted", "level", "inconclusive", "undertuned", "undertrained", "not run"];
const COLOUR = { agrees: "good", reproduced: "good", disagrees: "bad", contradicted: "bad", level: "soft" };
const shade = (verdict) => `var(--${COLOUR[verdict] ?? "open"})`;

// -- findings ---------------------------------------------------------------------------------------------------------

function dots(points) {
  return [...Map.groupBy(points, (p) => `${p.study}${p.unit}`).values()].map((own) => {
    const [{ unit, study }] = own, low = Math.min(...own.map((p) => p.low)), high = Math.max(...own.map((p) => p.high));
    const at = (v) => `${4 + (92 * (v - low)) / (high - low || 1)}%`;
    const text = (v) => (unit === "accuracy" ? `${(100 * v).toFixed(1)} %` : v.toFixed(2));
    return el("div", { class: "dots" }, own.map((p) => el("div", { class: "dot" }, el("span", { title: p.label }, p.label),
      svg("svg", { height: 18, role: "img", "aria-label": `${p.label}: ${text(p.value)}, ${text(p.low)} to ${text(p.high)}` },
        svg("line", { x1: "0%", x2: "100%", y1: 9, y2: 9, stroke: "var(--grid)" }),
        svg("line", { x1: at(p.low), x2: at(p.high), y1: 9, y2: 9, stroke: familyOf(p.label), "stroke-width": 3, opacity: 0.5 }),
        svg("circle", { cx: at(p.value), cy: 9, r: 5, fill: familyOf(p.label) })),
      el("b", {}, text(p.value)))), el("div", { class: "note" }, study ? `${study}: ` : "", unit === "nats" ? "validation loss in nats, lower is better" : unit === "accuracy" ? "accuracy, higher is better" : unit));
  });
}

const familyOf = (label) => {
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

// -- forest plot ------------------------------------------------------------------------------------------------------

function tests() {
  return data.studies.flatMap((s) => s.tests.map((t) => ({ ...t, study: `${s.name}/${s.scale}`, name: s.name, scale: s.scale })));
}

function forest() {
  const all = tests();
  const fits = (t) => (!state.of || t.name === state.of) && (!state.scale || t.scale === state.scale) && (!state.verdict || t.verdict === state.verdict);
  const shown = all.filter(fits);
  const most = Math.max(10, ...all.flatMap((t) => [...(t.units ?? []).map(Math.abs), Math.abs(t.paper_units ?? 0)]));
  const place = (u) => 50 + (47 * Math.sign(u) * Math.log10(1 + Math.abs(u))) / Math.log10(1 + most);
  const groups = [...Map.groupBy(shown, (t) => t.claim)].sort(([a], [b]) => Number(/no paper$/.test(a)) - Number(/no paper$/.test(b)) || a.localeCompare(b, "en", { numeric: true }));
  const names = [...new Set(all.map((t) => t.name))].sort(), scales = [...new Set(all.map((t) => t.scale))];
  const told = VERDICTS.filter((v) => all.some((t) => t.verdict === v));
  const count = (v) => all.filter((t) => t.verdict === v).length;
  const chips = el("div", { class: "legend", role: "group", "aria-label": "Verdicts; press to see only these" }, told.map((v) =>
    el("button", { type: "button", id: `verdict-${v.replace(" ", "-")}`, "aria-pressed": String(state.verdict === v), class: "chip",
      onclick: () => set({ verdict: state.verdict === v ? "" : v }) }, el("span", { class: `badge ${v.split(" ")[0]}` }, `${count(v)} ${v}`))));
  const chance = data.chance, decided = all.filter((t) => ["agrees", "disagrees", "reproduced", "contradicted", "level"].includes(t.verdict)).length;
  const elsewhere = data.studies.filter((s) => !s.tests.length);
  return [
    el("h2", {}, "Every claim on one scale"),
    el("p", {}, `${all.length} claims were looked at, ${decided} are decided. `,
      chance ? `If nothing differed at all, about ${chance.before.toFixed(0)} of the ${chance.tested} tests would look decided by chance alone. `
        + `Holm's correction within each study brings that to ${chance.after.toFixed(1)} at most.` : ""),
    chips,
    el("div", { class: "controls" }, choice("Study", "of", [["", "all"], ...names.map((n) => [n, n])]),
      choice("Scale", "scale", [["", "all"], ...scales.map((s) => [s, s])]),
      choice("Verdict", "verdict", [["", "all"], ...told.map((v) => [v, v])])),
    el("div", { class: "scroll" }, el("table", { id: "forest" },
      el("caption", {}, "Difference and 95% interval in units of the smallest effect that matters (0.005 nats of loss, half a point of accuracy): right is better, "
        + "left is worse, between the inner lines it is too small to matter. The hollow square is the papers' own value, where they give one."),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "claim"), el("th", { scope: "col", class: "wide" }, axisHead(place, most)), el("th", { scope: "col" }, "ours"),
        el("th", { scope: "col" }, "verdict"))),
      groups.map(([claim, rows]) => el("tbody", {}, el("tr", { class: "group" }, el("th", { colspan: 4, scope: "rowgroup" }, claim)), rows.map((t) => forestRow(t, place)))))),
    elsewhere.length ? el("details", {}, el("summary", {}, `Not run: ${elsewhere.length} studies at a larger scale`),
      el("ul", {}, elsewhere.map((s) => el("li", {}, `${s.name} (${s.scale}): `, el("code", {}, s.command))))) : null,
  ];
}

function ticksOf(most) {
  const found = [1, 10, 100, 1000, 10000].filter((t) => t <= most);
  return [...found.map((t) => -t).reverse(), 0, ...found];
}

function axisHead(place, most) {
  return svg("svg", { height: 20, "aria-hidden": "true" }, ticksOf(most).map((t) => svg("text", { x: `${place(t)}%`, y: 14, "text-anchor": "middle",
    fill: "var(--soft)", "font-size": 11 }, t === 0 ? "0" : `${t > 0 ? "+" : "−"}${brief(Math.abs(t))}`)));
}

function forestRow(t, place) {
  const go = link({ view: "studies", study: t.study });
  const [mean, low, high] = t.units ?? [];
  const colour = shade(t.verdict), firm = COLOUR[t.verdict] !== undefined;
  const at = (u) => `${place(u)}%`;
  const picture = !t.units ? el("span", { class: "note" }, t.mean === null || t.mean === undefined ? "–" : "in another unit")
    : svg("svg", { height: 22, role: "img", "aria-label": `${mean.toFixed(1)} units, ${low.toFixed(1)} to ${high.toFixed(1)}` },
      svg("rect", { x: at(-1), width: `${place(1) - place(-1)}%`, y: 0, height: 22, fill: "var(--grid)" }),
      svg("line", { x1: "50%", x2: "50%", y1: 0, y2: 22, stroke: "var(--line)" }),
      svg("line", { x1: at(low), x2: at(high), y1: 11, y2: 11, stroke: colour, "stroke-width": 3 }),
      svg("circle", { cx: at(mean), cy: 11, r: 5, fill: firm ? colour : "var(--back)", stroke: colour, "stroke-width": 2 }),
      t.paper_units === undefined ? [] : svg("rect", { x: at(t.paper_units), y: 5, width: 11, height: 11, transform: "translate(-5.5 0)", fill: "none", stroke: "var(--text)", "stroke-width": 1.6 }));
  return el("tr", { class: "row", onclick: (e) => { if (!e.target.closest("a") && !getSelection().toString()) location.hash = go; } },
    el("td", {}, el("a", { href: go }, t.says), " ", el("span", { class: "note" }, t.study)), el("td", { class: "wide" }, picture),
    el("td", {}, t.we_found ?? "–", t.papers_say ? el("div", { class: "note" }, `the papers: ${t.papers_say}`) : null), el("td", {}, badge(t.verdict)));
}

function answerView() {
  if (!tests().length) return [el("h2", {}, "No study was run yet"), el("p", {}, "Run one, for instance: ", el("code", {}, "python scripts/reproduce.py gpt_norms"), ". The runs that are here: ",
    el("a", { href: link({ view: "curves" }) }, "curves"), ", ", el("a", { href: link({ view: "runs" }) }, "table"), "."), live()];
  return [el("h2", {}, data.findings?.length ? "What was found" : "Verdicts"), live(), findingsOf(), forest()];
}

// -- one study --------------------------------------------------------------------------------------------------------

function studiesView() {
  const told = data.studies.filter((s) => s.tests.length).map((s) => `${s.name}/${s.scale}`);
  const now = told.includes(state.study) ? state.study : [remembered(), data.main, ...told].find((s) => told.includes(s));
  const study = studyOf(now);
  if (!study) return answerView();
  const runs = data.runs.filter((r) => r.studies.includes(now)), gone = runs.filter((r) => r.status === "diverged");
  const others = data.studies.filter((s) => s.name === study.name && !s.tests.length);
  return [
    el("h2", {}, `${study.name} (${study.scale})`), el("p", {}, study.title),
    el("div", { class: "controls" }, choice("Study", "study", told.map((s) => [s, s]), now),
      ["curves", "tuning", "layers", "runs"].map((view) => el("a", { class: "go", href: link({ view, study: now }) }, `its ${view}`))),
    progress(study, runs.length),
    el("div", { class: "scroll" }, el("table", { class: "stack" },
      el("thead", {}, el("tr", {}, ["claim", "the papers", "ours, 95% interval", "seeds", "p (Holm)", "verdict"].map((t) => el("th", { scope: "col" }, t)))),
      el("tbody", {}, study.tests.map((t) => el("tr", {}, el("td", { class: "name" }, t.says), el("td", { "data-head": "the papers" }, t.papers_say ?? "–"),
        el("td", { "data-head": "ours" }, t.we_found ?? "–"), el("td", { class: "number", "data-head": "seeds" }, String(t.seeds ?? "–")),
        el("td", { class: "number", "data-head": "p (Holm)" }, t.p_holm === null || t.p_holm === undefined ? "–" : number(t.p_holm)),
        el("td", {}, badge(t.verdict), t.why && t.why !== t.we_found ? el("div", { class: "note" }, t.why) : null)))))),
    gone.length ? note(`${gone.length} of ${runs.length} runs diverged. `, el("a", { href: link({ view: "runs", study: now, q: "diverged" }) }, "Which, and why")) : null,
    study.figure ? el("img", { class: "figure", src: study.figure, loading: "lazy", alt: `Figure of ${study.name}: ${study.title}` }) : null,
    el("h3", {}, "Run it again"), el("p", {}, el("code", {}, study.command), study.cost ? `  Cost: ${study.cost}` : ""),
    study.own ? note("This repository's own hypothesis, in no paper.") : null,
    el("h3", {}, "Raw files"), el("ul", { id: "files" }, study.files.map((f) => el("li", {}, fileLink(f)))),
    others.length ? [el("h3", {}, "Not run"), el("ul", {}, others.map((s) => el("li", {}, `${s.scale}: `, el("code", {}, s.command))))] : null,
  ];
}

function progress(study, done) {
  if (done >= study.asked) return null;
  return el("p", {}, el("progress", { max: study.asked, value: done, "aria-label": "Runs done" }), ` ${done} of ${study.asked} runs are there.`);
}
