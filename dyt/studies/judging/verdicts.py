"""What rows say about a claim: one of five kinds of test, and a verdict that never says more than the scale allows.

    difference  the arm differs from the baseline, on the side that `better` names; the interval excludes zero
    parity      the difference lies inside the margin
    trend       the metric rises (sign +) or falls (sign -) with the factor `over`: rank correlation over runs
    best        of the levels of `over`, the paper's `level` is the best
    diverges    the arm's runs diverge

A row is a dict with the factors, ``seed``, ``status`` and metrics. Fewer than 3 seeds are always inconclusive.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from dyt.studies.statistics import Interval, Paired, interval, paired, rank_correlation

NEEDED = 3  # seeds
WORDS = {"paper": {"yes": "reproduced", "no": "contradicted"}}
TOY = {"yes": "agrees", "no": "disagrees"}
DONE = ("finished", "diverged")


@dataclass(frozen=True)
class Finding:
    """What one test found: yes, no, inconclusive or undertrained, and the numbers and words behind it."""

    answer: str
    why: str
    interval: Interval | None = None
    n: int = 0

    def verdict(self, scale: str) -> str:
        return WORDS.get(scale, TOY).get(self.answer, self.answer)


class Rows:
    """The rows of a study at a scale, asked by cell. `search` is the factor whose best level each cell may take."""

    def __init__(self, rows: Iterable[dict], factors: Iterable[str], higher_is_better: bool, **settings):
        self.rows = [r for r in rows if r.get("status") in DONE]
        self.factors = list(factors)
        self.higher = higher_is_better
        self.search: str | None = settings.get("search")
        self.collapse: float | None = settings.get("collapse")

    def value(self, row: dict, metric: str = "final") -> float | None:
        """A row's metric, None where the run diverged or ended no better than the study's collapse level."""
        if row["status"] == "diverged" or (row.get("final") is None or not math.isfinite(row["final"])):
            return None
        if self.collapse is not None and (row["final"] < self.collapse) == self.higher:
            return None
        found = row.get(metric)
        return None if found is None or not math.isfinite(found) else found

    def of(self, cell: dict) -> list[dict]:
        """Rows whose factors agree with `cell`; a list of levels takes any; a factor no row has is passed over."""
        known = {f: v for f, v in cell.items() if any(r.get(f) not in (None, "") for r in self.rows)}
        return [
            r
            for r in self.rows
            if all(r.get(f) in v if isinstance(v, list) else r.get(f) == v for f, v in known.items())
        ]

    def values(self, cell: dict, metric: str = "final") -> dict[int, float | None]:
        """Values by seed of the cell, at the best level of the searched factor where the cell leaves it open."""
        return {r["seed"]: self.value(r, metric) for r in self.at_best(cell)}

    def at_best(self, cell: dict) -> list[dict]:
        """Rows of the cell, at the searched factor's best level where the cell leaves it open."""
        rows = self.of(cell)
        if self.search and self.search not in cell:
            level = self.chosen(cell)
            rows = [r for r in rows if r.get(self.search) == level]
        return rows

    def chosen(self, cell: dict) -> str | None:
        """The searched factor's level with the best mean final value; fewest divergences come first."""
        by_level: dict[str, list] = {}
        for row in self.of(cell):
            by_level.setdefault(row.get(self.search), []).append(self.value(row))
        if not by_level:
            return None

        def badness(level):
            values = by_level[level]
            fine = [v for v in values if v is not None]
            mean = math.fsum(fine) / len(fine) if fine else math.inf
            return (len(values) - len(fine)) / len(values), -mean if self.higher and fine else mean

        return min(by_level, key=badness)

    def mixed(self, cell: dict) -> str | None:
        """The factor that a cell should have fixed: it has several rows for a seed."""
        rows = self.at_best(cell)
        if len({r["seed"] for r in rows}) == len(rows):
            return None
        return next((f for f in self.factors if len({r.get(f) for r in rows}) > 1), "seed")


def judge(test: dict, rows: Rows, floor: str | None = None) -> Finding:
    """The finding of one test; `floor` says why the baseline is too weak for any comparison, None where it is not.

    Raises:
        ValueError: a cell of the test is not one cell but several.
    """
    if floor:
        return Finding("undertrained", floor)
    where = test.get("where") or {}
    arm, metric = {**where, **test["arm"]}, test["metric"]
    if test["kind"] == "diverges":
        return _diverges(rows, arm)
    if test["kind"] == "trend":
        return _trend(test, rows, arm, metric)
    if test["kind"] == "best":
        return _best(test, rows, arm, metric)
    against = {**where, **test["against"]} if test.get("against") else None
    for cell in (arm, against):
        if cell is not None and (factor := rows.mixed(cell)):
            raise ValueError(f"{cell}: several rows for a seed; the test must fix {factor}")
    if against is None:  # the metric is itself a difference
        found = paired(rows.values(arm, metric), dict.fromkeys(rows.values(arm, metric), 0.0))
    else:
        found = paired(rows.values(arm, metric), rows.values(against, metric))
    if found.n < NEEDED:
        return Finding("inconclusive", f"{found.n} pairs of seeds, {NEEDED} needed", found.difference, found.n)
    if test["kind"] == "parity":
        return _parity(found, float(test["margin"]))
    metric_higher = rows.higher if metric in ("final", "best") else True
    return _difference(found, metric_higher, test.get("better", "arm") == "arm")


