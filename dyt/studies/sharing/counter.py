"""A counter-run: another machine's rows of a study, refused where they are of something else, then held against ours.

A row counts by its config hash, which covers every setting that changes numbers, the seed and the data. What it says
of itself must fit that hash, and it must say where it was made: unchanged code of a commit that is known here, on
named hardware and versions.
"""

import csv as tables
from dataclasses import dataclass
from pathlib import Path

from dyt.resume import RESULTS
from dyt.rundir.provenance import git
from dyt.studies.judging.cells import Rows
from dyt.studies.judging.rules import asked, deviation
from dyt.studies.running import rows as csv
from dyt.studies.running.study import Study
from dyt.studies.showing.words import UNITS
from dyt.studies.statistics import Pooled, pooled_deviation, several

# Two runs that share nothing but their settings differ by sqrt(2) deviations between seeds; twice that is rare.
FAR = 2 * 2**0.5


@dataclass(frozen=True)
class Both:
    """A run of the same settings and seed that both sides have; None is a diverged run."""

    label: str
    ours: float | None
    theirs: float | None
    sd: float | None  # between seeds

    @property
    def deviations(self) -> float | None:
        """Theirs less ours, in standard deviations between seeds; None where one diverged or no deviation is known."""
        if None in (self.ours, self.theirs) or not self.sd:
            return None
        return (self.theirs - self.ours) / self.sd

    @property
    def agrees(self) -> bool | None:
        """None: it cannot be said, for no deviation is known."""
        if None in (self.ours, self.theirs):
            return self.ours is self.theirs
        if self.ours == self.theirs:
            return True
        return None if self.deviations is None else abs(self.deviations) <= FAR

    def __str__(self) -> str:
        ours, theirs = ("diverged" if v is None else f"{v:.4f}" for v in (self.ours, self.theirs))
        far = "" if self.deviations is None else f", {self.deviations:+.2f} deviations"
        word = {True: "agrees", False: "differs", None: "no deviation between seeds is known"}[self.agrees]
        return f"{self.label}: ours {ours}, theirs {theirs}{far}: {word}"


def seeds_in(extra: Path, study: Study) -> int:
    """How many seeds a study must have for the highest seed of a runs.csv to be one of them.

    Raises:
        ValueError: it is no table of the study's rows.
    """
    return 1 + max((row["seed"] or 0 for row in _rows(extra, study)), default=0)


def _rows(extra: Path, study: Study) -> list[dict]:
    """A stranger's rows; `csv.read_runs` would have our own folder moved aside."""
    advice = "give another machine's runs.csv, as reproduce.py wrote it"
    try:
        with open(extra, newline="", encoding="utf-8") as stream:
            columns = next(tables.reader(stream), [])
            for _ in stream:  # to its end: all of it must be text
                pass
        if not all(column.isprintable() for column in columns):
            raise tables.Error("no text")
        if other := csv.other_columns(columns, study):
            raise ValueError(f"--merge {extra}: not rows of {study.name}: {other}; {advice}")
        return csv.read_runs(extra, study)
    except FileNotFoundError:
        raise ValueError(f"--merge {extra}: no such file; give another machine's runs.csv") from None
    except (UnicodeDecodeError, tables.Error, OSError) as error:
        raise ValueError(f"--merge {extra}: not a table of rows; {advice}") from error


def read(extra: Path, study: Study, planned: dict, ours: list[dict]) -> list[dict]:
    """Another machine's finished and diverged rows, without those that are copies of `ours`.

    Args:
        planned: by config hash, the study's run, its plan and its words (`StudyAt.planned`).

    Raises:
        ValueError: no such file, no rows, or a row made by another config, by changed or unknown code, on other data,
            or without naming where; one line names the first such row.
    """
    found = _rows(extra, study)
    if not found:
        raise ValueError(f"--merge {extra}: no rows in it; give another machine's runs.csv")
    copies = {_told(row) for row in ours}
    theirs = [r for r in found if r["status"] in RESULTS and _told(r) not in copies]
    refused = [(row, why) for row in theirs if (why := _why_not(row, study, planned))]
    if refused:
        row, why = refused[0]
        raise ValueError(
            f"--merge {extra}: {len(refused)} of {len(theirs)} rows are not of this study, data and code; the first, "
            f"{row['overrides']}: {why}"
        )
    return theirs


