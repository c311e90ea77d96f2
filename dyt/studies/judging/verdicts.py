"""What rows say about a claim: six kinds of test, each by itself; rules.py has what holds for a study's tests together.

    difference  the arm differs from the baseline, on the side that `better` names; the interval excludes zero. With
                `beside`: that difference, less the same difference in another place
    parity      the difference lies inside the margin
    trend       the metric rises (sign +) or falls (sign -) with the factor `over`: rank correlation over runs
    best        of the levels of `over`, the paper's `level` is the best
    curves      the two mean curves lie within the margin of each other at every step after warm-up
    diverges    the arm's runs diverge

A row is a dict with the factors, ``seed``, ``status`` and metrics. Fewer than 3 seeds are always inconclusive. What
divergence alone decides has no p-value: every seed says the same, or the answer is inconclusive.
"""

import math
from dataclasses import dataclass

from dyt.studies.judging import search
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.curves import Curves, StepsToTarget, gaps, steps_to_target
from dyt.studies.statistics import (
    Interval,
    Paired,
    gaps_of,
    interval,
    p_against,
    p_inside,
    p_outside,
    p_rank,
    p_same,
    paired,
    paired_gaps,
    rank_correlation,
    several,
)

NEEDED = 3  # seeds
WORDS = {"paper": {"yes": "reproduced", "no": "contradicted"}}
TOY = {"yes": "agrees", "no": "disagrees"}
BY_PAIRS = "alike by pairs of seeds, but the seeds of each side lie too far apart to say so"


@dataclass(frozen=True)
class Finding:
    """What one test found and the numbers and words behind it.

    The answer is yes, no, level (a difference too small to matter), inconclusive, undertrained or undertuned.
    """

    answer: str
    why: str
    interval: Interval | None = None
    n: int = 0
    p: float | None = None  # two-sided, of the answer that is nearest
    distance: float | None = None  # how small a difference must be told from nothing for an answer
    adjusted: float | None = None  # p after Holm's correction within the study
    seeds: int | None = None  # that would decide an inconclusive row
    steps: StepsToTarget | None = None
    searched: str = "-"  # what the sides could choose from, and what they chose

    def verdict(self, scale: str) -> str:
        return WORDS.get(scale, TOY).get(self.answer, self.answer)


def judge(
    test: dict, rows: Rows, floor: str | None = None, matters: float | None = None, curves: Curves | None = None
) -> Finding:
    """The finding of one test.

    Args:
        floor: why the baseline is too weak for any comparison; None: it is not.
        matters: the smallest difference of the metric that matters; None: none is known.

    Raises:
        ValueError: a cell of the test is not one cell but several, or the sides were trained for different lengths.
    """
    if floor:
        return Finding("undertrained", floor)
    where = test.get("where") or {}
    arm, metric = {**where, **test["arm"]}, test["metric"]
    if test["kind"] == "diverges":
        return _diverges(test, rows, arm)
    if test["kind"] == "trend":
        return _trend(test, rows, arm, metric)
    if test["kind"] == "best":
        return _best(test, rows, arm, metric, matters)
    against = {**where, **test["against"]} if test.get("against") else None
    for side, cell in (("arm", arm), ("against", against)):
        if cell is not None and not rows.of(cell):
            return Finding("not run", f"{_name(test, side)} was not run")
    sides = {_name(test, "arm"): arm, _name(test, "against"): against} if against else {}
    others = {}
    if beside := test.get("beside"):
        others = {f"{name}, {' '.join(beside.values())}": {**cell, **beside} for name, cell in sides.items()}
    rows = rows.alike([*sides.values(), *others.values()])
    for cell in (arm, against):
        if cell is not None and (factor := rows.mixed(cell)):
            raise ValueError(f"{cell}: several rows for a seed; the test must fix {factor}")
    if against is None:  # the metric is itself a difference
        found = paired(rows.values(arm, metric), dict.fromkeys(rows.values(arm, metric), 0.0))
    else:
        found = paired(rows.values(arm, metric), rows.values(against, metric))
    if beside:
        found = paired_gaps(*(gaps_of(*(rows.values(c, metric) for c in cells.values())) for cells in (sides, others)))
    places = [cells for cells in (sides, others) if cells]  # each may have a length and a search of its own
    about = {"searched": search.told(rows, {**sides, **others}) if against else "-"}
    if found.n < NEEDED:
        why = f"{several(found.n, 'pair')} of seeds, {NEEDED} needed"
        return Finding("inconclusive", why, found.difference, found.n, **about)
    for cells in places:
        _same_length(rows, cells)
    if sides and not others and curves and metric in ("final", "best", rows.metric):
        ours, theirs = (curves.of(rows, rows.at_best(cell), rows.metric) for cell in sides.values())
        about["steps"] = steps_to_target(ours, theirs, rows.higher)
    if why := search.undertuned(rows.search, *(search.searched(rows, cells) for cells in places)):
        return Finding("undertuned", why, found.difference, found.n, **about)
    if test["kind"] == "parity":
        return _parity(found, float(test["margin"]), about)
    if test["kind"] == "curves":
        return _curves(test, rows, sides, found, float(test.get("margin", matters or 0)), curves or Curves(), about)
    metric_higher = rows.higher if metric in ("final", "best") else True
    return _difference(found, metric_higher, test.get("better", "arm") == "arm", matters if against else None, about)


