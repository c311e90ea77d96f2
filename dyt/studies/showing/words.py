"""A verdict's numbers as a person says them: the papers' two numbers and ours, with names, unit and interval.

``LayerNorm 82.3 -> DyT 82.5 % top-1, ViT-B`` and ``LayerNorm 2.10 -> DyT 2.31 nats, +0.21 ± 0.02, 3 seeds``.
"""

import re

from dyt.config.variants import name
from dyt.studies.running.study import Study
from dyt.studies.statistics import Interval, paired, several

MODELS = {"vit": "ViT", "convnext": "ConvNeXt", "llama": "LLaMA", "gpt2": "GPT-2", "resnet50": "ResNet-50",
          "dit": "DiT"}  # fmt: skip
SAME = {"tanh": "dyt"}  # a level's name here, and in the papers' tables
DERIVED = {
    "alpha_std_rank": "rank correlation {} between alpha and 1 / std over the layers",
    "alpha_std_time": "rank correlation {} between alpha and 1 / std over training",
    "tanh_gain_depth": "rank correlation {} between depth and how S-shaped a layer is",
}  # metrics that are rank correlations themselves
POINTS = {  # shares
    # of R squared
    "tanh_gain_learned": "what a tanh explains of a layer's output beyond a line changes by {} points in training",
    "knn_above_pixels": "{} points above pixels",
    "linear_above_pixels": "{} points above pixels",
}
# Of a test's own metric that is a share, whatever the study's is.
SHARES = {"digit": "% of digits", "digit_new": "% of digits, new speakers", "speaker": "% of speakers"}
# Of a metric that is no accuracy and not in nats.
UNITS = {"val/frechet": "Frechet distance", "val/return": "return", "val/bits": "bits a base"}
DIGITS = {"val/return": 0, "val/bits": 4}  # after the point, where two do not fit
RISING = {"val/loss": "the loss", "val/top1": "the accuracy", "saturated": "the saturated share",
          "gradient_ratio": "the ratio of first to last gradient"}  # fmt: skip


def _colon(label: str) -> str:
    """A label that ends with a digit is kept apart from the number after it."""
    return label + ":" if label[-1:].isdigit() else label


def the_papers(test: dict, claims: dict[str, dict]) -> str | None:
    """The papers' numbers of a test: its own ``paper`` words, or its two arms' values of the first claim with both."""
    about = [claims[id] for id in test["claims"]]
    if not about:
        return None
    said = _papers_numbers(test, about)
    second_hand = any(claim.get("verified") is False for claim in about)  # read in another's text
    return f"{said} (second-hand)" if said and second_hand else said


def _papers_numbers(test: dict, about: list[dict]) -> str | None:
    if test.get("paper"):
        return re.sub(r"\{(?:(\d)\.)?([^}]+)\}", lambda m: _value(about, m[1], m[2]), test["paper"])
    if found := _two_arms_of(test, about):
        claim, keys, levels = found
        digits = 1 if "%" in claim["metric"] else 2
        gone, values = claim.get("diverged", []), claim.get("values_2dp", claim["values"])
        digits = 2 if "values_2dp" in claim else digits
        one, other = (
            f"{name(level)} {'diverged at ' if key in gone else ''}{values[key]:.{digits}f}"
            for key, level in zip(keys, levels, strict=True)
        )
        return f"{one} -> {other} {_unit(claim)}"
    return None


def _two_arms_of(test: dict, about: list[dict]) -> tuple[dict, list[str], list[str]] | None:
    """The first claim that has a value for both of the test's norms: (claim, its keys, the test's levels)."""
    levels = [re.split(r"[ -]", (test.get(side) or {}).get("norm", ""))[0] for side in ("against", "arm")]
    keys = [SAME.get(level, level) for level in levels]
    return next(((claim, keys, levels) for claim in about if all(key in claim["values"] for key in keys)), None)


