"""Back into the queue: an interrupted run of a cluster asks for its job to start again, and goes on. No torch."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from dyt.rundir.files import read_json
from dyt.rundir.processes import place

seen: set[int] = set()  # signals that asked this process to stop


def requeue() -> None:
    """Asks for this job to be started again, if it is one; the leading process of a run does.

    Not after Ctrl-C: that is a person, who wants the job to end. A job of Hydra's submitit launcher goes back by
    submitit's own way, which does not return; any other job of SLURM by scontrol.
    """
    if place().rank != 0 or signal.SIGINT in seen:
        return
    if "SUBMITIT_EXECUTOR" in os.environ:
        signal.raise_signal(_submitits())
        return
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
        said = "requeued" if done.returncode == 0 else f"not requeued ({done.stderr.strip()})"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = f"not requeued ({error})"
    print(f"SLURM job {job} {said}", file=sys.stderr)


def began_here(folder: Path) -> bool:
    """Whether this job was started again and made this run directory itself, before it went back into the queue.

    Its ``resume=fresh`` is done then: to start over at each requeue, a run would never end.
    """
    again = os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")
    return again and (read_json(folder / "run.json") or {}).get("job") == os.environ.get("SLURM_JOB_ID", "")


def _submitits() -> signal.Signals:
    """The signal by which submitit saves and requeues."""
    return getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"))


def hear_all() -> None:
    """In a job of submitit: SIGUSR1 means what submitit's own signal means, also before training and after it."""
    if "SUBMITIT_EXECUTOR" in os.environ and _submitits() != signal.SIGUSR1:
        signal.signal(signal.SIGUSR1, lambda *_: signal.raise_signal(_submitits()))
