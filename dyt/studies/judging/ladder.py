"""Loss against model size: a law fitted to each arm's sizes, and a prediction of a larger one before it is run.

L(N) = E + A N^-b, after the scaling laws of Kaplan et al. (2020) and Hoffmann et al. (2022), with N the parameters.
A study that has the key ``ladder`` keeps one size out: its runs wait until ``prediction.json`` stands in the results.
That file names the rows it was made of; it is refused where they are gone or changed, or lead to other numbers.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dyt.rundir.files import read_json
from dyt.studies.judging.cells import Rows
from dyt.studies.running.study import Run, Study

DRAWS = 400  # of the bootstrap
FILE = "prediction.json"


@dataclass(frozen=True)
class Law:
    """E + A (N / 1e6)^-b: E and A in the loss's unit, A what is lost to size at a million parameters."""

    floor: float
    scale: float
    power: float

    def at(self, parameters) -> np.ndarray:
        return self.floor + self.scale * (np.asarray(parameters, float) / 1e6) ** -self.power


def fit(parameters, losses) -> Law:
    """Least squares over all runs, none of the three below zero.

    Raises:
        ValueError: fewer than three sizes, which the law could meet exactly.
    """
    from scipy.optimize import least_squares

    n, y = np.asarray(parameters, float) / 1e6, np.asarray(losses, float)
    if len(set(n.tolist())) < 3:
        raise ValueError(f"a law of loss against size needs at least 3 sizes, and there are {len(set(n.tolist()))}")
    # b is searched alone; E and A then follow by (non-negative) least squares, so that no start can go astray.
    best = min(np.linspace(0.02, 2.0, 100), key=lambda b: _line(n, y, b)[2])
    floor, scale, _ = _line(n, y, best)
    found = least_squares(
        lambda p: p[0] + p[1] * n ** -p[2] - y,
        [floor, scale, best],
        bounds=([0, 0, 0], [np.inf, np.inf, 4]),
        xtol=1e-12,
    )
    return Law(*map(float, found.x))


def _line(n: np.ndarray, y: np.ndarray, power: float) -> tuple[float, float, float]:
    from scipy.optimize import nnls

    (floor, scale), error = nnls(np.stack([np.ones_like(n), n**-power], 1), y)
    return floor, scale, error


def resampled(groups: dict[int, list[float]], draws: int = DRAWS, seed: int = 0) -> list[Law]:
    """Laws of the bootstrap: within each size, runs are drawn anew with replacement.

    Few seeds resampled vary too little, so each draw is widened about its mean by sqrt(n / (n - 1)). Empty where a size
    has one run alone, which does not vary.
    """
    if min(map(len, groups.values())) < 2:
        return []
    draw = np.random.default_rng(seed)
    laws = []
    for _ in range(draws):
        sizes, losses = [], []
        for size, values in groups.items():
            n, mean = len(values), float(np.mean(values))
            losses += (mean + math.sqrt(n / (n - 1)) * (draw.choice(values, n) - mean)).tolist()
            sizes += [size] * n
        laws.append(fit(sizes, losses))
    return laws


def of_a_run(means, groups: dict[int, list[float]], seed: int = 0) -> np.ndarray:
    """Draws of a mean with what a single run varies about it: the deviation between seeds, pooled over the sizes."""
    left = [v - float(np.mean(values)) for values in groups.values() for v in values]
    sd = math.sqrt(math.fsum(v * v for v in left) / max(1, len(left) - len(groups)))
    return np.asarray(means, float) + sd * np.random.default_rng([seed, 1]).normal(size=len(means))


def spread(values) -> list[float] | None:
    """The middle 95% of draws; None where there are none."""
    if not len(values):
        return None
    return [float(v) for v in np.percentile(np.asarray(values), [2.5, 97.5])]


def kept_out(study: Study, scale: str) -> str:
    """The size that is predicted before it is run, at this scale."""
    return str(study.ladder["held_out"][scale])


def groups_of(rows: Rows, size: str, arm: dict, without: str) -> dict[int, list[float]]:
    """The arm's losses by parameters at its best searched level, for every level of the factor `size` but one."""
    found: dict[int, list[float]] = {}
    for level in dict.fromkeys(r[size] for r in rows.of(arm)):
        if level == without:
            continue
        for row in rows.at_best({**arm, size: level}):
            if (value := rows.value(row)) is not None:
                found.setdefault(row["parameters"], []).append(value)
    return found


