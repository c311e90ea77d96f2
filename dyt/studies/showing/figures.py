"""figure.png of a study: panels named in its file, drawn from runs.csv and curves.parquet alone.

curves   a metric over steps, mean and range over seeds          {kind, metric, hue, where, log}
lines    final values over a factor's levels, mean and interval  {kind, x, hue, where, log_x}
isolation  lines over the searched factor, each arm's best marked  {kind, hue, where}
heat     final values over two factors                           {kind, x, y, where}
layers   a probe's statistic by layer, at its last step          {kind, statistic, hue, where}
time     a probe's statistic over steps, a line per layer        {kind, statistic, where}
scatter  alpha against 1 / std of the input, a point per layer   {kind, hue, where}
scurve   what trained norms do to their inputs                   (scurve.py)
"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from dyt.rundir.files import replace_file
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.rules import asked
from dyt.studies.judging.search import searched
from dyt.studies.running.study import Study
from dyt.studies.showing.styles import styles, tick, words
from dyt.studies.showing.words import UNITS
from dyt.studies.statistics import interval, several


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
    figure, axes = plt.subplots(down, across, figsize=(5.2 * across, 4.8 * down), layout="constrained", squeeze=False)
    arms = {hue: [arm for p in panels if p.get("hue") == hue for arm in _arms(p, about)]
            for hue in {p.get("hue") for p in panels}}  # fmt: skip
    for axis, panel in zip(axes.flat, panels, strict=False):
        PANELS[panel["kind"]](axis, study, {**panel, "among": arms[panel.get("hue")]}, about, curves)
        axis.set_title(panel.get("title", ""), fontsize=10)
        if panel["kind"] != "heat":
            axis.grid(alpha=0.25)
        if not axis.has_data():
            axis.text(0.5, 0.5, "not run", ha="center", va="center", transform=axis.transAxes)
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    seeds = len({r["seed"] for r in rows})
    figure.suptitle(f"{study.name}, {scale} scale, {several(seeds, 'seed')}", fontsize=11)
    replace_file(folder / "figure.png", partial(figure.savefig, format="png", dpi=100))
    plt.close(figure)


def _hues(panel: dict, rows: list[dict]) -> list[str]:
    hue = panel.get("hue")
    return list(dict.fromkeys(r.get(hue) or "" for r in rows)) if hue else [""]


def _arms(panel: dict, about: Rows) -> list[str]:
    """The levels of the panel's hue that have rows in it."""
    return _hues(panel, about.of(_of({**panel, "hue": None}, about, "")))


def _styles(panel: dict, about: Rows) -> dict[str, dict]:
    return styles(_arms(panel, about), panel.get("among"))


def _legend(axis, panel: dict) -> None:
    """Below the panel, so that it covers no line."""
    handles, labels = axis.get_legend_handles_labels()
    of = None if panel.get("hue") == "norm" else panel.get("hue")
    if handles:
        axis.legend(
            handles, labels, title=of, fontsize=8, ncols=1 if len(labels) < 3 else 2, frameon=False, handlelength=3,
            loc="upper center", bbox_to_anchor=(0.5, -0.13),
        )  # fmt: skip


def _of(panel: dict, about: Rows, label: str) -> dict:
    where = {k: [str(x) for x in v] if isinstance(v, list) else str(v) for k, v in (panel.get("where") or {}).items()}
    return {**where, **({panel["hue"]: label} if panel.get("hue") else {})}


