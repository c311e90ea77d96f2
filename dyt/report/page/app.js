"use strict";
// What holds the page together: navigation, theme, what is running now, and taking in new points while it is watched.

const VIEWS = { answer: ["Answer", answerView], curves: ["Curves", curvesView], tuning: ["Tuning", tuningView], layers: ["Layers", layersView],
  runs: ["Runs", runsView], studies: ["Studies", studiesView] };

// What is running, how far it is and how long it still takes; a run of it that diverged is red.
function live() {
  const running = data.runs.filter((r) => r.status === "running");
  if (!running.length) return null;
  const groups = Map.groupBy(running, (r) => String(r.config.tag ?? "") || r.model);
  return el("section", { class: "card", id: "live", "aria-label": "Running now" }, el("h3", {}, `${running.length} running now`), [...groups].map(([tag, own]) => {
    const together = data.runs.filter((r) => r.whole && (String(r.config.tag ?? "") || r.model) === tag), gone = together.filter((r) => r.status === "diverged").length;
    const study = data.studies.find((s) => s.name === tag), done = together.filter((r) => r.status !== "running").length;
    return el("div", {}, el("p", {}, `${tag}: ${done} done${study ? ` of ${study.asked} that the study asks for at ${study.scale} scale` : ""} `, gone ? el("span", { class: "badge diverged" }, `${gone} diverged`) : null),
      own.slice(0, 8).map((r) => el("div", { class: "going" }, shortened(r.name, 60), el("progress", { max: r.max_steps || 1, value: r.step, "aria-label": `${r.name}: progress` }),
        ` ${number(r.step)} of ${number(r.max_steps)} steps, ${span((r.max_steps - r.step) * (r.wall_s / (r.step || 1)))} left`)));
  }));
}

function render() {
  const view = Object.hasOwn(VIEWS, state.view) ? state.view : "answer";
  document.getElementById("tip").hidden = true;
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const focus = document.activeElement?.id, at = document.activeElement?.selectionStart, y = scrollY;
  const rolled = document.querySelector(".tabulator-tableholder")?.scrollTop ?? 0;
  dispose();
  tabulator?.destroy();
  tabulator = null;
  const kept = state.study ? { study: state.study } : {};
  document.getElementById("views").replaceChildren(...Object.entries(VIEWS).map(([key, [name]]) => el("a", {
    id: `view-${key}`, href: `#view=${key}`, "aria-current": key === view ? "page" : null,
    onclick: (e) => { e.preventDefault(); history.pushState(null, "", link({ view: key, ...kept, ...(state.theme ? { theme: state.theme } : {}) })); read(); render(); scrollTo(0, 0); } }, name)));
  const theme = document.getElementById("theme");
  theme.textContent = dark ? "light" : "dark";
  theme.setAttribute("aria-label", `Switch to ${theme.textContent} colours`);
  theme.onclick = () => set({ theme: dark ? "light" : "dark" });
  const main = document.getElementById("main");
  main.replaceChildren(...[VIEWS[view][1]()].flat(4).filter(Boolean));
  main.querySelectorAll(".plot, #runs").forEach((place) => place.start());
  const again = focus && document.getElementById(focus);
  if (again) {
    again.focus({ preventScroll: true });
    if (at !== undefined && at !== null) again.setSelectionRange?.(at, at);
  }
  scrollTo(0, y);
  if (rolled) tabulator?.on("tableBuilt", () => { document.querySelector(".tabulator-tableholder").scrollTop = rolled; });
  document.documentElement.dataset.drawn = String(Math.round(performance.now()));
  requestAnimationFrame(() => requestAnimationFrame(() => {  // the charts draw in the first frame after this
    document.documentElement.dataset.painted = String(Math.round(performance.now()));
  }));
}

function headline() {
  document.getElementById("made").textContent = `${data.runs.length} runs, ${new Set(data.studies.map((s) => s.name)).size} studies`
    + (data.left_out ? `, ${data.left_out} damaged runs left out` : "") + `; made ${data.made.slice(0, 16)}`;
}

headline();
read();
addEventListener("hashchange", () => { const before = state.view + state.study; read(); if (state.study) remember(state.study); render(); if (before !== state.view + state.study) scrollTo(0, 0); });
addEventListener("popstate", () => { read(); render(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
render();

// scripts/report.py --watch: new points are taken in without loading the page again, so view, scroll and focus stay.
async function takeIn() {
  const text = await fetch("data.js").then((r) => r.text());
  data = JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1));
  byId = new Map(data.runs.map((run) => [run.id, run]));
  headline();
  render();
}

if (data.version && location.protocol.startsWith("http")) {
  setInterval(async () => {
    const now = await fetch("version.txt").then((r) => r.text()).catch(() => "");
    if (now && now.trim() !== data.version) await takeIn().catch(() => {});  // half-way written: the next look has it
  }, 2000);
}
