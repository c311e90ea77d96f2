"use strict";
// The table of runs, by Tabulator: seeds folded into their variant, unfolded by a click, and only rows in sight are drawn.

const COLUMNS = [
  ["variant", "variant"], ["place", "tried on"], ["status", "status"], ["metric", "judged by"], ["final", "final"], ["best", "best"], ["train", "train/loss"], ["seed", "seed"],
  ["norm", "norm"], ["model", "model"], ["data", "data"], ["step", "step"], ["seconds", "seconds"], ["parameters", "parameters"], ["why", "why"],
];
const NUMBERS = new Set(["final", "best", "train", "seed", "step", "seconds", "parameters"]), HIDDEN = "norm,model,data,parameters";
const unfolded = new Set();
let tabulator = null;

function rowOf(run, now) {
  const own = about(run, now), metric = run.metric;
  return { id: run.id, run, name: run.name, status: run.status, metric, final: gone(run) ? undefined : run.final[metric], best: run.best[metric], train: run.final["train/loss"], seed: run.seed,
    variant: own.variant, place: own.place, norm: run.norm, model: run.model, data: run.data, step: run.step, seconds: run.wall_s, parameters: run.parameters, why: run.why };
}

function rowsOf(runs, now) {
  if (!state.fold) return runs.map((r) => rowOf(r, now));
  return [...Map.groupBy(runs, (r) => `${about(r, now).variant}\n${about(r, now).place}`)].map(([key, own]) => {
    const children = own.map((r) => rowOf(r, now)).sort((a, b) => a.seed - b.seed), counts = {};
    for (const r of own) counts[r.status] = (counts[r.status] ?? 0) + 1;
    const row = { id: `of ${key}`, name: about(own[0], now).variant, key, counts, seed: own.length, _children: children, spread: {}, metric: children[0].metric };
    for (const field of ["place", "norm", "model", "data", "parameters"]) row[field] = children[0][field];
    for (const field of ["final", "best", "train", "step", "seconds"]) {
      const values = children.filter((c) => field === "step" || c.status === "finished").map((c) => c[field]).filter((v) => typeof v === "number");
      if (values.length) { const { mean, sd, n } = interval(values); row[field] = mean; row.spread[field] = n > 1 && sd ? sd : null; }
    }
    row.status = Object.keys(counts).sort().join(", ");
    const [why, ...more] = new Set(children.map((c) => c.why).filter(Boolean));
    row.why = more.length ? `${why} (others: ${more.join("; ")})` : why ?? "";
    return row;
  });
}

function statusOf(row) {
  if (row.counts) return el("span", {}, Object.entries(row.counts).map(([s, n]) => [el("span", { class: `badge ${s.split(" ")[0]}` }, row.seed > 1 ? `${n} ${s}` : s), " "]));
  const { run } = row, share = run.step < run.max_steps ? ` ${Math.floor((100 * run.step) / run.max_steps)}%` : "";
  return el("span", {}, badge(run.status), share, run.broken ? el("span", { class: "note" }, ` ${run.broken} broken lines left out`) : null);
}

function cellOf(field) {
  return (cell) => {
    const row = cell.getRow().getData(), value = row[field];
    if (field === "status") return statusOf(row);
    if (field === "seed" && row.counts) return el("span", {}, `${row.seed} seed${row.seed > 1 ? "s" : ""}`);
    if (NUMBERS.has(field)) return el("span", {}, field === "seconds" || field === "step" ? number(value === undefined || value === null ? value : Math.round(value)) : number(value), row.spread?.[field] ? ` ± ${number(row.spread[field])}` : "");
    return shortened(String(value ?? ""), field === "why" ? 80 : 40);
  };
}

