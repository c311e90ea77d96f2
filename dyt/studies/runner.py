"""A study at a scale: which of its runs are there, which are missing, and everything written once they are in."""

import sys
import time
from pathlib import Path

from dyt.config import compose, identity
from dyt.config.identity import Plan
from dyt.resume import RESULTS, finished
from dyt.rundir.files import remove_parts
from dyt.studies import due
from dyt.studies.running import rows as csv
from dyt.studies.running.cluster import Cluster
from dyt.studies.running.pool import Pool, Task
from dyt.studies.running.ready import refuse_unready
from dyt.studies.running.study import Run, Study, result_folder
from dyt.studies.running.version import refuse_other_version
from dyt.studies.written import write_report

ROOT = compose.CONFIGS.parent
RESULTS_FOLDER = ROOT / "results"


class StudyAt:
    """The runs of `study` at `scale`, each with its plan.

    Args:
        extra: overrides for every run, of keys that change no number (``logger.mode=disabled``).
        paths: ``{data set: data.path}``.
        results: the folder of all results.

    Raises:
        ValueError, OSError: a run does not compose, or its data is not there.
    """

    def __init__(
        self,
        study: Study,
        scale: str,
        *,
        seeds: int | None = None,
        extra: list[str] = (),
        paths: dict[str, str] | None = None,
        results: Path = RESULTS_FOLDER,
    ):
        self.study, self.scale, self.results = study, scale, results
        self.folder = result_folder(results, study.name, scale)
        self.runs = study.runs(scale, seeds)
        self.planned: dict[str, tuple[Run, Plan, list[str]]] = {}
        for run in self.runs:
            words = [*run.words, *extra]
            config = _with_path(Run(run.study, run.scale, run.cell, run.seed, tuple(words)).config(), paths or {})
            if config["trainer"]["threads"] is None and scale in ("smoke", "small", "medium"):
                raise ValueError(
                    f"{study.path}: scale {scale} must fix trainer.threads, or --jobs would change numbers"
                )
            words = [*words, f"seed={run.seed}"]
            plan = identity.plan(config, words)
            self.planned[plan.hash] = (run, plan, words)
        self.rows: dict[str, dict] = {}
        self.waiting = 0  # runs whose search is not at its end; of the levels that lost theirs none is to come

    def gather(self, rerun: bool = False) -> list[Task]:
        """Reads what is finished, here or committed, and returns what is missing.

        Raises:
            ValueError: the results folder was written by another version of the study; the line shows the difference.
        """
        remove_parts(self.folder)
        mine = csv.read_runs(self.folder / "runs.csv", self.study)
        refuse_other_version(self.folder, self.study, mine, self.planned)
        known = {r["config_hash"]: r for r in mine if r["status"] in RESULTS}
        if rerun:
            return self._again(known)
        others = csv.committed(self.results)
        told = due.prediction(self, mine)
        missing = []
        for hash, (run, plan, _) in self.planned.items():
            row = known.get(hash)
            if row is None and finished(plan):
                row = csv.row_of(run, self.study, hash, plan.dir)
            if row is None and hash in others:
                row = csv.adopt(*others[hash], run, self.study)
            if row is None or (hash not in known and not due.foretold(self, run, told)):
                missing.append(hash)
            else:
                self.rows[hash] = {**row, **run.cell, "overrides": csv.overrides(run)}
        now = [hash for hash in missing if due.due(self, self.planned[hash][0], told)]
        later = [self.planned[hash][0] for hash in set(missing) - set(now)]
        self.waiting = sum(run.late and not due.searched(self, run) for run in later)
        return self._tasks(now)

    def _again(self, known) -> list[Task]:
        """What ``--rerun`` runs: the runs that have a result, and those that wait for none."""
        if self.study.ladder:
            raise ValueError(
                f"{self.study.name} --rerun would run the size that is predicted beside those that predict it; move "
                f"{self.folder} and its runs aside, and leave --rerun out"
            )
        again = [hash for hash, (run, _, _) in self.planned.items() if hash in known or not run.late]
        for hash in again:
            self.planned[hash][1].config["resume"] = "fresh"
        return self._tasks(again)

    def _tasks(self, hashes) -> list[Task]:
        tasks = []
        for hash in hashes:
            _, plan, words = self.planned[hash]
            tasks.append(Task(plan.config, words, hash))
        return tasks

    def done(self, hash: str, outcome: dict) -> dict:
        """Takes a run that ended into the rows; returns its row. A finished row gives way to a finished one only."""
        run, plan, _ = self.planned[hash]
        row = csv.row_of(run, self.study, hash, self.place(hash))
        if row is None:  # refused before it began, or killed
            row = {
                **run.cell,
                "seed": run.seed,
                "config_hash": hash,
                "status": outcome["status"],
                "why": outcome["why"],
            }
            row |= {"overrides": csv.overrides(run), "data_sha256": plan.data_sha256}
        elif outcome["status"] not in RESULTS:
            row |= {"status": outcome["status"], "why": outcome["why"]}
        if row["status"] in RESULTS or hash not in self._finished():
            self.rows[hash] = row
            self.write_runs()
        return row

    def _finished(self) -> set[str]:
        """Hashes of the finished rows that are there already: of ``--rerun``, those of before."""
        kept = csv.read_runs(self.folder / "runs.csv", self.study)
        return {row["config_hash"] for row in kept if row["status"] in RESULTS}

    def merge(self, extra: Path) -> list[str]:
        """Adds another machine's rows of this scale and reports; rows that are here stay. Returns lines that say so.

        Raises:
            ValueError: no such file, or rows of another config, data or code.
        """
        from dyt.studies.sharing import counter
        from dyt.studies.showing.table import verdicts

        file = self.folder / "runs.csv"
        ours = csv.read_runs(file, self.study)
        theirs = counter.read(extra, self.study, self.planned, ours)
        before = verdicts(self.study, self.scale, ours, csv.read_curves(self.folder / "curves.parquet"), self.results)
        both = counter.beside(self.study, self.scale, ours, theirs, self.results)
        finished = {r["config_hash"] for r in ours if r["status"] in RESULTS}
        added = {r["config_hash"]: r for r in theirs if r["config_hash"] not in finished}
        csv.write_runs(file, [*(r for r in ours if r["config_hash"] not in added), *added.values()], self.study)
        self.gather()
        return counter.told(self.study, both, len(added), before, self.report())

    def place(self, hash: str) -> Path:
        """A run's directory: another study may have made it under other words for the same settings."""
        plan = self.planned[hash][1]
        return identity.existing(plan.config, hash, plan.dir) or plan.dir

    def write_runs(self) -> None:
        there = csv.read_runs(self.folder / "runs.csv", self.study)
        better = {r["config_hash"]: r for r in there if r["status"] in RESULTS}  # by another process, in the meantime
        for hash in better.keys() & self.rows.keys():
            if self.rows[hash]["status"] not in RESULTS:
                self.rows[hash] = better[hash]
        ordered = [self.rows[h] for h in self.planned if h in self.rows]
        here = {r["config_hash"] for r in ordered}
        kept = [r for r in there if r["config_hash"] not in here]
        csv.write_runs(self.folder / "runs.csv", [*ordered, *kept], self.study)

    def report(self) -> list[dict]:
        """Writes runs.csv, curves.parquet, table.md, verdicts.json and the figures; returns the verdicts."""
        if not self.rows:
            return []
        self.write_runs()
        ordered = csv.read_runs(self.folder / "runs.csv", self.study)  # with those of more seeds than asked for now
        folders = {h: (self.place(h), plan.config["norm"]["name"]) for h, (_, plan, _) in self.planned.items()}
        root = Path(next(iter(self.planned.values()))[1].config["out_root"]).expanduser()
        for row in ordered:
            folders.setdefault(row["config_hash"], (root / row["run"], row.get("norm", "")))
        curves = csv.collect(self.folder / "curves.parquet", ordered, folders, self.results)
        csv.write_curves(self.folder / "curves.parquet", curves)
        if self.study.ladder:
            due.predict(self, ordered)
        return write_report(self.study, self.scale, ordered, self.results, folders)


