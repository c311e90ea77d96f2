"""Means with intervals, differences paired by seed, rank correlations. 95% everywhere. No torch, no pandas."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval (Student's t); with fewer than two values the bounds are None."""

    n: int
    mean: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.4g}" + (f" [{self.low:.4g}, {self.high:.4g}]" if self.low is not None else "")


def interval(values: Sequence[float]) -> Interval:
    """Mean and t-interval of independent values.

    Raises:
        ValueError: a value is not finite: divergence is a result of its own, never averaged.
    """
    if not all(math.isfinite(v) for v in values):
        raise ValueError("interval: a value is not finite; count diverged runs, do not average them")
    n = len(values)
    if n == 0:
        return Interval(0, None)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(1, mean)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1)) * spread / math.sqrt(n)
    return Interval(n, mean, mean - half, mean + half)


@dataclass(frozen=True)
class Paired:
    """Arm minus baseline, seed by seed. One of a pair diverged: that side lost; both: the pair is void."""

    difference: Interval
    lost: int = 0  # pairs in which the arm alone diverged
    won: int = 0  # pairs in which the baseline alone diverged
    void: int = 0
    seeds: list[int] = field(default_factory=list)  # of pairs that count

    @property
    def n(self) -> int:
        """Pairs that say something: differences, and pairs that divergence decided."""
        return self.difference.n + self.lost + self.won


def paired(arm: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> Paired:
    """Values by seed, None for a diverged run; seeds that only one side has are left out."""
    differences, seeds, lost, won, void = [], [], 0, 0, 0
    for seed in sorted(arm.keys() & baseline.keys()):
        a, b = arm[seed], baseline[seed]
        if a is None and b is None:
            void += 1
            continue
        seeds.append(seed)
        if a is None:
            lost += 1
        elif b is None:
            won += 1
        else:
            differences.append(a - b)
    return Paired(interval(differences), lost, won, void, seeds)


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Interval:
    """Spearman's rho of two equally long lists, with the interval of Bonett and Wright (2000).

    Fewer than 4 points, or one side constant, have no interval.
    """
    if len(x) != len(y):
        raise ValueError(f"rank_correlation: {len(x)} and {len(y)} values")
    n = len(x)
    if n < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return Interval(n, None)
    rho = float(stats.spearmanr(x, y).statistic)
    if n < 4:
        return Interval(n, rho)
    clipped = max(-0.999, min(0.999, rho))  # Fisher's z is infinite at 1
    half = float(stats.norm.ppf(0.5 + LEVEL / 2)) * math.sqrt((1 + clipped**2 / 2) / (n - 3))
    return Interval(n, rho, math.tanh(math.atanh(clipped) - half), math.tanh(math.atanh(clipped) + half))
