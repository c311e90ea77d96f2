"""Loss against model size: a law fitted to each arm's sizes, and a prediction of a larger one before it is run.

L(N) = E + A N^-b, after the scaling laws of Kaplan et al. (2020) and Hoffmann et al. (2022), with N the parameters.
A study that has the key ``ladder`` keeps one size out: its runs wait until ``prediction.json`` stands in the results.
"""

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


def predict(study: Study, scale: str, rows: Rows, parameters: dict[str, int]) -> dict:
    """What prediction.json holds: each arm's law, its loss and its gap to the baseline at the held-out size and beyond.

    Args:
        parameters: by arm, of the held-out size.

    Raises:
        ValueError: an arm has fewer than three sizes.
    """
    size, factor, without = study.ladder["size"], next(iter(study.baseline)), kept_out(study, scale)
    sizes = {"held_out": None, **{str(k): float(v) for k, v in study.ladder.get("extrapolate", {}).items()}}
    laws, best = {}, {}
    for arm in arms(study, rows):
        groups = groups_of(rows, size, arm, without)
        flat = [(n, v) for n, values in groups.items() for v in values]
        laws[arm[factor]] = (fit(*zip(*flat, strict=True)), resampled(groups))
        largest = max(groups, key=int)
        level = next(r[size] for r in rows.of(arm) if r["parameters"] == largest)
        best[arm[factor]] = rows.chosen({**arm, size: level}) if study.search else None
    base = study.baseline[factor]
    told = {}
    for name, (law, draws) in laws.items():
        places = {}
        for place, n in sizes.items():
            ours, theirs = (parameters[name], parameters[base]) if n is None else (n, n)
            gaps = [d.at(ours) - b.at(theirs) for d, b in zip(draws, laws[base][1], strict=False)]
            places[place] = {
                "parameters": int(ours),
                "loss": float(law.at(ours)),
                "loss_95": spread([d.at(ours) for d in draws]),
                "gap": float(law.at(ours) - laws[base][0].at(theirs)),
                "gap_95": spread(gaps),
            }
        told[name] = {
            "E": law.floor,
            "A": law.scale,
            "b": law.power,
            "E_95": spread([d.floor for d in draws]),
            "b_95": spread([d.power for d in draws]),
            study.search or "level": best[name],
            "at": places,
        }
    return {"size": without, "law": "E + A (N / 1e6)^-b", "baseline": base, "arms": told}


def held_out(study: Study, scale: str, cell: dict) -> bool:
    """Whether a cell is of the size that is predicted before it is run."""
    return bool(study.ladder) and cell.get(study.ladder["size"]) == kept_out(study, scale)


def due(study: Study, run: Run, folder: Path) -> bool:
    """Whether a run may begin: one of the held-out size waits for its prediction, and has the level that it names."""
    if not held_out(study, run.scale, run.cell):
        return True
    told = read_json(folder / FILE)
    if told is None:
        return False
    arm = told["arms"].get(run.cell[next(iter(study.baseline))], {})
    return not study.search or arm.get(study.search) == run.cell.get(study.search)


def outcome(study: Study, rows: Rows, told: dict) -> list[str]:
    """The table's part: the laws, the prediction, and what came of it."""
    lines = ["", f"| arm | E | b | predicted at {told['size']} | gap | measured | error |", "| --- |" + " ---: |" * 6]
    factor = next(iter(study.baseline))
    for name, arm in told["arms"].items():
        place = arm["at"]["held_out"]
        cell = {factor: name, study.ladder["size"]: told["size"]}
        values = [v for v in map(rows.value, rows.of(cell)) if v is not None]
        mean = sum(values) / len(values) if values else None
        shown = "not run" if mean is None else f"{mean:.4f} (n = {len(values)})"
        error = "-" if mean is None else f"{mean - place['loss']:+.4f}"
        lines.append(
            f"| {name} | {arm['E']:.3f} {_range(arm['E_95'])} | {arm['b']:.3f} {_range(arm['b_95'])} | "
            f"{place['loss']:.4f} {_range(place['loss_95'], 4)} | {place['gap']:+.4f} {_range(place['gap_95'], 4)} | "
            f"{shown} | {error} |"
        )
    places = [p for p in next(iter(told["arms"].values()))["at"] if p != "held_out"]
    for place in places:
        gaps = [
            f"{name} {arm['at'][place]['gap']:+.3f} {_range(arm['at'][place]['gap_95'])}"
            for name, arm in told["arms"].items()
            if name != told["baseline"]
        ]
        lines += ["", f"Gap to {told['baseline']} extrapolated to {place}: {'; '.join(gaps)}."]
    lines += ["", "Laws are fitted to each arm's best level at every size but the held-out one, intervals by bootstrap "
              "over seeds: they hold what seeds vary by, not whether the law holds so far out."]  # fmt: skip
    return lines


def _range(bounds: list[float] | None, digits: int = 3) -> str:
    return "" if bounds is None else f"[{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"
