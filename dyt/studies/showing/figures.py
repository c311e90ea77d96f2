"""figure.png of a study: panels named in its file, drawn from runs.csv and curves.parquet alone.

curves   a metric over steps, mean and range over seeds          {kind, metric, hue, where, log}
lines    final values over a factor's levels, mean and interval  {kind, x, hue, where, log_x}
isolation  lines over the searched factor, each arm's best marked  {kind, hue, where}
heat     final values over two factors                           {kind, x, y, where}
layers   a probe's statistic by layer, at its last step          {kind, statistic, hue, where}
time     a probe's statistic over steps, a line per layer        {kind, statistic, where}
scatter  alpha against 1 / std of the input, a point per layer   {kind, hue, where}
scurve   what trained norms do to their inputs                   (dyt/studies/scurve.py)
"""

import math
from functools import partial
from pathlib import Path

import pandas as pd

from dyt.rundir.files import replace_file
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.rules import asked
from dyt.studies.judging.search import searched
from dyt.studies.running.study import Study
from dyt.studies.showing.words import UNITS
from dyt.studies.statistics import interval

# Okabe and Ito's colours, one per norm everywhere; variants of a norm differ by line and marker.
COLOURS = {
    "layernorm": "#0072B2", "rmsnorm": "#56B4E9", "dyt": "#D55E00", "derf": "#CC79A7", "none": "#777777",
    "batchnorm": "#009E73", "fixup": "#009E73", "skipinit": "#E69F00", "sigma": "#000000", "hardtanh": "#E69F00",
    "sigmoid": "#009E73", "isru": "#56B4E9", "identity": "#777777", "erf": "#CC79A7", "tanh": "#D55E00",
}  # fmt: skip
OTHERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vPX*"


def styles(labels: list[str]) -> dict[str, dict]:
    """Colour, dash and marker of each label: a norm's own colour where its name begins with one."""
    found, used = {}, {}
    for i, label in enumerate(labels):
        norm = next((n for n in sorted(COLOURS, key=len, reverse=True) if label.startswith(n)), None)
        colour = COLOURS[norm] if norm else OTHERS[i % len(OTHERS)]
        variant = used[colour] = used.get(colour, -1) + 1
        found[label] = {"color": colour, "ls": DASHES[variant % 4], "marker": MARKERS[variant % 8], "ms": 4}
    return found