def arms(study: Study, rows: Rows) -> list[dict]:
    """The arms whose laws are compared: every level of the baseline's factor."""
    factor = next(iter(study.baseline))
    return [{factor: level} for level in dict.fromkeys(r[factor] for r in rows.rows)]


def predict(study: Study, scale: str, rows: Rows, parameters: dict[str, int], draws: int = DRAWS) -> dict:
    """What prediction.json holds: each arm's law, its loss and its gap to the baseline at the held-out size and beyond.

    An arm whose runs are left at fewer than three sizes has no law, and says so. At the held-out size an interval is of
    one run, as that size is run once; further out it is of the mean.

    Args:
        parameters: by arm, of the held-out size.
    """
    size, factor, without = study.ladder["size"], next(iter(study.baseline)), kept_out(study, scale)
    sizes = {"held_out": None, **{str(k): float(v) for k, v in study.ladder.get("extrapolate", {}).items()}}
    laws, told = {}, {}
    for arm in arms(study, rows):
        groups = groups_of(rows, size, arm, without)
        if len(groups) < 3:
            told[arm[factor]] = {"why": f"no law: runs are left at {len(groups)} sizes, and 3 are needed"}
            continue
        flat = [(n, v) for n, values in groups.items() for v in values]
        largest = next(r[size] for r in rows.of(arm) if r["parameters"] == max(groups))
        law, drawn = fit(*zip(*flat, strict=True)), resampled(groups, draws)
        best = rows.chosen({**arm, size: largest}) if study.search else None
        laws[arm[factor]] = law, drawn, groups
        told[arm[factor]] = {
            "E": law.floor,
            "A": law.scale,
            "b": law.power,
            "E_95": spread([d.floor for d in drawn]),
            "b_95": spread([d.power for d in drawn]),
            study.search or "level": best,
            "at": {},
        }
    base = study.baseline[factor]
    for i, (name, (law, drawn, groups)) in enumerate(laws.items()):
        for place, n in sizes.items():
            ours, theirs = (parameters[name], parameters.get(base)) if n is None else (n, n)
            means = [d.at(ours) for d in drawn]
            one = of_a_run(means, groups, i + 1) if n is None else means
            found = {"parameters": int(ours), "loss": float(law.at(ours)), "loss_95": spread(one), "gap": None}
            if base in laws:
                other, theirs_drawn, theirs_groups = laws[base]
                means = [d.at(theirs) for d in theirs_drawn]
                against = of_a_run(means, theirs_groups) if n is None else means
                found["gap"] = float(law.at(ours) - other.at(theirs))
                found["gap_95"] = spread([a - b for a, b in zip(one, against, strict=False)]) if name != base else None
            told[name]["at"][place] = found
    of = {r["config_hash"]: r["final"] for r in rows.rows if r[size] != without and "config_hash" in r}
    return {"size": without, "law": "E + A (N / 1e6)^-b", "baseline": base, "arms": told, "of": of}


