"""Runs as jobs of a cluster, through submitit: for `runner.reproduce` what `Pool` is on one machine.

A launcher is one of ``configs/hydra/launcher/`` or of Hydra's plugin, as for ``train.py -m hydra/launcher=...``.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from dyt.rundir.requeue import hear_all, requeue
from dyt.studies.running.pool import Task, outcome_of

# What submitit calls by one name on every cluster; the rest is SLURM's own.
COMMON = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "stderr_to_stdout")
ARRAY = 1000  # jobs to an array: SLURM's MaxArraySize is 1001 unless its admin says otherwise


class _Job:
    """One run in a job of the cluster. Interrupted, it is queued again, unless the study itself was stopped."""

    def __init__(self, stopped: Path):
        self.stopped = stopped

    def __call__(self, config: dict, words: list[str]) -> dict:
        hear_all()
        answer = outcome_of(config, words)
        if answer["status"] == "interrupted" and not self.stopped.exists():
            requeue()
        return answer

    def checkpoint(self, config: dict, words: list[str]):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, config, words)


class Cluster:
    """Use as a context manager: leaving it ends the jobs that are still to be done.

    Args:
        launcher: its name.
        words: overrides of its settings, ``hydra.launcher.partition=gpu``.
        jobs: runs at once where no queue sees to that: with submitit_local.
        folder: for submitit's files; every machine of the cluster must see it.

    Raises:
        ValueError: no such launcher, or its packages are missing.
    """

    def __init__(self, launcher: str, words: list[str], jobs: int, folder: Path):
        settings = _settings(launcher, words)
        local = settings.pop("_target_").endswith("LocalLauncher")
        import submitit

        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        self.stopped, self.stopping, self.pending = folder / "stopped", False, []
        self.stopped.unlink(missing_ok=True)
        name = "local" if local else "slurm"
        countdown = {"slurm_max_num_timeout": settings.pop("max_num_timeout", 0)} if not local else {}
        self.executor = submitit.AutoExecutor(folder / "%j", cluster=name, **countdown)
        self.executor.update_parameters(**{k if k in COMMON else f"{name}_{k}": v for k, v in settings.items()})
        self.at_once = jobs if local else 10**9

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(self, *_) -> None:
        if self.pending:
            self.stopped.touch()
        for _, job in self.pending:
            with contextlib.suppress(Exception):  # it may have ended just now
                job.cancel()

    def run(self, tasks: list[Task]) -> Iterator[tuple[Task, dict]]:
        """Each task with its outcome, as they end. A job that dies without a word has failed."""
        waiting = list(tasks)
        while (waiting and not self.stopping) or self.pending:
            free = 0 if self.stopping else self.at_once - len(self.pending)
            if due := waiting[: min(free, ARRAY)]:
                waiting = waiting[len(due) :]
                made = self._submit(due)
                self.pending += zip(due, made, strict=True)
            for entry in [entry for entry in self.pending if entry[1].done()]:
                self.pending.remove(entry)
                yield entry[0], _answer(entry[1])
            time.sleep(0.5)

    def _submit(self, tasks: list[Task]) -> list:
        """The jobs of tasks: on SLURM, one array.

        Raises:
            ValueError: the cluster takes them not, and what it says.
        """
        from submitit.core.utils import FailedJobError

        try:
            with self.executor.batch():
                return [self.executor.submit(_Job(self.stopped), task.config, task.words) for task in tasks]
        except FailedJobError as error:
            raise ValueError(f"the cluster took no jobs: {' '.join(str(error).split())[:400]}") from error


def _answer(job) -> dict:
    try:
        return job.results()[0]
    except Exception as error:  # submitit's own, with the job's traceback
        why = ([line for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[-1]
        return {"status": "failed", "why": f"job {job.job_id}: {why.strip()[:200]}; see {job.paths.stderr}"}


def _settings(launcher: str, words: list[str]) -> dict:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from dyt.config.compose import CONFIGS

    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            chosen = [f"hydra/launcher={launcher}", *words]
            cfg = compose("train", overrides=chosen, return_hydra_config=True).hydra.launcher
    except HydraException as error:
        known = sorted(p.stem for p in (CONFIGS / "hydra" / "launcher").glob("*.yaml"))
        raise ValueError(
            f"--launcher {launcher}: {str(error).splitlines()[0]}; choose from submitit_local, submitit_slurm, "
            f"{', '.join(known)}; they need pip install -e '.[cluster]'"
        ) from error
    if "submitit" not in cfg.get("_target_", ""):
        raise ValueError(f"--launcher {launcher}: sends no jobs; leave it out, and say how many at once with --jobs")
    settings = OmegaConf.to_container(cfg, resolve=False)
    return {k: v for k, v in settings.items() if v is not None and k not in ("submitit_folder", "name")}