function nameCell(cell) {
  const row = cell.getRow().getData();
  if (row.counts) return el("span", {}, el("span", { "aria-hidden": "true" }, swatch(look(row.norm))), " ", shortened(row.name, 44));
  const picked = words(state.compare);
  return el("span", {}, el("input", { type: "checkbox", "aria-label": `compare ${row.name}`, checked: picked.includes(row.id),
    onchange: () => { address({ compare: words(toggled(state.compare, row.id)).slice(-2).join(",") }); details(); ticks(); } }), " ",
  el("a", { href: link({ view: "runs", run: row.id }), onclick: (e) => {  // a link, not a button: too narrow a column cuts its end only
    e.preventDefault();
    address({ run: row.id });
    details();
    document.getElementById("details").scrollIntoView({ block: "nearest" });
  } }, shortened(row.name, 42)));
}

function ticks() {
  const picked = words(state.compare);
  for (const box of document.querySelectorAll("#runs input[type=checkbox]")) {
    const row = tabulator.getRow(box.closest(".tabulator-row"))?.getData?.();
    if (row) box.checked = picked.includes(row.id);
  }
}

function details() {
  const run = byId.get(state.run), picked = words(state.compare);
  document.getElementById("details").replaceChildren(...[run ? detail(run) : null, picked.length ? compare(picked) : null].filter(Boolean));
}