def _with_path(config: dict, paths: dict[str, str]) -> dict:
    if (path := paths.get(config["data"]["name"])) is not None:
        config["data"]["path"] = path
    return config


def reproduce(studies: list[StudyAt], jobs: int, rerun: bool = False, launcher: list[str] | None = None) -> int:
    """Runs what is missing in all of `studies`, reports each as its last run ends; 0, 1 (a run failed) or 75 (stopped).

    A run that two studies need is run once. `launcher`, a cluster's with its settings, takes runs elsewhere.
    """
    from tqdm import tqdm

    owners: dict[str, list[StudyAt]] = {}
    tasks: dict[str, Task] = {}
    left: dict[int, set[str]] = {}
    for at in studies:
        missing = at.gather(rerun)
        left[id(at)] = {t.tag for t in missing}
        for task in missing:
            tasks.setdefault(task.tag, task)
            owners.setdefault(task.tag, []).append(at)
    for at in studies:
        refuse_unready([t for t in tasks.values() if owners[t.tag][0] is at], at.scale, at.results)
    for at in studies:
        count = len(left[id(at)])
        later = f", then more seeds at the best {at.study.search}" if at.waiting else ""
        later = later or ("; --rerun trains them anew, here" if not count else "")
        print(f"{at.study.name} {at.scale}: {len(at.rows)} finished before, {count} to run{later}")
        if not count:
            _close(at)
    failed = interrupted = 0
    began, number = time.monotonic(), 0
    quiet = not sys.stderr.isatty()
    logs = Path(next(iter(studies[0].planned.values()))[1].config["out_root"]).expanduser() / ".workers"
    workers = Pool(jobs, logs) if launcher is None else Cluster(launcher[0], launcher[1:], jobs, logs / "jobs")
    with workers as pool, tqdm(total=len(tasks), unit="run", disable=quiet, dynamic_ncols=True) as bar:
        try:
            for task, outcome in pool.run(list(tasks.values())):
                number += 1
                first = owners[task.tag][0]
                row = first.done(task.tag, outcome)
                for at in owners[task.tag][1:]:
                    at.done(task.tag, outcome)
                failed += outcome["status"] == "failed"
                if outcome["status"] == "interrupted":
                    interrupted, pool.stopping = 1, True
                pace = (time.monotonic() - began) / number
                value = f"{first.study.metric} {row['final']:.4f}" if row.get("final") is not None else row.get("why")
                line = (
                    f"{first.study.name} {number}/{len(tasks)}: {first.planned[task.tag][0].label}: {row['status']}, "
                    f"{value}; {_time(pace * (len(tasks) - number))} left"
                )
                bar.update()
                bar.set_description(first.study.name)
                tqdm.write(line, file=sys.stdout)
                sys.stdout.flush()
                for at in owners[task.tag]:
                    left[id(at)].discard(task.tag)
                    if not left[id(at)]:
                        _close(at)
        except KeyboardInterrupt:
            interrupted = 1
            print("\nstopping: runs finish their step and save", flush=True)
    if not interrupted and not failed and tasks and any(at.waiting for at in studies):
        return reproduce(studies, jobs, launcher=launcher)  # the searches are done: more seeds at what they chose
    if interrupted:
        for at in studies:
            if left[id(at)] and at.rows:
                at.report()
        print(f"interrupted; {'what had not ended keeps its row of before' if rerun else 'the same command goes on'}")
        return 75
    return 1 if failed else 0


def _close(at: StudyAt) -> None:
    for found in at.report():
        print(f"  {found['verdict']:<12} {found['says']} ({found['we_found']})")
    print(f"  {at.folder / 'table.md'}", flush=True)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
