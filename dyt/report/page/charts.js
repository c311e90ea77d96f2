"use strict";
// Charts: lines with bands, hover by our own search for the nearest point, and PNG, SVG and CSV of what is shown.

const charts = new Set();
const DASHES = ["solid", "dashed", "dotted", [8, 3, 2, 3], [12, 4]];

function dispose() {
  for (const chart of charts) chart.dispose();
  charts.clear();
}
addEventListener("resize", () => charts.forEach((chart) => chart.resize()));

// lines: [{name, colour, dash, width, faint, points: [[x, y]], band: [[x, low, high]], about}]; marks: [{x, y, name}]
function options(lines, marks, axes, still) {
  const axis = (about, log) => ({
    type: log ? "log" : "value", name: about, nameLocation: "middle", scale: true, nameGap: about === axes.y ? 52 : 28,
    axisLabel: { color: css("--soft"), hideOverlap: true, formatter: (v) => brief(v) },
    nameTextStyle: { color: css("--soft") }, splitLine: { lineStyle: { color: css("--grid") } },
    axisLine: { lineStyle: { color: css("--line") } }, minorSplitLine: { show: false },
  });
  const series = [];
  for (const line of lines) {
    if (line.band?.length > 1) {
      series.push({
        type: "custom", silent: true, z: 1, data: [line.points[0]], clip: true,
        renderItem: (_, api) => ({
          type: "polygon", silent: true,
          shape: { points: [...line.band.map(([x, low]) => api.coord([x, low])),
            ...line.band.slice().reverse().map(([x, , high]) => api.coord([x, high]))] },
          style: { fill: line.colour, opacity: 0.17 },
        }),
      });
    }
    series.push({
      type: "line", name: line.name, data: line.points, showSymbol: line.points.length < 2 || Boolean(line.dots), silent: true,
      symbolSize: line.dots || 6, z: line.faint ? 1 : 2, lineStyle: { color: line.colour, type: line.dash ?? "solid",
        width: line.width ?? 1.8, opacity: line.faint ? 0.35 : 1 },
      itemStyle: { color: line.colour },
    });
  }
  if (marks.length) {
    const top = axes.max ?? Infinity;  // a run that left the chart is marked at its edge
    series.push({ type: "scatter", data: marks.map((m) => [m.x, Math.min(m.y, top)]), symbol: "path://M0,0L8,8M8,0L0,8", symbolSize: 11,
      silent: true, z: 3, itemStyle: { color: "none", borderColor: css("--bad"), borderWidth: 2 } });
  }
  return {
    animation: false, backgroundColor: still ? css("--back") : "transparent",
    textStyle: { color: css("--text"), fontFamily: "system-ui, sans-serif" },
    title: still ? { text: still, left: 8, top: 4, textStyle: { fontSize: 13, color: css("--text") } } : undefined,
    legend: still ? { top: 26, data: [...new Set(lines.map((l) => l.name))], textStyle: { color: css("--text") },
      type: "scroll" } : undefined,
    grid: { left: 66, right: 16, top: still ? 64 : 12, bottom: 44 },
    xAxis: axis(axes.x, axes.logx), yAxis: { ...axis(axes.y, axes.log), max: axes.max },
    aria: { enabled: true, label: { description: `${axes.title}: ${axes.y} over ${axes.x}, ${lines.length} lines` } },
    dataZoom: still ? undefined : [{ type: "inside", filterMode: "none", zoomOnMouseWheel: "shift" }],
    series,
  };
}

function brief(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${+(value / 1e9).toPrecision(3)}G`;
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return size && size < 1e-3 ? value.toExponential(0) : String(+value.toPrecision(4));
}

function chart(lines, marks, axes) {
  const place = el("div", { class: "plot", role: "img", "aria-label": `${axes.title}: ${axes.y} over ${axes.x}` });
  place.start = () => {
    const made = echarts.init(place, null, { renderer: "canvas" });
    charts.add(made);
    made.setOption(options(lines, marks, axes));
    hover(made, place, lines);
  };
  const save = el("div", { class: "controls" },
    el("button", { type: "button", class: "png", onclick: () => image(lines, marks, axes, "png") }, "PNG"),
    el("button", { type: "button", class: "svg", onclick: () => image(lines, marks, axes, "svg") }, "SVG"));
  const cut = axes.max !== undefined ? el("p", { class: "note" }, `What is above ${brief(axes.max)} is cut off; log y shows it.`) : null;
  return el("section", { class: "facet" }, el("h3", {}, axes.title), place, cut, save);
}

function image(lines, marks, axes, kind) {
  const size = { width: 1000, height: 620, devicePixelRatio: 2 };
  const place = el("div", { style: "width:1000px;height:620px;position:fixed;left:-2000px" });
  document.body.append(place);
  const made = echarts.init(place, null, { renderer: kind === "svg" ? "svg" : "canvas", ...size });
  made.setOption(options(lines, marks, axes, axes.title));
  const name = `${axes.title.replace(/[^A-Za-z0-9._-]+/g, "_").slice(0, 60)}.${kind}`;
  if (kind === "svg") download(name, made.renderToSVGString(), "image/svg+xml");
  else download(name, made.getDataURL({ type: "png", pixelRatio: 2 }), "image/png");
  made.dispose();
  place.remove();
}

// The nearest point within 40 pixels: a binary search in each line's neighbourhood of x.
function hover(made, place, lines) {
  const tip = document.getElementById("tip");
  made.getZr().on("mousemove", (e) => {
    const [x] = made.convertFromPixel({ gridIndex: 0 }, [e.offsetX, e.offsetY]);
    let best = null;
    for (const line of lines) {
      const points = line.points;
      let low = 0, high = points.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (points[middle][0] < x) low = middle + 1; else high = middle;
      }
      for (const i of [low - 1, low, low + 1]) {
        if (!points[i]) continue;
        const [px, py] = made.convertToPixel({ gridIndex: 0 }, points[i]);
        const far = Math.hypot(px - e.offsetX, py - e.offsetY);
        if (far < 40 && (!best || far < best.far)) best = { far, line, point: points[i], i };
      }
    }
    tip.hidden = !best;
    if (!best) return;
    tip.replaceChildren(...best.line.about(best.point, best.i).map((text) => el("div", {}, text)));
    const box = place.getBoundingClientRect();
    const left = Math.min(box.left + e.offsetX + 14, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${Math.min(box.top + e.offsetY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  });
  made.getZr().on("globalout", () => { tip.hidden = true; });
}
