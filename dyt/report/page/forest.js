"use strict";
// Every verdict as a forest plot: differences on one scale, and what has a scale of its own below.

const VERDICTS = ["agrees", "reproduced", "disagrees", "contradicted", "level", "inconclusive", "undertuned", "undertrained", "not run"];
const COLOUR = { agrees: "good", reproduced: "good", disagrees: "bad", contradicted: "bad", level: "soft" };
const shade = (verdict) => `var(--${COLOUR[verdict] ?? "open"})`;

function tests() {
  return data.studies.flatMap((s) => s.tests.map((t) => ({ ...t, study: `${s.name}/${s.scale}`, name: s.name, scale: s.scale })));
}

function forest() {
  const all = tests();
  const fits = (t) => (!state.of || t.name === state.of) && (!state.scale || t.scale === state.scale) && (!state.verdict || t.verdict === state.verdict);
  const shown = all.filter(fits), differences = shown.filter((t) => t.units), others = shown.filter((t) => !t.units);
  const most = Math.max(10, ...all.flatMap((t) => [...(t.units ?? []).map(Math.abs), Math.abs(t.paper_units ?? 0)]));
  const place = (u) => 50 + (47 * Math.sign(u) * Math.log10(1 + Math.abs(u))) / Math.log10(1 + most);
  const groups = byClaim(differences);
  const names = [...new Set(all.map((t) => t.name))].sort(), scales = [...new Set(all.map((t) => t.scale))];
  const told = VERDICTS.filter((v) => all.some((t) => t.verdict === v));
  const count = (v) => all.filter((t) => t.verdict === v).length;
  const chips = el("div", { class: "legend", role: "group", "aria-label": "Verdicts; press to see only these" }, told.map((v) =>
    el("button", { type: "button", id: `verdict-${v.replace(" ", "-")}`, "aria-pressed": String(state.verdict === v), class: "chip",
      onclick: () => set({ verdict: state.verdict === v ? "" : v }) }, el("span", { class: `badge ${v.split(" ")[0]}` }, `${count(v)} ${v}`))));
  const chance = data.chance, decided = all.filter((t) => ["agrees", "disagrees", "reproduced", "contradicted", "level"].includes(t.verdict)).length;
  const elsewhere = data.studies.filter((s) => !s.tests.length && !s.under_way);
  return [
    el("h2", {}, "Every claim on one scale"),
    el("p", {}, `${all.length} claims were looked at, ${decided} are decided. `,
      chance ? `If nothing differed at all, about ${chance.before.toFixed(0)} of the ${chance.tested} tests would look decided by chance alone. `
        + `Holm's correction within each study brings that to ${chance.after.toFixed(1)} at most.` : ""),
    chips,
    el("div", { class: "controls" }, choice("Study", "of", [["", "all"], ...names.map((n) => [n, n])]),
      choice("Scale", "scale", [["", "all"], ...scales.map((s) => [s, s])]),
      choice("Verdict", "verdict", [["", "all"], ...told.map((v) => [v, v])])),
    differences.length ? plot("forest", "Difference and 95% interval in units of the smallest effect that matters (0.005 nats of loss, half a point of accuracy): right is better, "
      + "left is worse; in the grey strip it is too small to matter. The hollow square is the papers' own value, where they give one.",
    axisHead(ticksOf(most).map((t) => [place(t), t === 0 ? "0" : `${t > 0 ? "+" : "−"}${brief(Math.abs(t))}`])), groups, (t) => inUnits(t, place)) : null,
    shown.length ? null : el("p", {}, "No claim fits; choose another study, scale or verdict."),
    ranks(others), counts(others),
    elsewhere.length ? el("details", {}, el("summary", {}, `Not run: ${elsewhere.length} more, most at a larger scale`),
      el("ul", {}, elsewhere.map((s) => el("li", {}, `${s.name} (${s.scale}): `, el("code", {}, s.command))))) : null,
  ];
}

const byClaim = (rows) => [...Map.groupBy(rows, (t) => t.claim)].sort(([a], [b]) => Number(/no paper$/.test(a)) - Number(/no paper$/.test(b)) || a.localeCompare(b, "en", { numeric: true }));

function ticksOf(most) {
  const found = [1, 10, 100, 1000, 10000].filter((t) => t <= most);
  return [...found.map((t) => -t).reverse(), 0, ...found];
}

// A table of claims with a picture beside each; drawing(t) makes it.
function plot(id, caption, head, groups, drawing) {
  return scroll(el("table", { id, class: "forest" }, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "claim"), el("th", { scope: "col", class: "wide" }, head), el("th", { scope: "col" }, "ours"), el("th", { scope: "col" }, "verdict"))),
    groups.map(([claim, rows]) => el("tbody", {}, claim ? el("tr", { class: "group" }, el("th", { colspan: 4, scope: "rowgroup" }, claim)) : null, rows.map((t) => forestRow(t, drawing(t)))))));
}

