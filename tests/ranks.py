"""Processes that run configs together over gloo, as torchrun would start them; one imports, the others fork from it."""

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import socket
import traceback
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["tests.helpers", "dyt.training.loop", "dyt.training.saving_together", "torch.distributed.fsdp", "models.gpt"]
    + ["models.vit", "dyt.data.text", "dyt.data.images", "dyt.tracking.wandb"]
)


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
            if callable(words):
                pipe.send(words(rank, size))
                continue
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
    """What befalls this process in step `at`: ``stop`` (SIGTERM), ``kill``, ``hang`` or ``nan`` (its loss).

    ``full``: its disk, at its first `at` attempts to write a part of a checkpoint.
    """
    import torch.distributed.checkpoint as dcp

    from dyt.training.loop import Trainer

    real, write, tries = Trainer.train_step, dcp.FileSystemWriter.write_data, []

    def full(self, *args):
        tries.append(1)
        if len(tries) <= at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *args)

    def step(self, *args):
        if self.step + 1 == at and kind == "nan":
            loss = self.task.loss
            self.task.loss = lambda *given: loss(*given) * float("nan")
        elif self.step + 1 == at and kind != "full":
            os.kill(os.getpid(), {"stop": signal.SIGTERM, "kill": signal.SIGKILL, "hang": signal.SIGSTOP}[kind])
        return real(self, *args)

    Trainer.train_step = step
    dcp.FileSystemWriter.write_data = full if kind == "full" else write
    try:
        yield
    finally:
        Trainer.train_step, dcp.FileSystemWriter.write_data = real, write


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
        return self._answers(words, machine or self.size, out, wrong)

    def call(self, function) -> list:
        """What ``function(rank, size)``, of a module, returns in each process."""
        return self._answers(function, self.size)

    def _send(self, words, machine: int, out: str = "runs", wrong=None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        for pipe in self.pipes:
            pipe.send((os.getcwd(), port, machine, words, out, wrong))

    def _answers(self, words, machine: int, out: str = "runs", wrong=None) -> list:
        self._send(words, machine, out, wrong)
        answers = []
        for pipe in self.pipes:
            assert pipe.poll(120), f"a process does not answer: {words}"
            try:
                answers.append(pipe.recv())
            except EOFError:
                answers.append(("killed", ""))
        return answers

    def ended(self, *words: str, wrong, seconds: float) -> bool:
        """Whether the first process of a run ends, without an answer, in time; the last has `wrong`."""
        self._send(words, self.size, wrong=wrong)
        self.processes[0].join(seconds)
        return not self.processes[0].is_alive()

    def trained(self, *words: str, out: str = "runs", machine: int | None = None) -> Path:
        """The directory of a config that all of them finished."""
        answers = self.run(*words, out=out, machine=machine)
        assert {status for status, _ in answers} == {"finished"}, answers
        return Path(answers[0][1])


def curve(folder: Path, key: str = "train/loss") -> dict[int, float]:
    """Step -> value of a run's rows that have `key`."""
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row[key] for row in rows if key in row}