function detail(run) {
  const facts = [["status", run.status + (run.why ? `: ${run.why}` : "")], ["studies", run.studies.join(", ") || "none"], ["step", `${number(run.step)} of ${number(run.max_steps)}`]];
  return el("section", { class: "card", id: "run" }, el("h3", {}, el("bdi", {}, run.name)), el("ul", {}, facts.map(([k, v]) => el("li", {}, `${k}: ${v}`)),
    run.dir ? el("li", {}, "raw rows: ", fileLink(`${run.dir}/metrics.jsonl`)) : el("li", {}, "its directory is gone; its row stands in ", (studyOf(run.studies[0])?.files ?? []).slice(0, 2).map((f) => [fileLink(f), " "])),
    /^https?:\/\//.test(run.url ?? "") ? el("li", {}, el("a", { href: run.url, rel: "noreferrer" }, "W&B")) : null),
  el("details", {}, el("summary", {}, `${Object.keys(run.config).length} settings`), el("ul", {}, Object.entries(run.config).map(([k, v]) => el("li", {}, el("code", {}, `${k}=${v}`))))),
  button("close", () => { address({ run: "" }); details(); }));
}

function runsView() {
  const now = state.study && (state.study === ALL || scopes().includes(state.study)) ? state.study : ALL, runs = chosen(now);
  const lost = /diverged|failed|cut off/.test(state.q), first = ["status", "why"];  // then why comes first
  const order = lost ? [...COLUMNS.filter(([c]) => first.includes(c)), ...COLUMNS.filter(([c]) => !first.includes(c))] : COLUMNS;
  const hidden = new Set(words(state.cols || HIDDEN)), quick = ["diverged", "failed", "running", "cut off"].filter((s) => data.runs.some((r) => inScope(r, now) && r.status === s));
  const place = el("div", { id: "runs" });
  place.start = () => {
    const [field, down] = state.sort.split(":"), known = field === "name" || COLUMNS.some(([c]) => c === field);
    const rows = rowsOf(runs, now);
    tabulator = new Tabulator(place, {
      data: rows, index: "id", layout: "fitDataStretch", height: Math.min(window.innerHeight * 0.75, 60 + 34 * (rows.length + Math.min(4, runs.length - rows.length + 1))), rowHeight: 34, renderVertical: "virtual", renderVerticalBuffer: 600,
      dataTree: Boolean(state.fold), dataTreeStartExpanded: (row) => unfolded.has(row.getData().key), dataTreeChildIndent: 16, dataTreeSort: true, placeholder: "No run fits; clear the filter.",
      initialSort: known ? [{ column: field, dir: down ? "desc" : "asc" }] : [], columnDefaults: { headerSortTristate: true, resizable: true, headerTooltip: false },
      columns: [{ title: "name", field: "name", formatter: nameCell, width: Math.min(360, innerWidth * 0.62), frozen: innerWidth > 900, sorter: "string" },
        ...order.filter(([c]) => !hidden.has(c) && !(c === "variant" && state.fold)).map(([field, title]) => ({ title, field, formatter: cellOf(field), sorter: NUMBERS.has(field) ? "number" : "string", sorterParams: { alignEmptyValues: "bottom" },
          hozAlign: NUMBERS.has(field) ? "right" : "left", maxInitialWidth: field === "place" ? 260 : 420, minWidth: field === "why" ? 160 : 40 }))],
    });
    tabulator.on("dataTreeRowExpanded", (row) => unfolded.add(row.getData().key));
    tabulator.on("dataTreeRowCollapsed", (row) => unfolded.delete(row.getData().key));
    tabulator.on("dataSorted", (sorters) => { const [s] = sorters; address({ sort: s ? `${s.field}${s.dir === "desc" ? ":down" : ""}` : "" }); });
    tabulator.on("rowClick", (e, row) => { if (row.getData().counts && !e.target.closest("button, input, a, .tabulator-data-tree-control")) row.treeToggle(); });
    tabulator.on("tableBuilt", () => {  // a grid holds row groups: what scrolls is one, the table in it is not another
      place.querySelector(".tabulator-tableholder").setAttribute("role", "rowgroup");
      place.querySelector(".tabulator-table").setAttribute("role", "presentation");
      place.dataset.built = String(Math.round(performance.now()));
    });
    details();
  };
  return [el("h2", {}, "Runs"), live(),
    el("div", { class: "controls" }, studyChoice("Runs of", now), filter(), check("fold seeds", "fold"), el("span", { id: "count", role: "status" }, `${runs.length} of ${data.runs.length} runs`),
      quick.map((s) => button(`${s} (${data.runs.filter((r) => inScope(r, now) && r.status === s).length})`, () => set({ q: state.q === s ? "" : s }), { id: `quick-${s.replace(" ", "-")}`, "aria-pressed": String(state.q === s) })),
      el("details", { class: "cols" }, el("summary", {}, "columns"), COLUMNS.map(([c, title]) => el("label", { class: "check" }, el("input", { type: "checkbox", id: `col-${c}`, checked: !hidden.has(c),
        onchange: () => set({ cols: toggled(state.cols || HIDDEN, c) || "none" }) }), title)))),
    note("Press a row to unfold its seeds. Tick two runs to see how their settings and results differ; press a name for all of it and its raw file."),
    el("div", { id: "details" }), place];
}

function compare(ids) {
  const runs = ids.map((id) => byId.get(id)).filter(Boolean);
  if (runs.length < 2) return note("Tick one more run.");
  const [a, b] = runs;
  const keys = [...new Set([...Object.keys(a.config), ...Object.keys(b.config)])].sort().filter((k) => (a.whole && b.whole) || (k in a.config && k in b.config));
  const partly = a.whole && b.whole ? null : note("Of a run whose directory is gone only the settings that were typed are known; the others are not compared.");
  const differing = keys.filter((k) => String(a.config[k] ?? "–") !== String(b.config[k] ?? "–"));
  const results = [...new Set([...Object.keys(a.final), ...Object.keys(b.final)])].sort();
  const row = (k, x, y) => el("tr", {}, el("th", { scope: "row" }, k), el("td", { class: "name" }, x), el("td", { class: "name" }, y));
  const end = (run, k) => (typeof run.final[k] === "number" ? number(run.final[k]) + (run.status === "finished" ? "" : ", the last") : String(run.final[k] ?? "–"));
  return el("section", { class: "card", id: "compare" }, el("h3", {}, `${differing.length} settings differ`), partly,
    scroll(el("table", {}, el("thead", {}, row("", shortened(a.name), shortened(b.name))),
      el("tbody", {}, differing.map((k) => row(k, String(a.config[k] ?? "–"), String(b.config[k] ?? "–"))),
        row("status", a.status, b.status), results.map((k) => row(`final ${k}`, end(a, k), end(b, k)))))),
    button("close", () => { address({ compare: "" }); details(); ticks(); }));
}
