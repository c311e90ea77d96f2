"""Runs in worker processes that import once. A worker that dies takes its run with it and nothing else."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from dyt.rundir.streams import STOPS, heard
from dyt.tracking.wandb import leave_agent

CONTEXT = multiprocessing.get_context("spawn")


@dataclass
class Task:
    """One run to do: its composed config, its overrides (they name the directory), and a tag for the caller."""

    config: dict
    words: list[str]
    tag: object


@dataclass
class _Worker:
    process: multiprocessing.Process
    pipe: Connection
    task: Task | None = None


def _end_with_parent() -> None:
    """A worker whose parent was killed stops at once, so that two never write one directory."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def outcome_of(config: dict, words: list[str]) -> dict:
    """Runs a config to its end; ``{"status", "why", ...}``, whatever happens."""
    from dyt.config import identity
    from dyt.run import execute

    try:
        summary = execute(identity.plan(config, words))
        return {"status": summary["status"], "why": summary["why"], "wall_s": summary["wall_s"]}
    except KeyboardInterrupt:
        return {"status": "interrupted", "why": "stopped by a signal"}
    except (ValueError, OSError) as error:
        return {"status": "failed", "why": " ".join(str(error).split())}
    except Exception as error:
        traceback.print_exc()
        return {"status": "failed", "why": f"{type(error).__name__}: {error}"}


def _work(pipe: Connection, logs: Path) -> None:
    """A worker: runs what comes through the pipe, output to a log file, and answers with the summary's status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    leave_agent()  # its trial is one run, and workers train many
    os.setpgrp()  # Ctrl-C in a terminal reaches the parent alone, which then asks once
    logs.mkdir(parents=True, exist_ok=True)
    stream = open(logs / f"worker-{os.getpid()}.log", "a", buffering=1)
    os.dup2(stream.fileno(), 1), os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=stream)
    while True:
        # Between runs a signal ends the worker; during one, the loop finishes its step and saves.
        for number in (signal.SIGINT, *filter(heard, STOPS)):
            signal.signal(number, lambda *_: os._exit(75))
        try:
            config, words = pipe.recv()
        except EOFError:
            return
        answer = outcome_of(config, words)
        try:
            pipe.send(answer)
        except OSError:  # the parent is leaving
            return


class Pool:
    """`jobs` workers. Use as a context manager: leaving it ends them.

    Args:
        jobs: worker processes.
        logs: folder for what runs print.
    """

    def __init__(self, jobs: int, logs: Path):
        self.jobs, self.logs = jobs, logs
        self.workers: list[_Worker] = []
        self.stopping = False

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_) -> None:
        for worker in self.workers:
            if worker.task is not None:
                worker.process.terminate()  # finishes its step and saves
            worker.pipe.close()  # no more tasks
        for worker in self.workers:
            worker.process.join(60)
            if worker.process.is_alive():
                worker.process.kill()

    def _start(self) -> _Worker:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_work, args=(theirs, self.logs), daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self.workers.append(worker)
        return worker

    def run(self, tasks: list[Task]) -> Iterator[tuple[Task, dict]]:
        """Each task with its outcome, ``{"status", "why", ...}``, as they end. A dead worker's run has failed."""
        waiting = list(tasks)
        while waiting or any(w.task for w in self.workers):
            while waiting and not self.stopping:
                idle = next((w for w in self.workers if w.task is None), None)
                if idle is None and len(self.workers) >= self.jobs:
                    break
                worker = idle or self._start()
                try:
                    worker.pipe.send((waiting[0].config, waiting[0].words))
                except OSError:  # it died while it had nothing to do; another one takes the run
                    self._bury(worker)
                    continue
                worker.task = waiting.pop(0)
            busy = [w for w in self.workers if w.task]
            if not busy:
                return
            ready = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy])
            for worker in busy:
                if worker.pipe in ready or worker.process.sentinel in ready:
                    task, answer = worker.task, self._answer(worker)
                    worker.task = None
                    yield task, answer

    def _bury(self, worker: _Worker) -> None:
        worker.process.join(5)
        self.workers.remove(worker)
        worker.pipe.close()

    def _answer(self, worker: _Worker) -> dict:
        with contextlib.suppress(EOFError, OSError):
            if worker.pipe.poll():
                return worker.pipe.recv()
        self._bury(worker)
        code = worker.process.exitcode
        if code == 75:
            return {"status": "interrupted", "why": "stopped by a signal"}
        end = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return {"status": "failed", "why": f"its worker process ended {end}; see {self.logs}"}