def together(curves: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Curves of several runs at all steps that one of them has a point at and all of them span: (steps, values).

    Stored curves are thinned each for itself, so runs share few steps; between its points a run is read linearly.

    Returns:
        steps (n,) and values (runs, n); both empty where there is no curve.
    """
    parts = [part.drop_duplicates("step").sort_values("step") for _, part in curves.groupby("run", sort=False)]
    if not parts:
        return np.empty(0), np.empty((0, 0))
    steps = np.unique(np.concatenate([part["step"] for part in parts]))
    first, last = max(part["step"].iloc[0] for part in parts), min(part["step"].iloc[-1] for part in parts)
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.array([np.interp(steps, part["step"], part["value"]) for part in parts])


def _curves(axis, study, panel, about, curves):
    metric = panel.get("metric", study.metric)
    shown = []
    for label, style in _styles(panel, about).items():
        rows = about.at_best(_of(panel, about, label))
        gone = [r for r in rows if about.value(r) is None]
        kept = [r["config_hash"] for r in rows if len(gone) == len(rows) or r not in gone]
        steps, values = together(curves[curves["run"].isin(kept) & (curves["metric"] == metric)])
        if not len(steps):
            continue
        mean = values.mean(0)
        marker = style["marker"] if len(mean) < 25 else None
        said = words(panel.get("hue"), label) + (f" ({len(gone)} diverged)" if gone else "")
        axis.plot(steps, mean, label=said, **{**style, "marker": marker})
        axis.fill_between(steps, values.min(0), values.max(0), color=style["color"], alpha=0.15, lw=0)
        shown += mean[steps >= 0.15 * steps.max()].tolist()
    if shown and not panel.get("free"):
        pad = 0.06 * (max(shown) - min(shown) or 1)
        axis.set_ylim(min(shown) - pad, max(shown) + pad)
    unit = panel.get("unit", "nats" if metric.endswith("loss") and about.metric not in UNITS else "")
    axis.set(xlabel="step", ylabel=metric + (f" ({unit})" if unit else ""))
    _legend(axis, panel)


def _lines(axis, study, panel, about, curves):
    x, metric = panel["x"], panel.get("metric", "final")
    rows = about.of(_of({**panel, "hue": None}, about, ""))
    levels = list(dict.fromkeys(r[x] for r in rows if r.get(x)))
    numeric = all(_number(v) is not None for v in levels)
    if numeric:
        levels.sort(key=float)
    crosses, shown, alone = dict.fromkeys(levels, 0), [], False
    for label, style in _styles(panel, about).items():
        at, means, errors, single = [], [], [], []
        for i, level in enumerate(levels):
            values = about.values({**_of(panel, about, label), x: level}, metric)
            place = float(level) if numeric else i
            fine = [v for v in values.values() if v is not None]
            if len(fine) < len(values):  # one below the other
                axis.plot(
                    place, 0.97 - 0.045 * crosses[level], "x", color=style["color"], ms=8, mew=2,
                    transform=axis.get_xaxis_transform(),
                )  # fmt: skip
                crosses[level] += 1
            if fine:
                found = interval(fine)
                at.append(place), means.append(found.mean), single.append(len(fine) == 1)
                errors.append((found.high - found.low) / 2 if found.low is not None else 0)
        said = words(panel.get("hue"), label)
        axis.errorbar(at, means, errors, capsize=2, label=said, **{**style, "marker": ""})
        for place, mean, one in zip(at, means, single, strict=True):
            axis.plot(place, mean, style["marker"], color=style["color"], ms=5, mfc="white" if one else style["color"])
        shown, alone = shown + means, alone or any(single)
    if shown:  # an interval of three seeds may be wider than all there is to see
        pad = 0.08 * (max(shown) - min(shown) or 1)
        axis.set_ylim(min(shown) - pad, max(shown) + pad)
    if numeric and panel.get("log_x"):
        axis.set_xscale("log")
    if numeric:
        axis.set_xticks([float(v) for v in levels], [tick(v) if x == study.search else v for v in levels])
        axis.minorticks_off()
    else:
        axis.set_xticks(range(len(levels)), levels, rotation=20)
    notes = ["x at the top: diverged"] * any(crosses.values()) + ["hollow: one seed"] * alone
    unit = " (nats)" if study.metric.endswith("loss") and metric == "final" else ""
    axis.set(xlabel="; ".join([x, *notes]), ylabel=f"{study.metric if metric == 'final' else metric}, final{unit}")
    _legend(axis, panel)


def _isolation(axis, study, panel, about, curves):
    """Loss against the searched factor for every arm: a best at either end was not searched far enough."""
    _lines(axis, study, {**panel, "x": study.search, "log_x": True}, about, curves)
    best = []
    for label, style in _styles(panel, about).items():
        found = searched(about, {label: _of(panel, about, label)})
        if not found or len(found[0].levels) < 2 or _number(found[0].chosen) is None:
            continue
        values = about.values({**_of(panel, about, label), study.search: found[0].chosen})
        fine = [v for v in values.values() if v is not None]
        if fine:
            best.append(sum(fine) / len(fine))
            axis.plot(float(found[0].chosen), best[-1], "*", color=style["color"], ms=13, mec="black", zorder=3)
    if best:  # what lies far beyond every arm's best leaves the picture
        low, high = axis.get_ylim()
        room = max(max(best) - min(best), 0.15 * (high - low))
        axis.set_ylim(
            *((max(low, min(best) - room), high) if study.higher_is_better else (low, min(high, max(best) + room)))
        )
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
    for label, style in _styles(panel, about).items():
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
        axis.plot(range(len(mean)), mean, label=words(panel.get("hue"), label), **style)
    if panel.get("log"):
        axis.set_yscale("log")
    axis.set(xlabel="layer, from the input on", ylabel=panel["statistic"])
    _legend(axis, panel)


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
    for label, style in _styles(panel, about).items():
        rows = about.at_best(_of(panel, about, label))
        alpha, std = _probe(curves, rows, "alpha"), _probe(curves, rows, "in_std")
        both = alpha.merge(std, on=["run", "layer", "step"], suffixes=("_alpha", "_std"))
        both = both[both["step"] == both["step"].max()]
        if len(both):
            axis.plot(
                1 / both["value_std"], both["value_alpha"], style["marker"], color=style["color"],
                label=words(panel.get("hue"), label), ms=5,
            )  # fmt: skip
    axis.set(xlabel="1 / std of the layer's input", ylabel="alpha, at the end")
    _legend(axis, panel)


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
