"""Means with intervals, differences paired by seed, rank correlations, and what many tests at once ask for.

Intervals are 95% and not adjusted. P-values are two-sided, so that p < 0.05 just where the interval excludes; `holm`
adjusts them. No torch, no pandas.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy import stats

LEVEL = 0.95
POWER = 0.8
MOST = 1000  # seeds; beyond it a number says nothing more


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval (Student's t); with fewer than two values the bounds are None."""

    n: int
    mean: float | None
    low: float | None = None
    high: float | None = None
    sd: float | None = None  # of the values

    def __str__(self) -> str:
        if self.mean is None:
            return "-"
        return f"{self.mean:.4g}" + (f" [{self.low:.4g}, {self.high:.4g}]" if self.low is not None else "")


def several(n: int, one: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{n} {one}{'' if n == 1 else 's'}"


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
    return Interval(n, mean, mean - half, mean + half, spread)


def p_against(found: Interval, value: float = 0.0) -> float | None:
    """Two-sided p of Student's t that the mean is `value`; None for fewer than two values."""
    if found.sd is None:
        return None
    return min(1.0, 2 * min(_above(found, value), _above(_mirrored(found), -value)))


def p_inside(found: Interval, margin: float) -> float | None:
    """Twice the p of TOST (two one-sided tests): below 0.05 just where the 95% interval lies within +-margin."""
    if found.sd is None:
        return None
    return min(1.0, 2 * max(_above(found, -margin), _above(_mirrored(found), -margin)))


def p_outside(found: Interval, margin: float) -> float | None:
    """Two-sided p that the mean lies within +-margin: below 0.05 just where the 95% interval lies outside."""
    if found.sd is None:
        return None
    return min(1.0, 2 * min(_above(found, margin), _above(_mirrored(found), margin)))


def p_same(one: Sequence[float], other: Sequence[float], margin: float) -> float | None:
    """As `p_inside`, of the difference of two means by Welch's t, which knows nothing of pairs; None: under two values.

    Differences of three pairs agree by chance now and then, however far the runs of either side lie apart.
    """
    from statsmodels.stats.weightstats import ttost_ind

    if min(len(one), len(other)) < 2:
        return None
    if interval(one).sd == interval(other).sd == 0:
        return float(abs(one[0] - other[0]) > margin)
    return min(1.0, 2 * float(ttost_ind(one, other, -margin, margin, usevar="unequal")[0]))


def _above(found: Interval, value: float) -> float:
    """One-sided p: small where the mean is above `value`."""
    off = found.mean - value
    if found.sd == 0:  # equal in every seed
        return 0.0 if off > 0 else 1.0
    return float(stats.t.sf(off / (found.sd / math.sqrt(found.n)), found.n - 1))


def _mirrored(found: Interval) -> Interval:
    return Interval(found.n, -found.mean, sd=found.sd)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """P-values adjusted by Holm for how many there are; None is in no family and stays None."""
    from statsmodels.stats.multitest import multipletests

    known = [v for v in values if v is not None]
    adjusted = iter(multipletests(known, method="holm")[1].tolist() if known else [])
    return [None if v is None else next(adjusted) for v in values]


@dataclass(frozen=True)
class Pooled:
    """Standard deviation within groups, of `runs` values in all."""

    sd: float
    runs: int


def pooled_deviation(groups: Sequence[Sequence[float]]) -> Pooled | None:
    """The groups' common standard deviation: the root of their variances' mean, weighted by degrees of freedom."""
    groups = [g for g in groups if len(g) > 1]
    freedom = sum(len(g) - 1 for g in groups)
    if not freedom:
        return None
    squares = math.fsum((v - math.fsum(g) / len(g)) ** 2 for g in groups for v in g)
    return Pooled(math.sqrt(squares / freedom), sum(map(len, groups)))


def seeds_needed(effect: float, sd: float, alpha: float = 1 - LEVEL) -> int | None:
    """Pairs with which a paired t-test finds `effect` with a power of 80%; None: more than 1,000.

    `sd` is the standard deviation of the pairs' differences.
    """
    import numpy as np
    from statsmodels.stats.power import TTestPower

    counts = np.arange(2, MOST + 1)
    if sd == 0 or effect == 0:
        return 2 if effect else None
    enough = TTestPower().power(min(abs(effect) / sd, 20.0), counts, alpha) >= POWER  # 20: two pairs are enough there
    return int(counts[enough.argmax()]) if enough.any() else None


@dataclass(frozen=True)
class Paired:
    """Arm minus baseline, seed by seed. One of a pair diverged: that side lost; both: the pair is void."""

    difference: Interval
    lost: int = 0  # pairs in which the arm alone diverged
    won: int = 0  # pairs in which the baseline alone diverged
    void: int = 0
    seeds: list[int] = field(default_factory=list)  # of pairs that count
    sides: tuple[Sequence[float], Sequence[float]] = ((), ())  # what the differences are of

    @property
    def n(self) -> int:
        """Pairs that say something: differences, and pairs that divergence decided."""
        return self.difference.n + self.lost + self.won


def paired(arm: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> Paired:
    """Values by seed, None for a diverged run; seeds that only one side has are left out."""
    kept, seeds, lost, won, void = [], [], 0, 0, 0
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
            kept.append((a, b))
    sides = tuple(zip(*kept, strict=True)) or ((), ())
    return Paired(interval([a - b for a, b in kept]), lost, won, void, seeds, sides)


def gaps_of(arm: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> dict[int, float | None]:
    """Arm minus baseline by seed; infinite where the arm alone diverged, minus that the baseline alone, None both."""

    def gap(one: float | None, other: float | None) -> float | None:
        if one is None or other is None:
            return None if one is other else math.inf if one is None else -math.inf
        return one - other

    return {seed: gap(arm[seed], baseline[seed]) for seed in sorted(arm.keys() & baseline.keys())}


def paired_gaps(here: Mapping[int, float | None], there: Mapping[int, float | None]) -> Paired:
    """The gap in one place less that in another: of `gaps_of`; a seed that both sides lost, or alike, says nothing."""
    one, other = {}, {}
    for seed in sorted(here.keys() & there.keys()):
        pair = here[seed], there[seed]
        if None in pair or (math.isinf(pair[0]) and pair[0] == pair[1]):
            continue
        if any(map(math.isinf, pair)):  # an infinite gap is the larger one, minus infinity the smaller
            pair = (None, 0.0) if pair[0] > pair[1] else (0.0, None)
        one[seed], other[seed] = pair
    return paired(one, other)


def p_rank(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Two-sided p of Spearman's rho; None where `rank_correlation` has no interval."""
    if rank_correlation(x, y).low is None:
        return None
    return float(stats.spearmanr(x, y).pvalue)


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