def read(study: Study, scale: str, folder: Path, rows: Rows) -> dict | None:
    """The prediction, None where none was made yet.

    Raises:
        ValueError: it cannot be read, or `rows` are not those it was made of, or lead to other numbers.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    undo = f"git checkout -- {file} brings the committed one back"
    told = read_json(file)
    if not told or "of" not in told:
        raise ValueError(f"{file} cannot be read; {undo}")
    here = {r.get("config_hash"): r["final"] for r in rows.rows}
    if lost := [h for h, final in told["of"].items() if h not in here or not _near(here[h], final)]:
        raise ValueError(
            f"{file} was made of {len(told['of'])} rows, and {len(lost)} of them are gone or changed; {undo}"
        )
    own = copy.copy(rows)
    own.rows = [r for r in rows.rows if r.get("config_hash") in told["of"]]
    parameters = {name: arm["at"]["held_out"]["parameters"] for name, arm in told["arms"].items() if "at" in arm}
    again = predict(study, scale, own, parameters, draws=0)
    for name, arm in told["arms"].items():
        for place, found in arm.get("at", {}).items():
            want = again["arms"].get(name, {}).get("at", {}).get(place, {})
            if not all(_near(found[key], want.get(key), 1e-3) for key in ("loss", "gap")):
                raise ValueError(f"{file}: the loss of {name} at {place} is not what its rows say; {undo}")
    return told


def _near(one: float | None, other: float | None, relative: float = 1e-9) -> bool:
    if one is None or other is None:
        return one is other
    return math.isclose(one, other, rel_tol=relative, abs_tol=relative)


def held_out(study: Study, scale: str, cell: dict) -> bool:
    """Whether a cell is of the size that is predicted before it is run."""
    return bool(study.ladder) and cell.get(study.ladder["size"]) == kept_out(study, scale)


def due(study: Study, run: Run, told: dict | None) -> bool:
    """Whether a run may begin: one of the held-out size waits for its prediction, and has the level that it names."""
    if not held_out(study, run.scale, run.cell):
        return True
    if told is None:
        return False
    arm = told["arms"].get(run.cell[next(iter(study.baseline))], {})
    return "at" in arm and (not study.search or arm[study.search] == run.cell.get(study.search))


def outcome(study: Study, rows: Rows, told: dict) -> list[str]:
    """The table's part: the laws, the prediction, and what came of it."""
    lines = ["", f"| arm | E | b | predicted at {told['size']} | gap | measured | error |", "| --- |" + " ---: |" * 6]
    factor = next(iter(study.baseline))
    laws = {name: arm for name, arm in told["arms"].items() if "at" in arm}
    for name, arm in laws.items():
        place = arm["at"]["held_out"]
        cell = {factor: name, study.ladder["size"]: told["size"]}
        if study.search:  # the run that was predicted, and no other rate of that size
            cell[study.search] = arm[study.search]
        ran = rows.of(cell)
        values = [v for v in map(rows.value, ran) if v is not None]
        mean = sum(values) / len(values) if values else None
        shown = "not run" if mean is None else f"{mean:.4f} (n = {len(values)})"
        if lost := len(ran) - len(values):  # by divergence, or ended no better than chance
            shown = f"{'' if mean is None else f'{shown}, '}{lost} of {len(ran)} lost"
        error = "-" if mean is None else f"{mean - place['loss']:+.4f}"
        lines.append(
            f"| {name} | {arm['E']:.3f} {_range(arm['E_95'])} | {arm['b']:.3f} {_range(arm['b_95'])} | "
            f"{place['loss']:.4f} {_range(place['loss_95'], 4)} | {_gap(place, 4)} | {shown} | {error} |"
        )
    lines += [f"\n{name}: {arm['why']}." for name, arm in told["arms"].items() if "why" in arm]
    if told.get("known"):
        lines += ["", "Runs of the held-out size were there before this prediction was made."]
    for place in (p for p in next(iter(laws.values()), {"at": {}})["at"] if p != "held_out"):
        gaps = [f"{name} {_gap(arm['at'][place])}" for name, arm in laws.items() if name != told["baseline"]]
        lines += ["", f"Gap to {told['baseline']} extrapolated to {place}: {'; '.join(gaps)}."]
    lines += ["", "Laws are fitted to each arm's best level at every size but the held-out one, intervals by bootstrap "
              "over seeds: at the held-out size of one run, further out of the mean. They hold what seeds vary by, not "
              "whether the law holds so far out."]  # fmt: skip
    return lines


def foretold(study: Study, scale: str, rows: Rows, arm: str, what: str, folder: Path, where: str) -> str:
    """One number of a prediction, with its interval: ``foretold loss``, ``foretold gap`` or ``foretold gap at 124M``.

    "not run" where nothing was foretold yet.

    Raises:
        ValueError: no such arm, number or place, or a prediction that is not what its rows say.
    """
    number, _, place = what.removeprefix("foretold ").partition(" at ")
    told = read(study, scale, folder, rows) if study.ladder else {"arms": {}}
    if told is None:
        return "not run"
    found = told["arms"].get(arm, {}).get("at", {}).get(place or "held_out", {})
    if number not in ("loss", "gap") or number not in found:
        raise ValueError(f"{where}: {study.name} foretold no such number")
    return _gap(found, 2) if number == "gap" else f"{found['loss']:.2f} {_range(found['loss_95'], 2)}".strip()


def _gap(place: dict, digits: int = 3) -> str:
    return "-" if place["gap"] is None else f"{place['gap']:+.{digits}f} {_range(place['gap_95'], digits)}".strip()


def _range(bounds: list[float] | None, digits: int = 3) -> str:
    return "" if bounds is None else f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
