"""A disk that is full, read-only or gone for a while: training goes on, and ends only when that lasts."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Unwritable(Exception):
    """Nothing could be written for longer than ``trainer.save_patience``, or still not at the end."""


class Patience:
    """Tries to write. A thing's first failure is one warning; after `seconds` of failures `Unwritable` is raised.

    Rows and checkpoints are told apart: a row may still fit where a checkpoint does not.
    """

    def __init__(self, seconds: float, place: str):
        self.seconds, self.place = seconds, place
        self.failing: dict[str, tuple[float, str]] = {}  # what -> (since when, why)

    def attempt(self, what: str, action: Callable[[], None]) -> bool:
        """Whether `action` succeeded. torch.save raises RuntimeError where the disk is full.

        Raises:
            Unwritable: writing has failed for longer than it may.
        """
        try:
            action()
        except (OSError, RuntimeError) as error:
            now = time.monotonic()
            since, _ = self.failing.get(what, (now, ""))
            why = f"{what} could not be written to {self.place} ({_words(error)})"
            if what not in self.failing:
                log.warning("%s; training goes on, and ends in %g s unless that is mended", why, self.seconds)
            self.failing[what] = since, why
            if now - since >= self.seconds:
                raise Unwritable(f"{why} for {self.seconds:g} s (trainer.save_patience)") from error
            return False
        if self.failing.pop(what, None):
            log.warning("%s can be written again; nothing was lost", what)
        return True

    def end(self) -> None:
        """Raises:
        Unwritable: something still could not be written at its last attempt.
        """
        for _, why in self.failing.values():
            raise Unwritable(f"{why}, still so at the end")


def _words(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    return (getattr(cause, "strerror", None) or " ".join(str(error).split()))[:160]