def papers_difference(test: dict, claims: dict[str, dict], metric: str) -> float | None:
    """The papers' arm minus baseline in the unit of `metric`; None where they have it not, or in another unit."""
    found = _two_arms_of(test, [claims[id] for id in test["claims"]])
    if found is None or test.get("paper") or test.get("beside") or found[1][0] == found[1][1]:
        return None  # its numbers are about something else than these two norms
    if set(found[1]) & set(found[0].get("diverged", [])):
        return None
    claim, (one, other), _ = found
    percent = "%" in claim["metric"]
    if claim["model"].startswith("wav2vec2"):  # in bits, with the penalties
        return None
    if percent != metric.split("/")[-1].startswith("top") or not (percent or "loss" in claim["metric"]):
        return None
    return (claim["values"][other] - claim["values"][one]) / (100 if percent else 1)


def _value(about: list[dict], which: str | None, key: str) -> str:
    found = [about[int(which) - 1]] if which else about
    for claim in found:
        if key in claim["values"]:
            return f"{claim['values'][key]:g}"
    raise ValueError(f"{{{key}}}: none of {', '.join(c['id'] for c in found)} has it")


def _unit(claim: dict) -> str:
    """Unit, model, and, where it is not ImageNet, the data."""
    family, _, size = claim["model"].partition(" (")[0].partition("-")
    model = MODELS.get(family, family.upper()) + (f"-{size.upper()}" if family in ("vit", "convnext") else "")
    if family in ("llama", "gpt2"):
        model += f" {size.upper()}"
    if "%" in claim["metric"]:
        return f"% top-1, {model}"
    if family == "wav2vec2":  # fairseq's validation loss
        return f"bits, with the penalties, wav2vec 2.0 {size.capitalize()}"
    if claim["metric"].startswith("FID"):
        return f"FID, {model}-{size.upper().replace('-', '/')}"
    return f"nats, {model}, {claim['dataset'].replace('first ', '')}"


def spread(found: Interval, digits: int, sign: bool = False) -> str:
    """``+0.21 ± 0.02``; a single value has no interval. One more digit where ± would be 0.00 and is not."""
    width = None if found.low is None else (found.high - found.low) / 2
    if width and round(width, digits) == 0:
        digits += 1
    half = "" if width is None else f" ± {width:.{digits}f}"
    return f"{found.mean:{'+' if sign else ''}.{digits}f}{half}"


def ours(test: dict, finding, about, study: Study) -> str:
    """What we found; `finding` and `about` (the study's `Rows`) are what judged the test."""
    found, seeds = finding.interval, several(finding.n, "seed")
    if finding.answer == "not run":
        return finding.why
    if finding.answer == "undertrained":
        return f"not compared: {finding.why}"
    if test.get("beside") and found is not None and found.mean is not None:
        places = [" ".join(cell.values()) for cell in (test["where"], test["beside"])]
        change = f"{spread(_times(found, study, test['metric']), 3, sign=True)} {_of(study, test['metric'])[1]}"
        return f"the gap with {places[0]} less the gap with {places[1]}: {change}, {seeds}; {finding.why}"
    if test["kind"] in ("difference", "parity") and test["against"]:
        told = _two_arms(test, about, study)
        return f"{told}; {finding.why}" if finding.answer in ("undertuned", "level") else told
    if found is None or found.mean is None:
        return finding.why
    if test["kind"] == "trend":
        between = "" if found.low is None else f" ({found.low:.2f} to {found.high:.2f})"
        metric = study.metric if test["metric"] in ("final", "best") else test["metric"]
        what = RISING.get(metric, metric)
        says = f"{what} {'rises' if found.mean > 0 else 'falls'} with {test['over']}"
        if finding.answer == "inconclusive":
            says = f"no clear trend of {what} with {test['over']}"
        return f"{says}: rank correlation {found.mean:.2f}{between}, {seeds}"
    if test["kind"] == "curves":
        _, unit, _, digits = _of(study)
        gap = spread(_times(found, study), digits + (digits == 2), sign=True)
        return f"largest gap {gap} {unit}, {seeds}; {finding.why}"
    if test["kind"] == "best":
        beaten = "is best of" in finding.why and "against" not in finding.why  # then the interval is the level's own
        by = "" if beaten else f" ({spread(_times(found, study), 3, sign=True)} {_of(study)[1]})"
        return f"{finding.why.replace('alpha0s', 'alpha0')}{by}, {seeds}"
    if test["metric"] == "gradient_ratio":  # log10
        between = "" if found.low is None else f" ({10**found.low:.2f} to {10**found.high:.2f})"
        return f"the first block's gradient is {10**found.mean:.2f} times the last's{between}, {seeds}"
    if test["metric"] == "below_markov":
        return f"{spread(found, 4)} bits a base fewer than the chain, {seeds}"
    if test["metric"] in POINTS:
        gain = spread(Interval(found.n, *(v if v is None else 100 * v for v in (found.mean, found.low, found.high))), 1)
        return f"{POINTS[test['metric']].format(gain)}, {seeds}"
    return f"{DERIVED.get(test['metric'], test['metric'] + ' {}').format(spread(found, 2, sign=True))}, {seeds}"


