"""A disk that is full, read-only or gone for a while: training goes on, and ends only when that lasts."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Unwritable(Exception):
    """Nothing could be written for longer than ``trainer.save_patience``, or still not at the end."""


class Patience:
    """Tries to write; the first failure is one warning, and after `seconds` of failures `Unwritable` is raised."""

    def __init__(self, seconds: float, place: str):
        self.seconds, self.place = seconds, place
        self.since: float | None = None
        self.why = ""

    def attempt(self, what: str, action: Callable[[], None]) -> bool:
        """Whether `action` succeeded. torch.save raises RuntimeError where the disk is full.

        Raises:
            Unwritable: writing has failed for longer than it may.
        """
        try:
            action()
        except (OSError, RuntimeError) as error:
            now = time.monotonic()
            self.why = f"{what} could not be written to {self.place} ({_words(error)})"
            if self.since is None:
                self.since = now
                log.warning("%s; training goes on, and ends in %g s unless that is mended", self.why, self.seconds)
            if now - self.since >= self.seconds:
                raise Unwritable(f"{self.why} for {self.seconds:g} s (trainer.save_patience)") from error
            return False
        if self.since is not None:
            log.warning("%s can be written again; nothing was lost", self.place)
            self.since = None
        return True

    def end(self) -> None:
        """Raises:
        Unwritable: the last attempt failed.
        """
        if self.since is not None:
            raise Unwritable(f"{self.why}, still so at the end")


def _words(error: Exception) -> str:
    cause = error if isinstance(error, OSError) else error.__context__
    return (getattr(cause, "strerror", None) or " ".join(str(error).split()))[:160]
