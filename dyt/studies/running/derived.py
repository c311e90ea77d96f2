"""Numbers of one run that are more than a metric's last value, from its metrics.jsonl. Most read the probe's rows."""

import math
import statistics
from collections.abc import Callable

from dyt.studies.statistics import rank_correlation


def _probes(rows: list[dict]) -> list[tuple[int, dict[str, dict[str, float]]]]:
    """Per probed step, ``{layer: {statistic: value}}``."""
    found = []
    for row in rows:
        layers: dict[str, dict[str, float]] = {}
        for key, value in row.items():
            if key.startswith("probe/") and value is not None:
                _, layer, name = key.split("/")
                layers.setdefault(layer, {})[name] = value
        if layers:
            found.append((row["step"], layers))
    return found


def _last(rows: list[dict], *names: str) -> list[tuple[float, ...]]:
    """Statistics of every layer that has them all, in the model's order, at the last probe."""
    probes = _probes(rows)
    layers = probes[-1][1].values() if probes else ()
    return [tuple(layer[name] for name in names) for layer in layers if all(name in layer for name in names)]


def _alpha_std(layer: dict[str, float]) -> tuple[float, float] | None:
    """(alpha, 1 / std of its input) of a layer; None where it has no alpha, or an input without a finite spread."""
    return (layer["alpha"], 1 / layer["in_std"]) if layer.get("alpha") and layer.get("in_std") else None


def alpha_std_rank(rows: list[dict]) -> float | None:
    """Spearman's rho over layers between alpha and 1 / std of its layer's input, at the end (Figure 8, right)."""
    probes = _probes(rows)
    pairs = [pair for s in (probes[-1][1] if probes else {}).values() if (pair := _alpha_std(s))]
    return rank_correlation(*zip(*pairs, strict=True)).mean if len(pairs) > 2 else None


def alpha_std_time(rows: list[dict]) -> float | None:
    """The same over training: rho between alpha and 1 / std at the probed steps, mean over layers (Figure 8, left)."""
    series: dict[str, list] = {}
    for _, layers in _probes(rows):
        for name, s in layers.items():
            if pair := _alpha_std(s):
                series.setdefault(name, []).append(pair)
    found = [rank_correlation(*zip(*points, strict=True)).mean for points in series.values() if len(points) > 2]
    found = [f for f in found if f is not None]
    return statistics.fmean(found) if found else None


def input_shift(rows: list[dict]) -> float | None:
    """How far inputs wander: log10 of largest over smallest input std over training, mean over layers."""
    series: dict[str, list] = {}
    for _, layers in _probes(rows):
        for name, s in layers.items():
            if s.get("in_std"):
                series.setdefault(name, []).append(s["in_std"])
    found = [math.log10(max(v) / min(v)) for v in series.values() if len(v) > 1]
    return statistics.fmean(found) if found else None


def saturated(rows: list[dict]) -> float | None:
    """Share of activations with abs(alpha x) > 2 at the end, mean over layers."""
    found = _last(rows, "saturated")
    return statistics.fmean(value for (value,) in found) if found else None


def gradient_ratio(rows: list[dict]) -> float | None:
    """log10 of the first block's gradient norm over the last block's at the first probe: 0 is even by depth."""
    probes = _probes(rows)
    if not probes:
        return None
    norms = [s["grad_norm"] for name, s in probes[0][1].items() if "grad_norm" in s and name.split(".")[-1].isdigit()]
    return math.log10(norms[0] / norms[-1]) if len(norms) > 1 and min(norms[0], norms[-1]) > 0 else None


def tanh_gain(rows: list[dict]) -> float | None:
    """How much better the best tanh explains a norm's output from its input than the best line does: R^2, mean."""
    found = _last(rows, "tanh_r2", "line_r2")
    return statistics.fmean(tanh - line for tanh, line in found) if found else None


def tanh_gain_learned(rows: list[dict]) -> float | None:
    """That gain at the end less at the first probe: what training adds to it. An untrained layer has some already."""
    probed = [row for row in rows if any(key.startswith("probe/") for key in row)]
    before, after = tanh_gain(probed[:1]), tanh_gain(probed[1:])
    return None if before is None or after is None else after - before


def tanh_gain_depth(rows: list[dict]) -> float | None:
    """Spearman's rho between depth and that gain: positive where deep layers are more S-shaped."""
    gains = [tanh - line for tanh, line in _last(rows, "tanh_r2", "line_r2")]
    return rank_correlation(range(len(gains)), gains).mean if len(gains) > 2 else None


def gap(rows: list[dict]) -> float | None:
    """Validation loss at the end less the best on the way: what a fixed end point costs a run that overfits."""
    values = [row["val/loss"] for row in rows if row.get("val/loss") is not None]
    return values[-1] - min(values) if values else None


def converted(rows: list[dict]) -> float | None:
    """Validation loss of a converted model before its first step."""
    return next((row.get("val/loss") for row in rows if row["step"] == 0), None)


def before(rows: list[dict]) -> float | None:
    """Validation loss of the model that was converted."""
    return next((row.get("before/loss") for row in rows if row["step"] == 0), None)


def _ended(metric: str) -> Callable[[list[dict]], float | None]:
    """The last value of a metric that is no loss."""
    return lambda rows: next((row[metric] for row in reversed(rows) if row.get(metric) is not None), None)


# What linear probes of speech read, from the encoder and from log-mel features (dyt/tasks/hearing.py), and codes used.
PROBES = {
    f"{name}{mel}": _ended(f"val/top1_{key}{mel}")
    for name, key in (("digit", "label"), ("digit_new", "label_new"), ("speaker", "speaker"))
    for mel in ("", "_mel")
}


def below_markov(rows: list[dict]) -> float | None:
    """Bits a base that a fifth-order Markov chain needs more than the model, at the end."""
    last = next((row for row in reversed(rows) if row.get("val/markov5") is not None), None)
    return last["val/markov5"] - last["val/bits"] if last and last.get("val/bits") is not None else None


def _above_pixels(how: str) -> Callable[[list[dict]], float | None]:
    """How many more held-out pictures features name than pixels do, as a share, by ``knn`` or ``linear``."""
    features, pixels = (_ended(f"val/top1_{how}{of}") for of in ("", "_pixels"))
    return lambda rows: None if None in (found := (features(rows), pixels(rows))) else found[0] - found[1]


DERIVED: dict[str, Callable[[list[dict]], float | None]] = PROBES | {
    "codes": _ended("val/codes"),
    "return_poor": _ended("val/return_poor"),  # of a Decision Transformer that is asked for a poor one
    "top1_linear": _ended("val/top1_linear"),  # what a linear classifier of the features names rightly
    "knn_above_pixels": _above_pixels("knn"),
    "linear_above_pixels": _above_pixels("linear"),
}
DERIVED |= {
    f.__name__: f
    for f in (
        alpha_std_rank,
        alpha_std_time,
        input_shift,
        saturated,
        gradient_ratio,
        tanh_gain,
        tanh_gain_learned,
        tanh_gain_depth,
        gap,
        converted,
        before,
        below_markov,
    )
}