def _name(test: dict, side: str) -> str:
    words = " ".join(test[side].values())
    return f"{words} (the {'arm' if side == 'arm' else 'baseline'})"


def _same_length(rows: Rows, sides: dict[str, dict]) -> None:
    lengths = {name: {r.get("max_steps") for r in rows.at_best(cell)} for name, cell in sides.items()}
    if len(set().union(*lengths.values())) > 1:
        told = "; ".join(f"{name} {', '.join(map(str, sorted(found)))}" for name, found in lengths.items())
        raise ValueError(f"no comparison at equal length: steps of {told}; the test must name runs of one length")


def _decided(found: Paired) -> str:
    parts = [f"{found.lost} lost" if found.lost else "", f"{found.won} won" if found.won else ""]
    words = " and ".join(p for p in parts if p)
    return f"of {found.n} pairs {words} by divergence" if words else ""


def _parity(found: Paired, margin: float, about: dict) -> Finding:
    d = found.difference
    if found.lost or found.won:
        every = max(found.lost, found.won) == found.n
        return Finding("no" if every else "inconclusive", _decided(found), d, found.n, **about)
    inside, outside = _p_alike(found, margin), p_outside(d, margin)
    about = {**about, "p": min(inside, outside), "distance": abs(margin - abs(d.mean))}
    if inside < 0.05:
        return Finding("yes", f"inside the margin of {margin:g}", d, found.n, **{**about, "p": inside})
    if d.low > margin or d.high < -margin:
        return Finding("no", f"outside the margin of {margin:g}", d, found.n, **{**about, "p": outside})
    crosses = BY_PAIRS if p_inside(d, margin) < 0.05 else f"the interval crosses the margin of {margin:g}"
    return Finding("inconclusive", crosses, d, found.n, **about)


def _p_alike(found: Paired, margin: float) -> float:
    """Of a difference inside the margin: the larger of the pairs' p and that of the two sides, pairs forgotten.

    Of a metric that is itself a difference, held against nothing, pairs are all there is.
    """
    by_pairs = p_inside(found.difference, margin)
    return max(by_pairs, p_same(*found.sides, margin)) if any(found.sides[1]) else by_pairs


