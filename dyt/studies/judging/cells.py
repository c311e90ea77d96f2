"""A study's rows, asked by cell: which runs a test's arm means, at which level of the searched factor."""

import copy
import math
from collections.abc import Iterable

DONE = ("finished", "diverged")


class Rows:
    """The rows of a study at a scale, asked by cell. `search` is the factor whose best level each cell may take."""

    def __init__(self, rows: Iterable[dict], factors: Iterable[str], higher_is_better: bool, **settings):
        self.rows = [r for r in rows if r.get("status") in DONE]
        self.factors = list(factors)
        self.higher = higher_is_better
        self.metric: str = settings.get("metric", "")
        self.search: str | None = settings.get("search")
        self.electors: set[int] | None = None  # the seeds that may choose a level; None: all
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

    def levels(self, cell: dict) -> dict[str, list[dict]]:
        """The cell's rows by level of the searched factor, lowest first; of the seeds that every level has, if any.

        And of those only the seeds that may choose, see :meth:`alike`.
        """
        found: dict[str, list[dict]] = {}
        for row in self.of(cell):
            found.setdefault(row.get(self.search), []).append(row)
        common = set.intersection(*({r["seed"] for r in rows} for rows in found.values())) if found else set()
        if self.electors and common & self.electors:
            common &= self.electors
        if common:
            found = {level: [r for r in rows if r["seed"] in common] for level, rows in found.items()}
        try:
            return dict(sorted(found.items(), key=lambda item: float(item[0])))
        except (TypeError, ValueError):  # levels that are words keep the file's order
            return found

    def alike(self, cells: Iterable[dict]) -> "Rows":
        """These rows, with each of `cells` choosing its level by the seeds that all of them tried at every level.

        So a baseline that was searched with three seeds and an arm that was searched with one are compared as if both
        had been searched with the one. Where they share no seed, each keeps its own.
        """
        levels = [self.levels(cell) for cell in cells] if self.search else []
        tried = [set.intersection(*({r["seed"] for r in own} for own in found.values())) for found in levels if found]
        asked = copy.copy(self)
        asked.electors = set.intersection(*tried) if any(seeds != tried[0] for seeds in tried) else None
        return asked

    def chosen(self, cell: dict) -> str | None:
        """The searched factor's level with the best mean final value; fewest divergences come first."""
        levels = {level: [self.value(r) for r in rows] for level, rows in self.levels(cell).items()}

        def badness(level):
            fine = [v for v in levels[level] if v is not None]
            mean = math.fsum(fine) / len(fine) if fine else math.inf
            return (len(levels[level]) - len(fine)) / len(levels[level]), -mean if self.higher and fine else mean

        return min(levels, key=badness) if levels else None

    def mixed(self, cell: dict) -> str | None:
        """The factor that a cell should have fixed: it has several rows for a seed."""
        rows = self.at_best(cell)
        if len({r["seed"] for r in rows}) == len(rows):
            return None
        return next((f for f in self.factors if len({r.get(f) for r in rows}) > 1), "seed")
