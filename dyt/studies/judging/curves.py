"""What curves say beside their ends: steps to the baseline's final value, and whether two curves lie on each other."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from dyt.studies.judging.cells import Rows
from dyt.studies.statistics import Interval, interval, p_inside, p_outside

WARM_UP = 0.1  # of the steps: what `gaps` leaves out; it holds the warm-up of every recipe here

Curve = tuple[np.ndarray, np.ndarray]  # steps and values


class Curves:
    """A study's curves by run and metric, from curves.parquet."""

    def __init__(self, frame: pd.DataFrame | None = None):
        self._parts: dict[tuple[str, str], pd.DataFrame] = {}
        self._found: dict[tuple[str, str], Curve] = {}  # those that were asked for
        if frame is not None and len(frame):
            fine = frame[~frame["metric"].str.startswith("probe/")]
            self._parts = dict(iter(fine.groupby(["run", "metric"], sort=False)))

    def of(self, about: Rows, rows: list[dict], metric: str) -> dict[int, Curve]:
        """The curves of `rows` by seed; those of diverged runs are left out, as `about` counts them."""
        fine = [r for r in rows if about.value(r) is not None and (r.get("config_hash"), metric) in self._parts]
        return {r["seed"]: self._curve((r["config_hash"], metric)) for r in fine}

    def _curve(self, key: tuple[str, str]) -> Curve:
        if key not in self._found:
            part = self._parts[key].drop_duplicates("step").sort_values("step")
            self._found[key] = part["step"].to_numpy(float), part["value"].to_numpy(float)
        return self._found[key]


def steps_to(curve: Curve, target: float, higher: bool) -> tuple[float, bool] | None:
    """Where a curve reaches `target`: (step, whether that was so at its first point); None: never.

    The curve is made monotone first (isotonic regression), so that one lucky point of a noisy curve does not count, and
    read linearly between its points. Reached at the first point means "by then at the latest".
    """
    steps, values = curve
    values = np.asarray(isotonic_regression(values, increasing=higher).x)
    reached = values >= target - 1e-9 if higher else values <= target + 1e-9
    if not reached.any():
        return None
    at = int(reached.argmax())
    if at == 0:
        return float(steps[0]), True
    share = (target - values[at - 1]) / (values[at] - values[at - 1])
    return float(steps[at - 1] + min(1.0, max(0.0, share)) * (steps[at] - steps[at - 1])), False


@dataclass(frozen=True)
class StepsToTarget:
    """How many steps an arm needs against the baseline's, to the baseline's final value, in percent more, by seed.

    Where the arm never gets there, the target is the arm's own final value, which the baseline reached earlier.
    """

    percent: Interval  # geometric mean over seeds; negative: fewer steps
    seeds: int
    never: int  # seeds in which the arm never reached the baseline's final value
    at_once: int  # seeds in which one side was there at its first evaluation: the percentage is a bound

    def __str__(self) -> str:
        if not self.seeds:
            return "-"
        words = [f"not reached in {self.never} of {self.seeds}"] if self.never else []
        if self.percent.mean is not None:
            words.append(self._percent() + (" to its own end" if self.never == self.seeds else ""))
        if self.at_once:
            words.append(f"a bound: at the first evaluation in {self.at_once} of {self.seeds}")
        return "; ".join(words)

    def _percent(self) -> str:
        p = self.percent
        sign = -1 if p.mean < 0 else 1
        more = "more" if sign > 0 else "fewer"
        if p.low is None:
            return f"{abs(p.mean):.0f}% {more}"
        low, high = sorted((sign * p.low, sign * p.high))
        return f"{abs(p.mean):.0f}% {more} [{low:.0f}, {high:.0f}]"


def steps_to_target(arm: dict[int, Curve], baseline: dict[int, Curve], higher: bool) -> StepsToTarget:
    """Paired by seed; both trained for the same number of steps."""
    logs, never, at_once = [], 0, 0
    seeds = sorted(arm.keys() & baseline.keys())
    for seed in seeds:
        ours, theirs = arm[seed], baseline[seed]
        end = float(theirs[1][-1])
        found = steps_to(ours, end, higher)
        if found is None:
            never += 1
            end = float(ours[1][-1])
            found = steps_to(ours, end, higher)
        reference = steps_to(theirs, end, higher)
        at_once += found[1] or reference[1]
        if not (found[1] and reference[1]):  # both before they were first looked at: nothing is known
            # A converted model may be there before its first step: it counts as one.
            logs.append(math.log(max(found[0], 1) / max(reference[0], 1)))
    found = interval(logs)
    percent = [None if v is None else 100 * math.expm1(v) for v in (found.mean, found.low, found.high)]
    return StepsToTarget(Interval(found.n, *percent), len(seeds), never, at_once)


@dataclass(frozen=True)
class Gap:
    """The largest gap between two mean curves after warm-up."""

    largest: Interval  # arm minus baseline there, over seeds
    step: int
    closes: int | None  # first step from which every later mean gap is within the margin; None: it never is
    p_on: float  # of "somewhere outside the margin": every step must be inside, so the largest p counts
    p_apart: float  # of "nowhere outside": the smallest p, times how many steps were looked at

    def __str__(self) -> str:
        closes = "does not close" if self.closes is None else f"within the margin from step {self.closes} on"
        return f"largest gap {self.largest} at step {self.step}; {closes}"


def gaps(arm: dict[int, Curve], baseline: dict[int, Curve], margin: float) -> Gap | None:
    """Compares curves seed by seed at every step that either has a point at, after the first tenth of training.

    None where fewer than two seeds have both curves, or these have no step in common.
    """
    seeds = sorted(arm.keys() & baseline.keys())
    if len(seeds) < 2:
        return None
    both = [curve[0] for seed in seeds for curve in (arm[seed], baseline[seed])]
    first, last = max(s[0] for s in both), min(s[-1] for s in both)
    steps = np.unique(np.concatenate(both))
    steps = steps[(steps >= max(first, WARM_UP * last)) & (steps <= last)]
    if not len(steps):
        return None
    apart = np.array([np.interp(steps, *arm[s]) - np.interp(steps, *baseline[s]) for s in seeds])  # (seeds, steps)
    found = [interval(column.tolist()) for column in apart.T]
    sizes = np.abs(apart.mean(0))
    at = int(sizes.argmax())
    outside = np.flatnonzero(sizes > margin)
    after = 0 if not len(outside) else int(outside[-1]) + 1
    return Gap(
        found[at],
        int(steps[at]),
        int(steps[after]) if after < len(steps) else None,
        max(p_inside(f, margin) for f in found),
        min(1.0, len(found) * min(p_outside(f, margin) for f in found)),
    )
