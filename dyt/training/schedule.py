"""When: every duration in steps, the clock of a run, and being asked to stop."""

import contextlib
import math
import signal
import time
from dataclasses import dataclass

from dyt.rundir.requeue import seen
from dyt.rundir.streams import STOPS, heard


@dataclass(frozen=True)
class Schedule:
    """Every duration, in optimizer steps."""

    total: int
    log_every: int
    eval_every: int
    save_every: int
    probe_every: int | None = None

    @classmethod
    def of(cls, trainer: dict, steps_per_epoch: int) -> "Schedule":
        total = trainer["max_steps"] or math.ceil(round(trainer["max_epochs"] * steps_per_epoch, 6))
        eval_every = trainer["eval_every"] or steps_per_epoch
        save_every = trainer["save_every"] or eval_every
        return cls(total, trainer["log_every"], eval_every, save_every, trainer["probe_every"])


class Clock:
    """A run's seconds, over all its starts, and how fast it trains while it does nothing else."""

    def __init__(self, step: int, elapsed: float):
        now = time.perf_counter()
        self.began, self.last, self.pauses = now - elapsed, (now, step), 0.0

    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    @contextlib.contextmanager
    def paused(self):
        """Time in here does not count as training."""
        began = time.perf_counter()
        yield
        self.pauses += time.perf_counter() - began

    def steps_per_s(self, step: int) -> float:
        """Since this was last asked, without pauses."""
        now = time.perf_counter()
        speed = (step - self.last[1]) / max(1e-9, now - self.last[0] - self.pauses)
        self.last, self.pauses = (now, step), 0.0
        return speed


class Stop:
    """Ctrl-C, SIGTERM, SIGUSR1, SIGUSR2 and SIGHUP ask the loop to end after this step; a second one ends it at once.

    A terminal that closes may send SIGHUP twice: that one never counts as the second. SIGUSR1 and SIGUSR2 are a
    cluster's warning, which a SIGTERM follows: they never count as the first.
    """

    def __init__(self):
        self.asked, self.pressed = 0, False

    def _handle(self, number, frame):
        seen.add(number)
        if self.pressed and number not in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            raise KeyboardInterrupt
        self.asked = 1
        self.pressed |= number not in (signal.SIGUSR1, signal.SIGUSR2)

    def __enter__(self):
        self._before = {}
        with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
            for number in (signal.SIGINT, *filter(heard, STOPS)):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)
