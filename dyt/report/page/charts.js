"use strict";
// Charts: lines with bands, points with whiskers, and PNG and SVG of what is shown. The crosshair is in crosshair.js.

const charts = new Set(), DRAWN = 40_000, MANY = 60;  // points that one chart draws; lines from which on all of them are one series, drawn ten times as fast

function dispose() {
  for (const chart of charts) chart.dispose();
  charts.clear();
  linked.clear();
}
addEventListener("resize", () => charts.forEach((chart) => chart.resize()));

const DIVERGED = "path://M0,0L8,8M8,0L0,8";

function axisOf(name, axes, vertical) {
  const log = vertical ? axes.log : axes.logx;
  return {
    type: log ? "log" : "value", name: axes.small ? "" : name, nameLocation: "middle", scale: true, nameGap: vertical ? 52 : 28,
    axisLabel: { color: css("--soft"), hideOverlap: true, formatter: (v) => brief(v), ...(vertical ? { showMinLabel: axes.min === undefined, showMaxLabel: axes.max === undefined } : axes.cross === "tuning" ? { showMinLabel: false, showMaxLabel: false } : {}) },
    nameTextStyle: { color: css("--soft") }, splitLine: { lineStyle: { color: css("--grid") } },
    axisLine: { lineStyle: { color: css("--line") } }, minorSplitLine: { show: false }, splitNumber: axes.small ? 3 : 5,
    ...(!vertical && axes.xticks ? { axisLabel: { color: css("--soft"), hideOverlap: true, formatter: (v) => levelText(v), customValues: axes.xticks }, axisTick: { customValues: axes.xticks } } : {}),
    ...(vertical ? { min: axes.min, max: axes.max } : { min: axes.xmin, max: axes.xmax }),
  };
}

// A band; the axis makes room for all of it, but in a small chart, which is about the line.
const area = (line, small) => {
  const ends = small ? [line.points[0][1]] : [Math.min(...line.band.map((b) => b[1])), Math.max(...line.band.map((b) => b[2]))];
  return {
    type: "custom", silent: true, z: 1, clip: true, data: ends.map((y) => [line.points[0][0], y]),
    renderItem: ({ dataIndex }, api) => (dataIndex ? null : {
      type: "polygon", silent: true,
      shape: { points: [...line.band.map(([x, low]) => api.coord([x, low])), ...line.band.slice().reverse().map(([x, , high]) => api.coord([x, high]))] },
      style: { fill: line.colour, opacity: 0.17 },
    }),
  };
};

const whiskers = (line) => ({
  type: "custom", silent: true, z: 1, clip: true, data: line.bars,
  renderItem: (_, api) => {
    const [low, high] = [api.coord([api.value(0), api.value(1)]), api.coord([api.value(0), api.value(2)])];
    return { type: "line", silent: true, shape: { x1: low[0], y1: low[1], x2: high[0], y2: high[1] }, style: { stroke: line.colour, lineWidth: 2, opacity: 0.55 } };
  },
});

// Very many lines as one series; its data are the corners of what they cover.
function together(lines, thin) {
  const [low, high] = extent(lines), xs = lines.flatMap((l) => (l.points.length ? [l.points[0][0], l.points.at(-1)[0]] : [])).sort((a, b) => a - b), drawn = lines.map((line) => ({ line, points: thin(line) }));
  const dash = (d) => ({ solid: null, dashed: [6, 4], dotted: [2, 3] })[d] ?? (Array.isArray(d) ? d : null);
  return { type: "custom", silent: true, z: 2, clip: true, data: xs.length ? [[xs[0], low], [xs.at(-1), high]] : [],
    renderItem: ({ dataIndex }, api) => (dataIndex ? null : { type: "group", silent: true, children: drawn.map(({ line, points }) => ({ type: "polyline", silent: true, shape: { points: points.map((p) => api.coord(p)) },
      style: { stroke: line.colour, lineWidth: line.width ?? 1.2, lineDash: dash(line.dash), opacity: line.faint ? 0.4 : 0.8, fill: "none" } })) }) };
}