const axisHead = (ticks) => svg("svg", { height: 20, "aria-hidden": "true" }, ticks.map(([at, text]) => svg("text", { x: `${at}%`, y: 14, "text-anchor": "middle", fill: "var(--soft)", "font-size": 11 }, text)));

function forestRow(t, picture) {
  const go = link({ view: "studies", study: t.study });
  return el("tr", { class: "row", onclick: (e) => { if (!e.target.closest("a") && !getSelection().toString()) location.hash = go; } },
    el("td", {}, el("a", { href: go }, t.says), " ", el("span", { class: "note" }, t.study)), el("td", { class: "wide" }, picture),
    el("td", {}, t.we_found ?? t.why ?? "–", t.papers_say ? el("div", { class: "note" }, `the papers: ${t.papers_say}`) : null), el("td", {}, badge(t.verdict)));
}

// A mean with its interval; at(value) is a place in percent, strip [from, to] is shaded.
function whisker([mean, low, high], t, at, strip, said, more = []) {
  const colour = shade(t.verdict), firm = COLOUR[t.verdict] !== undefined, [from, to] = strip;
  return svg("svg", { height: 22, role: "img", "aria-label": said },
    from === to ? [] : svg("rect", { x: `${at(from)}%`, width: `${at(to) - at(from)}%`, y: 0, height: 22, fill: "var(--grid)" }),
    svg("line", { x1: `${at(0)}%`, x2: `${at(0)}%`, y1: 0, y2: 22, stroke: "var(--soft)" }),
    svg("line", { x1: `${at(low)}%`, x2: `${at(high)}%`, y1: 11, y2: 11, stroke: colour, "stroke-width": 3 }),
    svg("circle", { cx: `${at(mean)}%`, cy: 11, r: 5, fill: firm ? colour : "var(--back)", stroke: colour, "stroke-width": 2 }), more);
}

function inUnits(t, place) {
  const [mean, low, high] = t.units;
  return whisker(t.units, t, place, [-1, 1], `${mean.toFixed(1)} units, ${low.toFixed(1)} to ${high.toFixed(1)}`, t.paper_units === undefined ? []
    : svg("rect", { x: `${place(t.paper_units)}%`, y: 5, width: 11, height: 11, transform: "translate(-5.5 0)", fill: "none", stroke: "var(--text)", "stroke-width": 1.6 }));
}

// Rank correlations, from -1 to 1.
function ranks(rows) {
  const own = rows.filter((t) => t.scale_of?.on === "rank"), at = (v) => 50 + 47 * Math.max(-1, Math.min(1, v));
  if (!own.length) return null;
  return [el("h2", {}, "Does one thing rise with another?"),
    plot("ranks", "Rank correlation over runs or layers with its 95% interval: +1 always rises, −1 always falls, 0 no order. The grey half is where the claim says that it lies.",
      axisHead([-1, -0.5, 0, 0.5, 1].map((v) => [at(v), v > 0 ? `+${v}` : String(v).replace("-", "−")])), byClaim(own), (t) => {
        const { ends, claimed } = t.scale_of, [mean, low, high] = ends;
        return whisker(ends, t, at, claimed === "-" ? [-1, 0] : [0, 1], `rank correlation ${mean.toFixed(2)}, ${low.toFixed(2)} to ${high.toFixed(2)}`);
      })];
}

// Runs that diverged, counted; what has a unit of its own; and what is told in words alone.
function counts(rows) {
  const own = rows.filter((t) => t.scale_of?.on !== "rank");
  if (!own.length) return null;
  return [el("h2", {}, "Counts and other units"), plot("others", "A red cross is a run that diverged or ended no better than chance, a ring one that did not. Other intervals are each on a scale of their own; "
    + "the line is no difference, or a ratio of 1.", "found", byClaim(own), (t) => {
    if (t.scale_of?.on === "count") {
      const { lost, of } = t.scale_of;
      return svg("svg", { height: 22, role: "img", "aria-label": `${lost} of ${of}` }, Array.from({ length: Math.min(of, 20) }, (_, i) => (i < lost
        ? svg("path", { d: `M${4 + 18 * i},6l10,10m0,-10l-10,10`, stroke: "var(--bad)", "stroke-width": 2.4 })
        : svg("circle", { cx: 9 + 18 * i, cy: 11, r: 5, fill: "none", stroke: "var(--good)", "stroke-width": 2 }))));
    }
    if (!t.scale_of) return el("span", { class: "note" }, "in words");
    const { ends } = t.scale_of, most = Math.max(...ends.map(Math.abs)) || 1;
    return whisker(ends, t, (v) => 50 + (45 * v) / most, [0, 0], t.we_found ?? "");
  })];
}