def _told(row: dict) -> tuple:
    """What tells a row from another one of the same run: its outcome and its provenance."""
    return tuple(row.get(key) for key in ("config_hash", "final", "best", "wall_s", "hardware", "git_commit"))


def _why_not(row: dict, study: Study, planned: dict) -> str | None:
    """Why a row cannot count, in words; None where it can."""
    if row["config_hash"] not in planned:
        same = [plan for run, plan, _ in planned.values() if csv.overrides(run) == row["overrides"]]
        if same and row["data_sha256"] != same[0].data_sha256:
            return _other_data(row, same[0])
        what = "the same words with another default" if same else f"a run that {study.name} has not"
        return f"made by another config ({what}); run the study as it stands in this repository"
    run, plan, _ = planned[row["config_hash"]]
    said = {**{f: row[f] for f in run.cell}, "seed": row["seed"], "overrides": row["overrides"]}
    want = {**run.cell, "seed": run.seed, "overrides": csv.overrides(run)}
    for key, value in want.items():
        if said[key] != value:
            return f"its hash {row['config_hash']} is that of {key} {value}, and the row says {said[key]}"
    if row["data_sha256"] != plan.data_sha256:
        return _other_data(row, plan)
    for key in ("hardware", "threads", "torch", "git_commit"):
        if not row[key]:
            return f"it does not name its {key}; send runs.csv as reproduce.py wrote it, from a git clone"
    if row["git_dirty"] != "False":
        return "made by changed code (git_dirty); commit or undo the changes and run again"
    if not _known(row["git_commit"]):
        return f"made by code that is not in this repository (commit {row['git_commit'][:10]}); type git fetch --all"
    return None


def _other_data(row: dict, plan) -> str:
    name = plan.config["data"]["name"]
    return f"made from other data: {name} has sha256 {row['data_sha256'][:10]} there and {plan.data_sha256[:10]} here"


def _known(commit: str) -> bool:
    """Whether this repository has the commit; yes where it is no git checkout, which cannot tell."""
    return git("rev-parse") is None or git("cat-file", "-e", f"{commit}^{{commit}}") is not None


def beside(study: Study, scale: str, ours: list[dict], theirs: list[dict], results: Path) -> list[Both]:
    """Every run that both have, in our rows' order."""
    about = asked(study, scale, ours)
    pooled = deviation(study, scale, about, results) or _over_all(study, about)
    there = {r["config_hash"]: r for r in theirs}
    found = []
    for row in about.rows:
        if (other := there.get(row["config_hash"])) is not None:
            label = " ".join([*(row[f] for f in study.factors if row.get(f)), f"s{row['seed']}"])
            sides = [r["final"] if r["status"] == "finished" else None for r in (row, other)]
            found.append(Both(label, *sides, pooled.sd if pooled else None))
    return found


def _over_all(study: Study, about: Rows) -> Pooled | None:
    """The deviation between seeds over all settings, where the baseline alone has too few runs."""
    groups: dict[tuple, list[float]] = {}
    for row in about.rows:
        if about.value(row) is not None:
            groups.setdefault(tuple(row.get(f) for f in study.factors), []).append(row["final"])
    return pooled_deviation(list(groups.values()))


def told(study: Study, both: list[Both], added: int, before: list[dict], after: list[dict]) -> list[str]:
    """What a merge prints: both sides' runs, what was added, and each verdict as it was and is."""
    lines = [f"{study.name}: {len(both)} runs that both have, {added} new rows"]
    lines += [f"  {one}" for one in both]
    if both and both[0].sd:
        differ = sum(one.agrees is False for one in both)
        lines.append(
            f"  {len(both) - differ} of {len(both)} agree: within {FAR:.1f} deviations between seeds, "
            f"{FAR * both[0].sd:.2g} {'of accuracy' if study.percent else UNITS.get(study.metric, 'nats')}"
        )
    was = {v["says"]: v for v in before}
    for now in after if added else []:
        old = was.get(now["says"])
        then = f"{old['verdict']} with {several(old['seeds'], 'seed')}" if old else "not judged"
        lines.append(f"  {now['says']}: was {then}, is {now['verdict']} with {several(now['seeds'], 'seed')}")
    return lines