// lines: [{name, colour, dash, shape, width, faint, points: [[x, y]], raw, band, bars, about}]; marks: [{x, y, symbol, colour}]
// axes: {title, x, y, log, logx, min, max, refs: [{y, text}], small, ends, cross}
function drawing(lines, marks, axes, still) {
  const series = [], many = lines.reduce((a, l) => a + l.points.length, 0);
  const ends = axes.ends && !still && lines.length <= 10;
  const thin = (line) => (many > DRAWN ? sparse(line.points, Math.max(40, Math.floor((DRAWN * line.points.length) / many))) : line.points);
  if (lines.length > MANY) series.push(together(lines, thin));
  for (const line of lines.length > MANY ? [] : lines) {
    if (line.band?.length > 1) series.push(area(line, axes.small));
    if (line.bars?.length) series.push(whiskers(line));
    if (line.raw?.length) {
      series.push({ type: "custom", silent: true, z: 1, clip: true, data: [line.raw[0]], renderItem: (_, api) => ({ type: "polyline", silent: true,
        shape: { points: line.raw.map((p) => api.coord(p)) }, style: { stroke: line.colour, opacity: 0.3, lineWidth: 1, fill: "none" } }) });
    }
    const few = line.points.length <= 24 && !line.faint;
    series.push({
      type: "line", name: line.name, data: thin(line), showSymbol: few || Boolean(line.dots), silent: true,
      symbol: line.dots ? "circle" : line.shape ?? "circle", symbolSize: line.dots || (line.points.length < 2 ? 8 : 6), z: line.faint ? 1 : 2,
      lineStyle: { color: line.colour, type: line.dash ?? "solid", width: line.width ?? 1.8, opacity: line.faint ? 0.5 : 1 },
      itemStyle: { color: line.colour },
      endLabel: ends && line.label && !line.short ? { show: true, formatter: line.label, color: line.colour, fontSize: 12, distance: line.star ? 12 : 6, offset: [0, line.down ?? 0], width: 150, overflow: "truncate" } : undefined,
    });
  }
  if (axes.refs?.length && series.length) {
    (series.find((s) => s.type === "line") ?? series[0]).markLine = { silent: true, symbol: "none", animation: false,
      data: axes.refs.map((ref) => ({ yAxis: ref.y, label: { formatter: ref.text, position: "insideStartTop", color: css("--text"), fontSize: 11 } })),
      lineStyle: { color: css("--text"), type: [2, 4], width: 1.2 } };
  }
  if (marks.length) {
    const inside = (y) => Math.max(axes.min ?? -Infinity, Math.min(y, axes.max ?? Infinity));  // one that left the chart is marked at its edge
    series.push({ type: "scatter", silent: true, z: 4, data: marks.map((m) => ({ value: [m.x, inside(m.y)], symbol: m.symbol ?? DIVERGED, symbolSize: m.size ?? 11,
      itemStyle: m.colour ? { color: m.colour, borderColor: css("--text"), borderWidth: 1 } : { color: "none", borderColor: css("--bad"), borderWidth: 2 } })) });
  }
  return {
    animation: false, backgroundColor: still ? css("--back") : "transparent",
    textStyle: { color: css("--text"), fontFamily: "system-ui, sans-serif" },
    title: still ? { text: still, left: 8, top: 4, textStyle: { fontSize: 13, color: css("--text") } } : undefined,
    legend: still ? { top: 26, data: [...new Set(lines.map((l) => l.name))], textStyle: { color: css("--text") }, type: "scroll" } : undefined,
    grid: { left: axes.small ? 44 : 66, right: ends ? 168 : 16, top: still ? 64 : 14, bottom: axes.small ? 24 : 44 },
    xAxis: axisOf(axes.x, axes, false), yAxis: axisOf(axes.y, axes, true),
    aria: { enabled: true, label: { description: `${axes.title}: ${axes.y} over ${axes.x}, ${lines.length} lines` } },
    dataZoom: still || axes.small ? undefined : [{ type: "inside", filterMode: "none", zoomOnMouseWheel: "shift" }],
    series,
  };
}

// Any ECharts picture in a frame with its title and downloads; make(still) gives its options.
function picture(title, about, make, { height = "", after = () => {}, extra = null, small = false } = {}) {
  const place = el("div", { class: small ? "plot small" : "plot", style: height && `height:${height}` },
    el("div", { class: "canvas", role: "img", "aria-label": about }));
  place.start = () => {
    const made = echarts.init(place.firstChild, null, { renderer: "canvas" });
    charts.add(made);
    made.setOption(make(null, place.clientWidth));
    after(made, place);
  };
  const save = el("div", { class: "controls tight" }, ["png", "svg"].map((kind) => button(kind.toUpperCase(), () => image(title, make, kind),
    { class: kind, "aria-label": `${kind.toUpperCase()} of ${title}` })));
  return el("section", { class: "facet" }, el("h3", { title }, title), place, extra, small ? null : save);
}

// Moves labels at the ends of lines apart, so that each can be read; whether any had to move.
function apart(made, lines) {
  const ends = lines.filter((l) => l.label && !l.short && l.points.length).map((line) => ({ line, y: made.convertToPixel({ gridIndex: 0 }, line.points.at(-1))[1] })).sort((a, b) => a.y - b.y);
  let below = -Infinity, moved = false;
  for (const end of ends) {
    const y = Math.max(end.y, below + 14);
    end.line.down = y - end.y;
    moved ||= end.line.down > 0;
    below = y;
  }
  return moved;
}

function chart(lines, marks, axes) {
  const cut = [axes.max !== undefined && axes.cutHigh ? `above ${brief(axes.max)}` : "", axes.min !== undefined && axes.cutLow ? `below ${brief(axes.min)}` : ""].filter(Boolean);
  const extra = cut.length && !axes.small ? note(`Not shown: what is ${cut.join(" and ")}.${Object.hasOwn(UNITS, axes.cross) ? ' "log y" shows all of it.' : ""}`) : null;
  return picture(axes.title, `${axes.title}: ${axes.y} over ${axes.x}`, (still, wide) => drawing(lines, marks, { ...axes, ends: axes.ends && wide > 620 }, still),
    { after: (made, place) => {
      if (axes.ends && place.clientWidth > 620 && apart(made, lines)) made.setOption(drawing(lines, marks, axes), true);
      hover(made, place, lines, axes);
    }, extra, small: axes.small });
}

function image(title, make, kind) {
  const size = { width: 1000, height: 620, devicePixelRatio: 2 };
  const place = el("div", { style: "width:1000px;height:620px;position:fixed;left:-2000px" });
  document.body.append(place);
  const made = echarts.init(place, null, { renderer: kind === "svg" ? "svg" : "canvas", ...size });
  made.setOption(make(title, 1000));
  const name = `${title.replace(/[^A-Za-z0-9._-]+/g, "_").slice(0, 60)}.${kind}`;
  if (kind === "svg") download(name, made.renderToSVGString(), "image/svg+xml");
  else download(name, made.getDataURL({ type: "png", pixelRatio: 2 }), "image/png");
  made.dispose();
  place.remove();
}
