"use strict";
// The crosshair: one place on the x-axis in all linked charts at once, by mouse or by the arrow keys; and what lies nearest.

const linked = new Map();  // chart -> {place, lines, axes, bar, box, keys}

const nearest = (points, x) => {
  let low = 0, high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1; else high = middle;
  }
  return low > 0 && Math.abs(points[low - 1][0] - x) <= Math.abs(points[low][0] - x) ? low - 1 : low;
};

// What each named line has at x, highest first; lines that do not reach x are left out.
function valuesAt(lines, x) {
  return lines.filter((l) => l.label && !l.faint && l.points.length && x >= l.points[0][0] - 1e-9 && x <= l.points.at(-1)[0] + 1e-9)
    .map((l) => ({ line: l, y: l.points[nearest(l.points, x)][1] })).sort((a, b) => b.y - a.y);
}

const said = (axes, x, found) => `${axes.x} ${number(x)}: ${found.map(({ line, y }) => `${line.label} ${number(y)}`).join(", ") || "no value"}`;

function cross(x, kind) {
  for (const [made, { place, lines, axes, bar, box, keys }] of linked) {
    if (kind !== undefined && axes.cross !== kind) continue;
    const found = x === null ? [] : valuesAt(lines, x);
    const at = x === null ? NaN : made.convertToPixel({ xAxisIndex: 0 }, x);
    const shown = Number.isFinite(at) && at >= 0 && at <= place.clientWidth;
    bar.hidden = box.hidden = !shown;
    if (!shown) continue;
    bar.style.left = `${at}px`;
    box.classList.toggle("right", at < place.clientWidth / 2);
    box.replaceChildren(el("div", {}, `${axes.x} ${number(x)}`), ...found.slice(0, 10).map(({ line, y }) => el("div", {},
      swatch(line), el("span", {}, line.label), el("b", {}, number(y)))));
    keys.setAttribute("aria-valuenow", String(x));
    keys.setAttribute("aria-valuetext", said(axes, x, found));
  }
}

function attach(made, place, lines, axes) {
  const grid = [...new Set(lines.filter((l) => l.label && !l.faint).reduce((a, l) => (l.points.length > a.length ? l.points : a), []).map((p) => p[0]))];
  const bar = el("div", { class: "bar", hidden: true }), box = el("div", { class: "read", hidden: true });
  let i = grid.length - 1;
  const keys = el("div", { class: "keys", role: "slider", tabindex: 0, "aria-label": `Crosshair of ${axes.title}: arrow keys move it`,
    "aria-valuemin": String(grid[0] ?? 0), "aria-valuemax": String(grid.at(-1) ?? 0), "aria-valuenow": String(grid.at(-1) ?? 0), "aria-valuetext": "not placed",
    onblur: () => cross(null, axes.cross), onfocus: () => grid.length && cross(grid[i], axes.cross),
    onkeydown: (e) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity }[e.key];
      if (by === undefined || !grid.length) return;
      e.preventDefault();
      i = Math.max(0, Math.min(grid.length - 1, i + by));
      cross(grid[i], axes.cross);
    } });
  place.append(bar, box, keys);
  linked.set(made, { place, lines, axes, bar, box, keys });
}

// The crosshair, and the point within 40 pixels that the pointer is at.
function hover(made, place, lines, axes) {
  const tip = document.getElementById("tip");
  if (axes.cross) attach(made, place, lines, axes);
  made.getZr().on("mousemove", (e) => {
    const [x] = made.convertFromPixel({ gridIndex: 0 }, [e.offsetX, e.offsetY]);
    if (axes.cross) {
      const longest = lines.filter((l) => l.label && !l.faint).reduce((a, l) => (l.points.length > a.length ? l.points : a), []);
      cross(made.containPixel({ gridIndex: 0 }, [e.offsetX, e.offsetY]) && longest.length ? longest[nearest(longest, x)][0] : null, axes.cross);
    }
    let best = null;
    for (const line of lines) {
      const points = line.points;
      if (!points.length || !line.about) continue;
      const at = nearest(points, x);
      for (const i of [at - 1, at, at + 1]) {
        if (!points[i]) continue;
        const [px, py] = made.convertToPixel({ gridIndex: 0 }, points[i]);
        const far = Math.hypot(px - e.offsetX, py - e.offsetY);
        if (far < (axes.cross ? 14 : 40) && (!best || far < best.far)) best = { far, line, point: points[i], i };
      }
    }
    tip.hidden = !best;
    if (!best) return;
    tip.replaceChildren(...best.line.about(best.point, best.i).map((text) => el("div", {}, text)));
    const box = place.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(box.left + e.offsetX + 14, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.min(box.top + e.offsetY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  });
  made.getZr().on("globalout", () => { tip.hidden = true; if (axes.cross) cross(null, axes.cross); });
}