def _of(study: Study, metric: str = "final") -> tuple[str, str, float, int]:
    """Unit of a value of a test's metric, unit of a difference, factor, decimals."""
    if metric in SHARES:
        return SHARES[metric], "points", 100, 1
    if study.percent:
        return "% top-1", "points", 100, 1
    unit = UNITS.get(study.metric, "nats")
    return unit, unit, 1, DIGITS.get(study.metric, 2)


def _times(found: Interval, study: Study, metric: str = "final") -> Interval:
    factor = _of(study, metric)[2]
    return Interval(found.n, *(None if v is None else factor * v for v in (found.mean, found.low, found.high)))


def apart(study: Study, about, arm: dict, against: dict) -> str:
    """A study's metric in the one cell less that in the other, paired by seed: ``+0.21 ± 0.02 nats``."""
    about = about.alike([arm, against])
    found = paired(about.values(arm), about.values(against))
    if found.difference.mean is None:
        return "not run" if not found.n else "every pair lost by divergence"
    return f"{spread(_times(found.difference, study), _of(study)[3], sign=True)} {_of(study)[1]}"


def _two_arms(test: dict, about, study: Study) -> str:
    """Baseline, arm, and their difference paired by seed; what diverged instead where no pair is left."""
    where = test.get("where") or {}
    cells = [{**where, **test[side]} for side in ("against", "arm")]
    about = about.alike(cells)  # as the test was judged
    values = [about.values(cell, test["metric"]) for cell in cells]
    labels = _labels(*cells)
    pair = paired(values[1], values[0])
    gone = [f"{label or side} diverged in {sum(x is None for x in v.values())} of {len(v)}"
            for label, side, v in zip(labels, ("the baseline", "the arm"), values, strict=True)
            if None in v.values()]  # fmt: skip
    both = [seed for seed in values[0].keys() & values[1].keys() if None not in (values[0][seed], values[1][seed])]
    if not both:
        return "; ".join(gone) or "no run in common"
    unit, difference, factor, digits = _of(study, test["metric"])
    means = [factor * sum(v[seed] for seed in both) / len(both) for v in values]
    one, other = (f"{_colon(label)} {mean:.{digits}f}".strip() for label, mean in zip(labels, means, strict=True))
    change = _times(pair.difference, study, test["metric"])
    small = abs(change.mean) < 0.1 or (change.low is not None and change.high - change.low < 0.01)
    fine = digits + (digits == 2 and small)
    best = " at the best checkpoint" if test["metric"] == "best" else ""
    told = f"{one} -> {other} {unit}{best}, {spread(change, fine, sign=True)}"
    told += f" {difference}" if difference != unit else ""
    return "; ".join([f"{told}, {several(len(both), 'seed')}", *gone])


def _labels(one: dict, other: dict) -> tuple[str, str]:
    """What to call two cells: their levels of the one factor in which they differ, else nothing."""
    factors = [f for f in {**one, **other} if one.get(f) != other.get(f)]
    if len(factors) != 1:
        return "", ""
    (factor,) = factors
    levels = [str(cell.get(factor, "")) for cell in (one, other)]
    if factor == "norm":
        return name(levels[0]), name(levels[1])
    return f"{factor} {levels[0]}", f"{factor} {levels[1]}"
