"""A study: one file of ``configs/study/``, and the runs that each of its scales consists of."""

import copy
import functools
import itertools
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from dyt.config import compose
from dyt.config.arguments import closest
from dyt.rundir.meaning import rises

SCALES = ("smoke", "small", "medium", "gpu", "paper")
FOLDER = compose.CONFIGS / "study"
KEYS = set(
    "title metric base factors baseline search pool floor collapse derived ladder scales tests figures own".split()
)
SCALE_KEYS = {"base", "replace", "grid", "seeds", "spec", "about"}
TEST_KEYS = set("says claims paper kind arm against beside margin better over metric sign level scales where".split())
KINDS = ("difference", "parity", "trend", "best", "curves", "diverges")


@dataclass(frozen=True)
class Run:
    """One run of a study at a scale: a level for each factor, a seed, and the overrides that make it."""

    study: str
    scale: str
    cell: dict[str, str]  # factor -> level; a factor that the run's grid leaves out is absent
    seed: int
    words: tuple[str, ...]
    late: bool = False  # a further seed, only for the searched level that the first seeds chose

    @property
    def label(self) -> str:
        return " ".join([*self.cell.values(), f"s{self.seed}"])

    def config(self) -> dict:
        """The composed config, as ``train.py <words>`` would have it.

        Raises:
            ValueError: the words do not compose.
        """
        made = copy.deepcopy(_compose(self.words))
        made["seed"], made["tag"] = self.seed, self.study
        return made


@functools.lru_cache(maxsize=4096)
def _compose(words: tuple[str, ...]) -> dict:
    return compose.load(list(words))