def _difference(found: Paired, higher: bool, arm_better: bool, matters: float | None, about: dict) -> Finding:
    """Divergence is the worst value: a side that has it in every pair, or in some while the others agree, loses."""
    d = found.difference
    if found.lost != found.won:
        arm_lost = found.lost > found.won
        answer = "yes" if arm_lost != arm_better else "no"
        if abs(found.lost - found.won) == found.n:
            return Finding(answer, _decided(found), d, found.n, **about)
        agrees = d.low is not None and (d.high < 0 if higher == arm_lost else d.low > 0)
        if agrees:  # the rest of the pairs says the same
            about = {**about, "p": p_against(d), "distance": abs(d.mean)}
            return Finding(answer, _decided(found) + ", the others agree", d, found.n, **about)
        return Finding("inconclusive", _decided(found), d, found.n, **about)
    if d.low is None:
        return Finding("inconclusive", _decided(found) or "one pair", d, found.n, **about)
    # "They differ" and "they differ by less than matters" cannot both be false, so the two count once in the family,
    # with the p of the one that is said.
    inside = _p_alike(found, matters) if matters else 1.0
    about = {**about, "p": min(p_against(d), inside), "distance": max(abs(d.mean), matters or 0)}
    side = "better" if (d.mean > 0) == higher else "worse"
    excludes_zero = d.low > 0 or d.high < 0
    if inside < 0.05:
        why = f"{side} by less than matters" if excludes_zero else "no difference that matters"
        return Finding("level", f"{why} ({matters:g})", d, found.n, **{**about, "p": inside})
    if not excludes_zero:
        why = BY_PAIRS if matters and p_inside(d, matters) < 0.05 else "the interval includes zero"
        return Finding("inconclusive", why, d, found.n, **about)
    near = matters and min(abs(d.low), abs(d.high)) < matters
    why = f"the arm is {side}" + (f", perhaps by less than matters ({matters:g})" if near else "")
    about["p"] = p_against(d)
    return Finding("yes" if (side == "better") == arm_better else "no", why, d, found.n, **about)


def _curves(test: dict, rows: Rows, sides: dict, found: Paired, margin: float, curves: Curves, about: dict) -> Finding:
    metric = rows.metric if test["metric"] == "final" else test["metric"]
    ours, theirs = (curves.of(rows, rows.at_best(cell), metric) for cell in sides.values())
    if found.lost or found.won:
        every = max(found.lost, found.won) == found.n
        return Finding("no" if every else "inconclusive", _decided(found), None, found.n, **about)
    gap = gaps(ours, theirs, margin)
    if gap is None or gap.largest.n < NEEDED:
        n = gap.largest.n if gap else 0
        return Finding("inconclusive", f"{several(n, 'pair')} of curves, {NEEDED} needed", None, n, **about)
    about = {**about, "p": min(gap.p_on, gap.p_apart)}
    where = f"at step {gap.step}; " + (
        "the gap does not close" if gap.closes is None else f"within the margin from step {gap.closes} on"
    )
    if gap.p_on < 0.05:
        about["p"] = gap.p_on
        return Finding("yes", f"the curves lie on each other, {where}", gap.largest, gap.largest.n, **about)
    if gap.p_apart < 0.05:
        about["p"] = gap.p_apart
        return Finding("no", f"the curves lie apart, {where}", gap.largest, gap.largest.n, **about)
    return Finding("inconclusive", f"neither on each other nor apart, {where}", gap.largest, gap.largest.n, **about)


def _trend(test: dict, rows: Rows, arm: dict, metric: str) -> Finding:
    points, diverged, seeds = [], 0, set()
    for row in rows.of(arm):
        value = rows.value(row, metric)
        seeds.add(row["seed"])
        if value is None:
            diverged += 1
        elif row.get(test["over"]) not in (None, ""):
            points.append((float(row[test["over"]]), value))
    found = rank_correlation(*zip(*points, strict=True)) if points else Interval(0, None)
    if len(seeds) < NEEDED:
        return Finding("inconclusive", f"{several(len(seeds), 'seed')}, {NEEDED} needed", found, len(seeds))
    note = f"; {diverged} diverged runs left out" if diverged else ""
    if found.low is None:
        return Finding("inconclusive", "too few points for a rank correlation" + note, found, len(seeds))
    p = p_rank(*zip(*points, strict=True))
    if p >= 0.05:
        return Finding("inconclusive", "the rank correlation may be zero" + note, found, len(seeds), p)
    rises = found.mean > 0
    says = f"{metric} {'rises' if rises else 'falls'} with {test['over']}" + note
    return Finding("yes" if rises == (test["sign"] == "+") else "no", says, found, len(seeds), p)


