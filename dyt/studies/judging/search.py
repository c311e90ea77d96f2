"""Equal search: both sides of a comparison chose from the same levels, as often tried, and not at the edge of them.

After the tuning playbook: a best value at the edge of its range says that the range was too narrow.
"""

from dataclasses import dataclass

from dyt.studies.judging.cells import Rows


@dataclass(frozen=True)
class Searched:
    """What one side of a comparison could choose from, and what it chose."""

    name: str  # "dyt (the arm)"
    levels: tuple[str, ...]  # lowest first
    seeds: int  # tried at every level
    chosen: str

    @property
    def range(self) -> str:
        return " to ".join(dict.fromkeys((self.levels[0], self.levels[-1])))

    @property
    def edge(self) -> str | None:
        if len(self.levels) < 2 or self.chosen not in (self.levels[0], self.levels[-1]):
            return None
        return "lowest" if self.chosen == self.levels[0] else "highest"


def searched(rows: Rows, sides: dict[str, dict]) -> list[Searched]:
    """The search of each side, ``{name: cell}``; empty where nothing is searched or a side names its level."""
    if not rows.search or any(rows.search in cell for cell in sides.values()):
        return []
    found = []
    for name, cell in sides.items():
        if levels := rows.levels(cell):
            seeds = min(len({r["seed"] for r in own}) for own in levels.values())
            found.append(Searched(name, tuple(level or "" for level in levels), seeds, rows.chosen(cell) or ""))
    return found


def undertuned(factor: str | None, *places: list[Searched]) -> str | None:
    """Why the sides were not tuned alike, or not far enough, and which; None where they were.

    Args:
        places: the sides that are compared with each other, for each place in which they are.
    """
    edges = []
    for sides in places:
        if len({(s.levels, s.seeds) for s in sides}) > 1:
            told = [f"{s.name} had {len(s.levels)} x {s.seeds} seeds ({', '.join(s.levels)})" for s in sides]
            return f"unequal search of {factor}: {'; '.join(told)}"
        edges += [
            f"{s.name} is best at the {s.edge} {factor} searched, {s.chosen} of {s.range}" for s in sides if s.edge
        ]
    return f"{'; '.join(edges)}: widen the range" if edges else None


def told(rows: Rows, sides: dict[str, dict]) -> str:
    """What was searched and what was chosen, for a table's column."""
    if not rows.search:
        return "not searched"
    found = searched(rows, sides)
    if not found:
        levels = [cell.get(rows.search) for cell in sides.values()]
        return f"fixed: {rows.search} {' and '.join(dict.fromkeys(v for v in levels if v))}" if any(levels) else "-"
    if all(len(s.levels) == 1 for s in found):
        only = [level for level in dict.fromkeys(s.chosen for s in found) if level]
        return "not searched" + (f": {rows.search} {' and '.join(only)}" if only else "")
    chosen = " and ".join(s.chosen for s in found)
    ranges = dict.fromkeys(f"{len(s.levels)} of {s.range}" for s in found)
    by = f" by seed {' and '.join(map(str, sorted(rows.electors)))}, which both tried" if rows.electors else ""
    return f"{rows.search}: {' and '.join(ranges)}; chosen {chosen}{by}"
