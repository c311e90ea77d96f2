"use strict";
// What is under way: how far each study and run is, how long it still takes, and what became of runs since the page was opened.

const seen = new Set();  // ids of runs that were running at some time while this page was open

const left = (run) => (run.max_steps && run.step ? (run.max_steps - run.step) * (run.wall_s / run.step) : NaN);
const gone = (run) => ["diverged", "failed"].includes(run.status);
const ended = (run) => run.status !== "running";

function live() {
  for (const run of data.runs) if (!ended(run)) seen.add(run.id);
  const shown = data.runs.filter((r) => seen.has(r.id)), begun = data.studies.filter((s) => s.under_way).map((s) => `${s.name}/${s.scale}`);
  const groups = Map.groupBy(shown, (r) => r.studies[0] ?? (String(r.config.tag ?? "") || r.model));
  for (const scope of begun) if (!groups.has(scope)) groups.set(scope, []);
  if (!groups.size) return null;
  const running = shown.filter((r) => !ended(r)).length;
  return el("section", { class: "card", id: "live", "aria-label": "Under way" },
    el("h3", {}, running ? `${running} run${running > 1 ? "s" : ""} going on` : "Nothing is running now"), [...groups].map(([of, own]) => group(of, own)));
}

// A study, or runs that share a tag or model: its progress, then its runs, those that diverged first.
function group(of, own) {
  const study = studyOf(of), all = study ? data.runs.filter((r) => r.studies.includes(of)) : own;
  const done = all.filter((r) => r.status === "finished" || gone(r)), lost = all.filter(gone).length, now = own.filter((r) => !ended(r));
  const head = el("p", { class: "going" }, study ? el("a", { href: link({ view: "curves", study: of }) }, of) : el("bdi", {}, of),
    study ? [el("progress", { max: study.asked, value: done.length, "aria-label": `${of}: runs done` }), ` ${done.length} of ${study.asked} runs are done`, rest(study, done, now)] : ` ${done.length} of ${all.length} done`,
    lost ? [" ", el("span", { class: "badge diverged" }, `${lost} diverged or failed`)] : null);
  const order = [...own].sort((a, b) => gone(b) - gone(a) || ended(a) - ended(b) || (left(a) || 0) - (left(b) || 0));
  return el("div", { class: "group" }, head, order.slice(0, 12).map(going), order.length > 12 ? note(`and ${order.length - 12} more`) : null);
}

// How long the rest of a study takes, as many runs at a time as there are now.
function rest(study, done, now) {
  const times = done.map((r) => r.wall_s).filter((v) => v > 0), waiting = study.asked - done.length - now.length;
  if (!times.length || !now.length) return "";
  const seconds = now.reduce((sum, r) => sum + (left(r) || 0), 0) + Math.max(0, waiting) * interval(times).mean;
  return `, about ${span(seconds / now.length)} left`;
}

function going(run) {
  const [, own] = Object.entries(run.in)[0] ?? [], last = run.final[run.metric];
  const value = last === undefined ? "" : `, ${run.metric} ${number(last)}`;
  const name = el("a", { href: link({ view: "runs", run: run.id, fold: "" }), title: run.name }, shortened(`${own?.variant ?? run.norm}, seed ${run.seed}`, 60));
  if (ended(run)) return el("div", { class: "going" }, name, " ", badge(run.status), gone(run) ? el("span", { class: run.status }, ` at step ${number(run.step)}: ${run.why || "no reason given"}`) : value);
  return el("div", { class: "going" }, name, el("progress", { max: run.max_steps || 1, value: run.step, "aria-label": `${run.name}: progress` }),
    ` step ${number(run.step)}${run.max_steps ? ` of ${number(run.max_steps)}` : ""}${value}${left(run) >= 0 ? `, ${span(left(run))} left` : ""}`);
}

// scripts/report.py --watch: new points are taken in without loading the page again, so view, scroll and focus stay.
async function takeIn() {
  const text = await fetch("data.js").then((r) => r.text());
  data = JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1));
  byId = new Map(data.runs.map((run) => [run.id, run]));
  headline();
  render();
}

function watch() {
  if (!data.version || !location.protocol.startsWith("http")) return;
  setInterval(async () => {
    const now = await fetch("version.txt").then((r) => r.text()).catch(() => "");
    if (now && now.trim() !== data.version) await takeIn().catch(() => {});  // half-way written: the next look has it
  }, 2000);
}