def _best(test: dict, rows: Rows, arm: dict, metric: str, matters: float | None) -> Finding:
    """Yes where the paper's level beats every other; no where the best level beats it, for which all were looked at."""
    over, named = test["over"], str(test["level"])
    levels = list(dict.fromkeys(r[over] for r in rows.of(arm) if r.get(over) not in (None, "")))
    sides = {level: {**arm, over: level} for level in levels}
    rows = rows.alike(sides.values())
    values = {level: rows.values(cell, metric) for level, cell in sides.items()}
    about = {"searched": search.told(rows, sides)}
    if named not in values:
        return Finding("inconclusive", f"{over} {named} was not run")
    seeds = set.intersection(*(set(v) for v in values.values()))  # those that every level has
    values = {level: {seed: v[seed] for seed in sorted(seeds)} for level, v in values.items()}
    n = len(seeds)
    means = {
        level: math.fsum(v.values()) / n for level, v in values.items() if n and all(x is not None for x in v.values())
    }
    if n < NEEDED:
        return Finding("inconclusive", f"{several(n, 'seed')}, {NEEDED} needed", None, n, **about)
    if not means:
        return Finding("inconclusive", "every level diverged", None, n, **about)
    _same_length(rows, sides)
    if why := search.undertuned(rows.search, search.searched(rows, sides)):
        return Finding("undertuned", why, None, n, **about)
    order = sorted(means, key=means.get, reverse=rows.higher)
    best = order[0]
    others = [level for level in levels if level != named]
    partly = [level for level in levels if level not in means and _fine(values[level])]
    if partly and (best == named or named in partly):
        return Finding(
            "inconclusive", f"{over} {', '.join(partly)} diverged in some seeds and not in all", None, n, **about
        )
    if best == named:
        if len(order) < 2:  # every other level diverged
            return Finding("yes", f"{over} {named} is best of {', '.join(levels)}", interval(_fine(values[named])), n)
        # It must beat each of the others: the largest p counts.
        pairs = {level: paired(values[named], values[level]).difference for level in order[1:]}
        ps = {level: p for level, d in pairs.items() if (p := p_against(d)) is not None}
        rival = max(ps, key=ps.get) if ps else order[1]
        d, p = pairs[rival], ps.get(rival)
        about |= {"p": p, "distance": max(abs(d.mean), matters or 0)}
        if p is None or p >= 0.05:
            return Finding("inconclusive", f"{over} {named} is best, {rival} not clearly worse", d, n, **about)
        return Finding("yes", f"{over} {named} is best of {', '.join(levels)}; against {rival}", d, n, **about)
    found = paired(values[named], values[best])
    d = found.difference
    if found.lost:
        return Finding("no", f"{over} {best} is better than {named}, which diverged", d, n, **about)
    p = min(1.0, len(others) * p_against(d))  # the best of so many others was picked after looking
    about |= {"p": p, "distance": max(abs(d.mean), matters or 0)}
    if p < 0.05:
        return Finding("no", f"{over} {best} is better than {named}", d, n, **about)
    return Finding("inconclusive", f"{over} {best} is best, {named} not clearly worse", d, n, **about)


def _fine(values: dict) -> list[float]:
    return [v for v in values.values() if v is not None]


def _diverges(test: dict, rows: Rows, arm: dict) -> Finding:
    found = rows.values(arm)
    n, gone = len(found), sum(v is None for v in found.values())
    why = f"{gone} of {n} runs diverged or ended no better than chance"
    if n < NEEDED:
        return Finding("inconclusive", f"{several(n, 'seed')}, {NEEDED} needed", None, n)
    if why_not := search.undertuned(rows.search, search.searched(rows, {_name(test, "arm"): arm})):
        return Finding("undertuned", f"{why}; {why_not}", None, n)
    return Finding("yes" if gone == n else "no" if gone == 0 else "inconclusive", why, None, n)


def below_floor(rows: Rows, floor: dict, scale: str) -> str | None:
    """Why the baseline is too weak for its comparisons to mean anything, or None."""
    if not floor or scale not in floor.get("level", {}):
        return None
    level = float(floor["level"][scale])
    cell = {k: [str(x) for x in v] if isinstance(v, list) else str(v) for k, v in floor["cell"].items()}
    values = rows.values(cell)
    fine = _fine(values)
    words = " ".join(" or ".join(v) if isinstance(v, list) else v for v in cell.values())
    if not fine or len(fine) < len(values):
        return f"the baseline ({words}) has no finished run" if not fine else f"the baseline ({words}) diverged"
    mean = math.fsum(fine) / len(fine)
    reached = mean >= level if rows.higher else mean <= level
    return None if reached else f"{words} is at {mean:.4g}, and {level:g} is needed"
