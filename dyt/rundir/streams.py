"""What a run prints cannot end it: a reader that went away, a full disk behind a redirection, a closed terminal.

And the signals that ask a run to stop. No torch.
"""

import contextlib
import errno
import os
import signal
import sys

# Beside Ctrl-C. A closed terminal sends SIGHUP; SLURM and submitit send SIGUSR1 or SIGUSR2 some time before SIGTERM.
STOPS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


def heard(number: int) -> bool:
    """Whether a signal is for us: under nohup, SIGHUP is not."""
    return number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN


class Steady:
    """A text stream that never raises OSError; what a full disk did not take comes with the next text."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            if "\n" in text:
                self._stream.flush()
        except OSError as error:
            self._gone(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._gone(error)

    def _gone(self, error: OSError) -> None:
        if error.errno == errno.ENOSPC:
            return
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more: from now on into nothing
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)

    def end(self) -> None:
        """What still cannot be written goes nowhere, so that Python's last flush does not fail."""
        try:
            self._stream.flush()
        except OSError:
            self._gone(OSError(errno.EPIPE, ""))


@contextlib.contextmanager
def steady():
    """Within it stdout and stderr are `Steady`; a closed one goes nowhere."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (Steady(s if s is not None else open(os.devnull, "w")) for s in before)
    try:
        yield
    finally:
        sys.stdout.end(), sys.stderr.end()
        sys.stdout, sys.stderr = before