def draw(study: Study, scale: str, rows: list[dict], curves: pd.DataFrame, folder: Path, folders: dict) -> None:
    """Writes ``folder/figure.png``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    about = asked(study, scale, rows)
    panels = [p for p in study.figures if scale in p.get("scales", [scale])]
    if any(p["kind"] == "scurve" for p in panels):
        from dyt.studies.showing.scurve import draw as draw_scurve

        draw_scurve(study, about, folder, folders)
        return
    across = min(3, len(panels)) or 1
    down = math.ceil(len(panels) / across) or 1
    figure, axes = plt.subplots(down, across, figsize=(5.2 * across, 4.2 * down), layout="constrained", squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        PANELS[panel["kind"]](axis, study, panel, about, curves)
        axis.set_title(panel.get("title", ""), fontsize=10)
        if panel["kind"] != "heat":
            axis.grid(alpha=0.25)
        if not axis.has_data():
            axis.text(0.5, 0.5, "not run", ha="center", va="center", transform=axis.transAxes)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    seeds = len({r["seed"] for r in rows})
    figure.suptitle(f"{study.name}, {scale} scale, {seeds} seed{'s' if seeds > 1 else ''}", fontsize=11)
    replace_file(folder / "figure.png", partial(figure.savefig, format="png", dpi=100))
    plt.close(figure)


def _hues(panel: dict, rows: list[dict]) -> list[str]:
    hue = panel.get("hue")
    return list(dict.fromkeys(r.get(hue) or "" for r in rows)) if hue else [""]


def _of(panel: dict, about: Rows, label: str) -> dict:
    where = {k: [str(x) for x in v] if isinstance(v, list) else str(v) for k, v in (panel.get("where") or {}).items()}
    return {**where, **({panel["hue"]: label} if panel.get("hue") else {})}


def _curves(axis, study, panel, about, curves):
    metric = panel.get("metric", study.metric)
    labels = _hues(panel, about.of(_of({**panel, "hue": None}, about, "")))
    shown = []
    for label, style in styles(labels).items():
        rows = about.at_best(_of(panel, about, label))
        part = curves[curves["run"].isin([r["config_hash"] for r in rows]) & (curves["metric"] == metric)]
        if part.empty:
            continue
        grouped = part.groupby("step")["value"]
        mean, low, high = grouped.mean(), grouped.min(), grouped.max()
        full = grouped.count() == grouped.count().max()
        mean, low, high = mean[full], low[full], high[full]
        gone = sum(about.value(r) is None for r in rows)
        marker = style["marker"] if len(mean) < 25 else None
        axis.plot(
            mean.index, mean, label=label + (f" ({gone} diverged)" if gone else ""), **{**style, "marker": marker}
        )
        axis.fill_between(mean.index, low, high, color=style["color"], alpha=0.15, lw=0)
        shown += mean[mean.index >= 0.15 * mean.index.max()].tolist()
    if shown and not panel.get("free"):
        pad = 0.06 * (max(shown) - min(shown) or 1)
        axis.set_ylim(min(shown) - pad, max(shown) + pad)
    unit = panel.get("unit", "nats" if metric.endswith("loss") and about.metric not in UNITS else "")
    axis.set(xlabel="step", ylabel=metric + (f" ({unit})" if unit else ""))
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, title=panel.get("hue"))


def _lines(axis, study, panel, about, curves):
    x, metric = panel["x"], panel.get("metric", "final")
    rows = about.of(_of({**panel, "hue": None}, about, ""))
    levels = list(dict.fromkeys(r[x] for r in rows if r.get(x)))
    numeric = all(_number(v) is not None for v in levels)
    if numeric:
        levels.sort(key=float)
    crosses = False
    for label, style in styles(_hues(panel, rows)).items():
        at, means, errors, gone = [], [], [], []
        for i, level in enumerate(levels):
            values = about.values({**_of(panel, about, label), x: level}, metric)
            place = float(level) if numeric else i
            fine = [v for v in values.values() if v is not None]
            if values and len(fine) < len(values):
                gone.append(place)
            if fine:
                found = interval(fine)
                at.append(place), means.append(found.mean)
                errors.append((found.high - found.low) / 2 if found.low is not None else 0)
        if at:
            axis.errorbar(at, means, errors, capsize=2, label=label, **style)
        crosses |= bool(gone)
        for place in gone:
            axis.plot(place, 0.97, "x", color=style["color"], ms=9, mew=2, transform=axis.get_xaxis_transform())
    if numeric and panel.get("log_x"):
        axis.set_xscale("log")
    if numeric:
        axis.set_xticks([float(v) for v in levels], levels)
        axis.minorticks_off()
    else:
        axis.set_xticks(range(len(levels)), levels, rotation=20)
    axis.set(
        xlabel=x + "   (x at the top: diverged runs)" * crosses,
        ylabel=f"{study.metric if metric == 'final' else metric}, final",
    )
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, title=panel.get("hue"))


def _isolation(axis, study, panel, about, curves):
    """Loss against the searched factor for every arm: a best at either end was not searched far enough."""
    _lines(axis, study, {**panel, "x": study.search, "log_x": True}, about, curves)
    labels = _hues(panel, about.of(_of({**panel, "hue": None}, about, "")))
    for label, style in styles(labels).items():
        found = searched(about, {label: _of(panel, about, label)})
        if not found or len(found[0].levels) < 2 or _number(found[0].chosen) is None:
            continue
        best = found[0].chosen
        values = about.values({**_of(panel, about, label), study.search: best})
        fine = [v for v in values.values() if v is not None]
        if fine:
            axis.plot(float(best), sum(fine) / len(fine), "*", color=style["color"], ms=13, mec="black", zorder=3)
    axis.set_xlabel(f"{axis.get_xlabel()}; star: best".lstrip())


def _heat(axis, study, panel, about, curves):
    x, y = panel["x"], panel["y"]
    rows = about.of(_of({**panel, "hue": None}, about, ""))
    columns = list(dict.fromkeys(r[x] for r in rows if r.get(x)))
    lines = list(dict.fromkeys(r[y] for r in rows if r.get(y)))
    grid, texts = [[math.nan] * len(columns) for _ in lines], []
    for i, line in enumerate(lines):
        for j, column in enumerate(columns):
            values = about.values(
                {**_of({**panel, "hue": None}, about, ""), x: column, y: line}, panel.get("metric", "final")
            )
            fine = [v for v in values.values() if v is not None]
            if fine:
                grid[i][j] = sum(fine) / len(fine)
            gone = len(values) - len(fine)
            text = (f"{grid[i][j]:.3g}" if fine else "") + (f"\n{gone}/{len(values)} diverged" if gone else "")
            texts.append((j, i, text.strip()))
    axis.imshow(grid, cmap="viridis" if study.higher_is_better else "viridis_r", aspect="auto")
    for j, i, text in texts:
        axis.text(
            j, i, text, ha="center", va="center", fontsize=8, bbox={"fc": "white", "alpha": 0.7, "lw": 0, "pad": 1}
        )
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(lines)), lines)
    axis.set(xlabel=x, ylabel=y)


def _probe(curves: pd.DataFrame, rows: list[dict], statistic: str) -> pd.DataFrame:
    if curves.empty:
        return curves.assign(layer=[], statistic=[])
    part = curves[curves["run"].isin([r["config_hash"] for r in rows]) & curves["metric"].str.startswith("probe/")]
    names = part["metric"].str.split("/", expand=True)
    if part.empty:
        return part.assign(layer=[], statistic=[])
    part = part.assign(layer=names[1].to_numpy(), statistic=names[2].to_numpy())
    return part[part["statistic"] == statistic]


def _layers(axis, study, panel, about, curves):
    for label, style in styles(_hues(panel, about.of(_of({**panel, "hue": None}, about, "")))).items():
        part = _probe(curves, about.at_best(_of(panel, about, label)), panel["statistic"])
        if part.empty:
            continue
        if panel.get("layers") == "blocks":
            part = part[part["layer"].str.fullmatch(r".*\.\d+")]
        elif panel.get("layers"):
            part = part[part["layer"].str.contains(panel["layers"])]
        if part.empty:
            continue
        step = part["step"].min() if panel.get("at") == "first" else part["step"].max()
        mean = part[part["step"] == step].groupby("layer", sort=False)["value"].mean()
        axis.plot(range(len(mean)), mean, label=label, **style)
    if panel.get("log"):
        axis.set_yscale("log")
    axis.set(xlabel="layer, from the input on", ylabel=panel["statistic"])
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, title=panel.get("hue"))


def _time_lines(axis, study, panel, about, curves):
    import matplotlib

    part = _probe(curves, about.at_best(_of({**panel, "hue": None}, about, "")), panel["statistic"])
    layers = list(dict.fromkeys(part["layer"]))
    colours = matplotlib.colormaps["viridis"]
    for i, layer in enumerate(layers):
        mean = part[part["layer"] == layer].groupby("step")["value"].mean()
        label = layer if i in (0, len(layers) - 1) else None
        axis.plot(mean.index, mean, color=colours(i / max(1, len(layers) - 1)), label=label, marker=".")
    if panel.get("log"):
        axis.set_yscale("log")
    axis.set(xlabel="step", ylabel=panel["statistic"])
    if layers:
        axis.legend(fontsize=8, title="first and last layer")


def _scatter(axis, study, panel, about, curves):
    for label, style in styles(_hues(panel, about.of(_of({**panel, "hue": None}, about, "")))).items():
        rows = about.at_best(_of(panel, about, label))
        alpha, std = _probe(curves, rows, "alpha"), _probe(curves, rows, "in_std")
        both = alpha.merge(std, on=["run", "layer", "step"], suffixes=("_alpha", "_std"))
        both = both[both["step"] == both["step"].max()]
        if len(both):
            axis.plot(
                1 / both["value_std"], both["value_alpha"], style["marker"], color=style["color"], label=label, ms=5
            )
    axis.set(xlabel="1 / std of the layer's input", ylabel="alpha, at the end")
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, title=panel.get("hue"))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


PANELS = {
    "curves": _curves,
    "lines": _lines,
    "isolation": _isolation,
    "heat": _heat,
    "layers": _layers,
    "time": _time_lines,
    "scatter": _scatter,
}