def names() -> list[str]:
    """Every study, by file name."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


@functools.cache  # --check asks for each study many times, and PyYAML is slow
def _parsed(text: str) -> dict:
    return yaml.safe_load(text)


class Study:
    """A study's file, checked.

    Args:
        name: of ``configs/study/``, or the path of another file that ends with .yaml.

    Raises:
        ValueError: no such study, or its file has a key, level or claim that does not exist.
    """

    def __init__(self, name: str):
        self.name, self.path = Path(name).stem, Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
        if not self.path.is_file():
            raise ValueError(
                f"study {name}: {closest(name, names())}choose from {', '.join(names())}, or give a .yaml file"
            )
        self.raw = copy.deepcopy(_parsed(self.path.read_text()))
        self._check(self.raw, KEYS, "")
        self.title, self.metric = self.raw["title"], self.raw["metric"]
        self.percent = self.metric.split("/")[-1].startswith("top")  # an accuracy
        self.higher_is_better = rises(self.metric)
        self.factors = {name: _levels(name, levels) for name, levels in self.raw["factors"].items()}
        self.baseline: dict = _strings(self.raw.get("baseline", {}))
        self.search, self.unsearched = self._search(self.raw.get("search"))
        self.pool: list[str] = self.raw.get("pool", [])  # studies whose baseline runs tell more of the seeds' spread
        self.floor: dict = self.raw.get("floor") or {}
        self.collapse: dict = self.raw.get("collapse") or {}  # scale -> level: a run no better counts as diverged
        self.derived: list[str] = self.raw.get("derived", [])
        # size: the factor; held_out: its level that is predicted first; extrapolate: {name: parameters}
        self.ladder: dict = self.raw.get("ladder", {})  # held_out by scale
        self.figures: list[dict] = self.raw.get("figures", [])
        self.own: bool = self.raw.get("own", False)  # a hypothesis of this repository, in no paper
        self.scales: dict = self.raw["scales"]
        for scale, about in self.scales.items():
            if scale not in SCALES:
                raise ValueError(f"{self.path}: scale {scale}: choose from {', '.join(SCALES)}")
            self._check(about, SCALE_KEYS, f"scales.{scale}.")
            if self.ladder and scale not in self.ladder["held_out"]:
                raise ValueError(
                    f"{self.path}: ladder.held_out: say which size scale {scale} predicts before it runs it"
                )
            if self.ladder and self.search:
                self._can_run_what_is_chosen(scale)
        self.tests = [self._test(t) for t in self.raw["tests"]]

    def _check(self, found: dict, known: set, where: str) -> None:
        for key in found:
            if key not in known:
                raise ValueError(f"{self.path}: {where}{key}: unknown; {closest(key, known)}keys: {', '.join(known)}")

    def _can_run_what_is_chosen(self, scale: str) -> None:
        """A ladder's held-out size runs at the level that a smaller one chose, so it must be planned at all of them."""
        size, held = self.ladder["size"], str(self.ladder["held_out"][scale])
        cells = self.cells(scale)
        there = [{**cell, size: held} for cell in cells if cell[size] == held]
        if lost := [cell for cell in cells if {**cell, size: held} not in there]:
            raise ValueError(
                f"{self.path}: scales.{scale}.grid: {size} {held} is not run at {self.search} {lost[0][self.search]}, "
                f"which {' '.join(v for f, v in lost[0].items() if v and f != self.search)} may choose"
            )

    def _search(self, said) -> tuple[str | None, str | None]:
        """The factor whose level each arm may choose, or why there is none."""
        if said in self.factors:
            return said, None
        if not isinstance(said, str) or not said.startswith("none, "):
            raise ValueError(
                f"{self.path}: search: {said}: a study says what each arm may choose, e.g. search: lr (one of its "
                'factors), or why nothing is searched, e.g. search: "none, one learning rate for all arms"'
            )
        return None, said.removeprefix("none, ")

    def _test(self, test: dict) -> dict:
        self._check(test, TEST_KEYS, "tests.")
        if test["kind"] not in KINDS:
            raise ValueError(f"{self.path}: tests.kind {test['kind']}: choose from {', '.join(KINDS)}")
        if test["kind"] == "curves" and not test.get("against"):
            raise ValueError(
                f"{self.path}: tests: {test['says']}: kind curves needs against, the cell of the other curve"
            )
        test = {"claims": [], "metric": "final", "scales": list(self.scales), **test}
        for side in ("arm", "against", "beside", "where"):
            test[side] = _strings(test.get(side) or {})
            for factor, level in test[side].items():
                self._level(factor, level)
        return test

    def _level(self, factor: str, level: str) -> str:
        """The override of a factor's level."""
        if factor not in self.factors:
            raise ValueError(f"{self.path}: {factor} is no factor; factors: {', '.join(self.factors)}")
        levels = self.factors[factor]
        if callable(levels):
            return levels(level)
        if level not in levels:
            raise ValueError(f"{self.path}: {factor} has no level {level}; levels: {', '.join(levels)}")
        return levels[level]

    def scale(self, scale: str) -> dict:
        """What a scale means.

        Raises:
            ValueError: this study does not have it.
        """
        if scale not in self.scales:
            raise ValueError(f"{self.name} has no scale {scale}; its scales: {', '.join(self.scales)}")
        return self.scales[scale]

    def runs(self, scale: str, seeds: int | None = None) -> list[Run]:
        """Every run of a scale: grid by grid and seed by seed, so that an interrupted study has whole comparisons."""
        about = self.scale(scale)
        grids = about["grid"] if isinstance(about["grid"], list) else [about["grid"]]
        words_of: dict[tuple, tuple[str, ...]] = {}
        made: dict[tuple, Run] = {}
        for grid in grids:
            grid = dict(grid)
            common = [] if about.get("replace") else _words(self.raw.get("base"))
            last = [*_words(about.get("base")), *_words(grid.pop("base", None))]  # a scale wins over levels: it shrinks
            own, first = grid.pop("seeds", None), grid.pop("search_seeds", None)  # first: seeds that choose the level
            count = seeds or own or about["seeds"]
            chosen = {f: self._chosen(f, grid[f]) for f in self.factors if f in grid}
            for extra in grid.keys() - chosen.keys():
                raise ValueError(f"{self.path}: {extra} is no factor; factors: {', '.join(self.factors)}")
            cells = []
            for levels in itertools.product(*chosen.values()):
                cell = dict(zip(chosen, levels, strict=True))
                words = _once([*common, *(w for f, v in cell.items() for w in _words(self._level(f, v))), *last])
                if words_of.setdefault(tuple(cell.items()), words) != words:
                    raise ValueError(f"{self.path}: scale {scale}: two grids give {cell} different settings")
                cells.append((cell, words))
            for seed, (cell, words) in itertools.product(range(count), cells):
                key = tuple(cell.items())
                late = first is not None and self.search in cell and seed >= first
                if (key, seed) not in made or (made[key, seed].late and not late):
                    made[key, seed] = Run(self.name, scale, cell, seed, words, late)
        return list(made.values())

    def _chosen(self, factor: str, asked) -> list[str]:
        if asked == "all":
            return list(self.factors[factor])
        return [_text(level) for level in (asked if isinstance(asked, list) else [asked])]

    def cells(self, scale: str) -> list[dict]:
        """The distinct cells of a scale, in the file's order."""
        seen: dict[tuple, dict] = {}
        for run in self.runs(scale, 1):
            seen[tuple(run.cell.items())] = run.cell
        return list(seen.values())

    def tests_at(self, scale: str) -> list[dict]:
        return [t for t in self.tests if scale in t["scales"]]

    def header(self) -> str:
        """The comment at the top of its file: claim, command, cost, expected number, floor."""
        lines = itertools.takewhile(lambda line: line.startswith("#"), self.path.read_text().splitlines())
        return "\n".join(line.removeprefix("#").strip() for line in lines)


def _text(level) -> str:
    if isinstance(level, bool):
        return str(level).lower()
    return f"{level:g}" if isinstance(level, float) else str(level)


def _strings(cell: dict) -> dict:
    return {k: [_text(v) for v in value] if isinstance(value, list) else _text(value) for k, value in cell.items()}


def _words(text) -> list[str]:
    """Overrides as written in a study: one text, blanks between them, or a list of such."""
    if text is None:
        return []
    return [w for part in (text if isinstance(text, list) else [text]) for w in _split(part)]


_split = functools.cache(shlex.split)


def _once(words: list[str]) -> tuple[str, ...]:
    """Each key once, its last value."""
    return tuple({word.partition("=")[0]: word for word in words}.values())


def _levels(name: str, levels):
    """``{level: overrides}``, or for a bare key a function from the level to its override."""
    if isinstance(levels, str):
        return lambda level: f"{levels}={level}"
    return {_text(level): words for level, words in levels.items()}


def result_folder(root: Path, study: str, scale: str) -> Path:
    return root / study / scale
