"use strict";
// What holds the page together: navigation, theme, and drawing the view that the address asks for.

const VIEWS = { answer: ["Answer", answerView], curves: ["Curves", curvesView], tuning: ["Tuning", tuningView], layers: ["Layers", layersView],
  runs: ["Runs", runsView], studies: ["Studies", studiesView] };

// Charts that nobody sees yet are drawn one by one, after those that are seen; a new turn ends the one before.
let turn = 0;
function inTime(places, mine) {
  setTimeout(() => {
    if (mine !== turn || !places.length) return;
    places[0].start();
    inTime(places.slice(1), mine);
  });
}

function render() {
  const view = Object.hasOwn(VIEWS, state.view) ? state.view : "answer";
  document.getElementById("tip").hidden = true;
  const dark = state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const focus = document.activeElement?.id, at = document.activeElement?.selectionStart, y = scrollY;
  const rolled = document.querySelector(".tabulator-tableholder")?.scrollTop ?? 0;
  const mine = ++turn;
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
  const below = [...main.querySelectorAll(".plot, #runs")].filter((place) => {
    const far = place.getBoundingClientRect().top + scrollY > y + innerHeight + 200;
    if (!far) place.start();
    return far;
  });
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
    inTime(below, mine);
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
watch();