def _decided(found: Paired) -> str:
    parts = [f"{found.lost} lost" if found.lost else "", f"{found.won} won" if found.won else ""]
    words = " and ".join(p for p in parts if p)
    return f"of {found.n} pairs {words} by divergence" if words else ""


def _parity(found: Paired, margin: float) -> Finding:
    d = found.difference
    if found.lost or found.won:
        half = 2 * max(found.lost, found.won) >= found.n
        return Finding("no" if half else "inconclusive", _decided(found), d, found.n)
    if d.low >= -margin and d.high <= margin:
        return Finding("yes", f"inside the margin of {margin:g}", d, found.n)
    if d.low > margin or d.high < -margin:
        return Finding("no", f"outside the margin of {margin:g}", d, found.n)
    return Finding("inconclusive", f"the interval crosses the margin of {margin:g}", d, found.n)


def _difference(found: Paired, higher: bool, arm_better: bool) -> Finding:
    """Divergence counts as the worst value: the side with more of it loses when that is half the pairs or more."""
    d = found.difference
    if found.lost != found.won:
        arm_lost = found.lost > found.won
        if 2 * abs(found.lost - found.won) >= found.n:
            return Finding("yes" if arm_lost != arm_better else "no", _decided(found), d, found.n)
        agrees = d.low is not None and (d.high < 0 if higher == arm_lost else d.low > 0)
        if agrees:  # the rest of the pairs says the same
            return Finding(
                "yes" if arm_lost != arm_better else "no", _decided(found) + ", the others agree", d, found.n
            )
        return Finding("inconclusive", _decided(found), d, found.n)
    if d.low is None:
        return Finding("inconclusive", _decided(found) or "one pair", d, found.n)
    if d.low <= 0 <= d.high:
        return Finding("inconclusive", "the interval includes zero", d, found.n)
    arm_is_better = (d.mean > 0) == higher
    side = "better" if arm_is_better else "worse"
    return Finding("yes" if arm_is_better == arm_better else "no", f"the arm is {side}", d, found.n)


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
        return Finding("inconclusive", f"{len(seeds)} seeds, {NEEDED} needed", found, len(seeds))
    note = f"; {diverged} diverged runs left out" if diverged else ""
    if found.low is None:
        return Finding("inconclusive", "too few points for a rank correlation" + note, found, len(seeds))
    if found.low <= 0 <= found.high:
        return Finding("inconclusive", "the interval of the rank correlation includes zero" + note, found, len(seeds))
    rises = found.mean > 0
    says = f"{metric} {'rises' if rises else 'falls'} with {test['over']}" + note
    return Finding("yes" if rises == (test["sign"] == "+") else "no", says, found, len(seeds))


def _best(test: dict, rows: Rows, arm: dict, metric: str) -> Finding:
    """Yes where the paper's level is best; no where it is worse than the best with an interval that excludes zero."""
    over, named = test["over"], str(test["level"])
    levels = list(dict.fromkeys(r[over] for r in rows.of(arm) if r.get(over) not in (None, "")))
    values = {level: rows.values({**arm, over: level}, metric) for level in levels}
    if named not in values:
        return Finding("inconclusive", f"{over} {named} was not run")
    n = min(len(v) for v in values.values())
    means = {
        level: math.fsum(v.values()) / len(v)
        for level, v in values.items()
        if v and all(x is not None for x in v.values())
    }
    if n < NEEDED:
        return Finding("inconclusive", f"{n} seeds, {NEEDED} needed", None, n)
    if not means:
        return Finding("inconclusive", "every level diverged", None, n)
    best = (max if rows.higher else min)(means, key=means.get)
    if best == named:
        return Finding("yes", f"{over} {named} is best of {', '.join(levels)}", interval(_fine(values[best])), n)
    found = paired(values[named], values[best])
    if found.lost or (found.difference.low is not None and not found.difference.low <= 0 <= found.difference.high):
        return Finding("no", f"{over} {best} is better than {named}", found.difference, n)
    return Finding("inconclusive", f"{over} {best} is best, {named} not clearly worse", found.difference, n)


def _fine(values: dict) -> list[float]:
    return [v for v in values.values() if v is not None]


def _diverges(rows: Rows, arm: dict) -> Finding:
    found = rows.values(arm)
    n, gone = len(found), sum(v is None for v in found.values())
    why = f"{gone} of {n} runs diverged or ended no better than chance"
    if n < NEEDED:
        return Finding("inconclusive", f"{n} seeds, {NEEDED} needed", None, n)
    return Finding("yes" if gone == n else "no" if gone == 0 else "inconclusive", why, None, n)


def below_floor(rows: Rows, floor: dict, scale: str) -> str | None:
    """Why the baseline is too weak for its comparisons to mean anything, or None."""
    if not floor or scale not in floor.get("level", {}):
        return None
    level = float(floor["level"][scale])
    cell = {k: str(v) for k, v in floor["cell"].items()}
    values = rows.values(cell)
    fine = _fine(values)
    words = " ".join(cell.values())
    if not fine or len(fine) < len(values):
        return f"the baseline ({words}) has no finished run" if not fine else f"the baseline ({words}) diverged"
    mean = math.fsum(fine) / len(fine)
    reached = mean >= level if rows.higher else mean <= level
    return None if reached else f"{words} is at {mean:.4g}, and {level:g} is needed"
