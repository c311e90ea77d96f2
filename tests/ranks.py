"""Processes that run configs together over gloo, as torchrun would start them; they import once and serve many runs."""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import traceback
from pathlib import Path

CONTEXT = multiprocessing.get_context("spawn")


def _serve(pipe, rank: int, size: int) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1"}
    import torch

    from .helpers import train

    torch.set_num_threads(1)
    while True:
        try:
            folder, port, machine, words, out, wrong = pipe.recv()
        except EOFError:
            return
        os.chdir(folder)
        os.environ |= {"MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(machine)}
        try:
            with fault(*wrong) if wrong and rank == size - 1 else contextlib.nullcontext():
                summary, place = train(*words, out=out)
            pipe.send((summary["status"], str(place)))
        except Exception as error:
            from dyt.training.distributed import leave

            leave()
            told = f"{type(error).__name__}: {error}" if isinstance(error, ValueError) else traceback.format_exc()
            pipe.send(("refused", told))


@contextlib.contextmanager
def fault(kind: str, at: int):
    """What befalls this process in step `at`: ``stop`` (SIGTERM), ``kill`` (SIGKILL) or ``nan`` (its loss)."""
    from dyt.training.loop import Trainer

    real = Trainer.train_step

    def step(self, *args):
        if self.step + 1 == at and kind == "nan":
            loss = self.task.loss
            self.task.loss = lambda *given: loss(*given) * float("nan")
        elif self.step + 1 == at:
            os.kill(os.getpid(), {"stop": signal.SIGTERM, "kill": signal.SIGKILL}[kind])
        return real(self, *args)

    Trainer.train_step = step
    try:
        yield
    finally:
        Trainer.train_step = real


class Ranks:
    """`size` processes. Use as a context manager: leaving it ends them."""

    def __init__(self, size: int):
        self.size, self.pipes, self.processes = size, [], []
        for rank in range(size):
            ours, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(target=_serve, args=(theirs, rank, size), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_) -> None:
        for pipe in self.pipes:
            pipe.close()
        for process in self.processes:
            process.join(10)
            process.kill()

    def run(self, *words: str, out: str = "runs", machine: int | None = None, wrong=None) -> list[tuple[str, str]]:
        """(status, directory) of a config in each process; (``refused``, why) where it does not begin.

        `wrong` is a `fault` of the last process; `machine` says how many of them count as on one machine.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for pipe in self.pipes:
            pipe.send((os.getcwd(), port, machine or self.size, words, out, wrong))
        answers = []
        for pipe in self.pipes:
            assert pipe.poll(120), f"a process does not answer: {words}"
            answers.append(pipe.recv())
        return answers

    def trained(self, *words: str, out: str = "runs", machine: int | None = None) -> Path:
        """The directory of a config that all of them finished."""
        answers = self.run(*words, out=out, machine=machine)
        assert {status for status, _ in answers} == {"finished"}, answers
        return Path(answers[0][1])


def curve(folder: Path, key: str = "train/loss") -> dict[int, float]:
    """Step -> value of a run's rows that have `key`."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row[key] for row in rows if key in row}
