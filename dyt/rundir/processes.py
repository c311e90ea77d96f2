"""Which process of a run this one is: what torchrun or srun put into the environment. No torch."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

# Once the processes have joined: whether this one is the first of them that failed (training/distributed.py sets it).
first_to_fail: Callable[[], bool] | None = None


@dataclass(frozen=True)
class Place:
    """This process among those that were started together: `local` counts on its machine, which has `per_machine`."""

    rank: int = 0
    size: int = 1
    local: int = 0
    per_machine: int = 1
    launched: bool = False  # by torchrun or srun, be it alone


def place() -> Place:
    """Read from torchrun's variables, else from submitit's or srun's; a process that neither started is alone.

    A batch script's own process has SLURM's variables too, but no step: it is alone, and srun starts the others.
    """
    env = os.environ
    if "WORLD_SIZE" in env:
        size = int(env["WORLD_SIZE"])
        machine = int(env.get("LOCAL_WORLD_SIZE", size))
        return Place(int(env.get("RANK", 0)), size, int(env.get("LOCAL_RANK", 0)), machine, True)
    if env.get("SUBMITIT_EXECUTOR") == "local":  # submitit's stand-in for SLURM on one machine
        size = int(env.get("SUBMITIT_LOCAL_NTASKS", 1))
        rank = int(env.get("SUBMITIT_LOCAL_GLOBALID", 0))
        return Place(rank, size, rank, size, size > 1)
    if "SLURM_STEP_ID" in env and "SLURM_PROCID" in env:
        size = int(env.get("SLURM_STEP_NUM_TASKS") or env.get("SLURM_NTASKS", 1))
        tasks = env.get("SLURM_STEP_TASKS_PER_NODE") or env.get("SLURM_TASKS_PER_NODE") or str(size)  # as in 8(x4)
        machine = int(re.match(r"\d+", tasks).group())
        return Place(int(env["SLURM_PROCID"]), size, int(env.get("SLURM_LOCALID", 0)), machine, True)
    return Place()


def meeting_point() -> None:
    """Puts MASTER_ADDR and MASTER_PORT where torch looks for them: under srun, the first machine of the step."""
    env = os.environ
    if "MASTER_ADDR" not in env:
        nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_JOB_NODELIST") or "127.0.0.1"
        env["MASTER_ADDR"] = _first_machine(nodes)
    if "MASTER_PORT" not in env:  # a job's own, so that two jobs on a machine do not meet
        job, step = (
            int(re.sub(r"\D", "", env.get(key, "")) or 0)
            for key in ("SLURM_JOB_ID" if "SLURM_JOB_ID" in env else "SUBMITIT_LOCAL_JOB_ID", "SLURM_STEP_ID")
        )
        env["MASTER_PORT"] = str(20000 + (31 * job + step) % 20000)


def _first_machine(nodes: str) -> str:
    """Of a SLURM list such as ``gpu[03-05,9],login``."""
    try:
        asked = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, timeout=30)
        if asked.returncode == 0 and asked.stdout.strip():
            return asked.stdout.split()[0]
    except (OSError, subprocess.TimeoutExpired):
        pass
    prefix, number = re.match(r"([^\[,]*)(?:\[(\d+))?", nodes).groups()
    return prefix + (number or "")


def speaks() -> bool:
    """Whether this process is the one that says what went wrong: the first to fail; before they joined, the leading."""
    return first_to_fail() if first_to_fail else place().rank == 0
