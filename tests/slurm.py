"""A stand-in for SLURM on one machine: ``python slurm.py sbatch|srun|scontrol|sacct ...``; see `install`.

It does what submitit and this repository use of it, in SLURM's way: job arrays, several tasks a job with SLURM's
variables, ``--signal`` to the tasks, requeueing with the same script, and the death of a job's other tasks where
SLURM_KILL_BAD_EXIT asks for it. State is in the folder STAND_IN.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

# Whether SLURM itself can be started here, by test_slurm.py.
REAL = all(map(shutil.which, ("slurmctld", "slurmd", "sbatch", "munged"))) and os.geteuid() == 0


def install(folder: Path) -> dict[str, str]:
    """Puts the commands into `folder`/bin; returns the environment that finds them."""
    commands = folder / "bin"
    commands.mkdir(parents=True)
    for name in ("sbatch", "srun", "scontrol", "sacct"):
        file = commands / name
        file.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} {name} "$@"\n')
        file.chmod(0o755)
    return {"PATH": f"{commands}:{os.environ['PATH']}", "STAND_IN": str(folder)}


def jobs(folder: Path) -> list[dict]:
    """What is known of every job: id, state, starts, pids of its tasks."""
    return [
        {file.name: json.loads(file.read_text()) for file in place.glob("[a-z]*")}
        for place in sorted(folder.glob("job-*"))
    ]


def _note(job: str, **more) -> dict:
    place = Path(os.environ["STAND_IN"]) / f"job-{job}"
    if not place.exists():
        place.mkdir()
        more |= {"id": job, "starts": 0, "pids": [], "requeue": False}
    for key, value in more.items():  # each in a file of its own: several processes write
        part = place / f".{key}"
        part.write_text(json.dumps(value))
        part.replace(place / key)
    return {file.name: json.loads(file.read_text()) for file in place.glob("[a-z]*")}


def sbatch(words: list[str]) -> int:
    script = Path(words[-1])
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script.read_text(), re.MULTILINE))
    folder = Path(os.environ["STAND_IN"])
    number = 1000 + len(list(folder.glob("script-*")))
    kept = folder / f"script-{number}"  # as it is now: it may be changed or moved before the job begins
    kept.write_text(script.read_text())
    last = re.match(r"0-(\d+)", asked.get("array", ""))
    for task in range(int(last.group(1)) + 1) if last else [None]:
        job = str(number) if task is None else f"{number}_{task}"
        _note(job, state="PENDING", asked=asked)
        command = [sys.executable, __file__, "controller", str(kept), job]
        with open(folder / f"log-{job}", "a") as log:  # not sbatch's own output, whose reader waits for its end
            subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    print(f"Submitted batch job {number}")
    return 0


def controller(words: list[str]) -> int:
    """One job: runs its script until it ends without having been queued again."""
    script, job = words
    asked = _note(job)["asked"]
    number, _, task = job.partition("_")
    tasks = int(asked.get("ntasks-per-node", 1))
    env = os.environ | {"SLURM_JOB_ID": str(int(number) + 100 * (int(task or 0) + 1)) if task else number}
    env |= {"SLURM_NTASKS": str(tasks * int(asked.get("nodes", 1))), "SLURM_NTASKS_PER_NODE": str(tasks)}
    env |= {"SLURM_JOB_NUM_NODES": asked.get("nodes", "1"), "SLURM_JOB_NODELIST": "localhost", "SLURM_PROCID": "0"}
    env |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": task} if task else {}
    env["STAND_IN_JOB"] = job
    while True:
        about = _note(job, state="RUNNING", starts=_note(job)["starts"] + 1, requeue=False)
        env["SLURM_RESTART_COUNT"] = str(about["starts"] - 1)
        batch = subprocess.Popen(["bash", script], env=env)
        while batch.poll() is None and not _note(job)["requeue"]:
            time.sleep(0.2)
        if not _note(job)["requeue"]:
            _note(job, state="COMPLETED" if batch.returncode == 0 else "FAILED")
            return 0
        for pid in _note(job)["pids"]:
            _kill(pid, signal.SIGKILL)
        batch.wait()


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def srun(words: list[str]) -> int:
    """The tasks of a step; output files as ``%j``, ``%A_%a`` and ``%t`` say."""
    options, command = {}, []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            command = [word, *words]
            break
        key, equals, value = word.lstrip("-").partition("=")
        options[key] = value if equals else words.pop(0) if key in ("output", "error") else ""
    job, tasks = os.environ["STAND_IN_JOB"], int(os.environ["SLURM_NTASKS"])
    number, _, task = job.partition("_")
    env = os.environ | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": str(tasks)}
    env |= {"SLURM_STEP_TASKS_PER_NODE": str(tasks), "SLURM_STEP_NODELIST": os.environ["SLURM_JOB_NODELIST"]}
    processes = []
    for rank in range(tasks):
        to = {}
        for key, stream in (("output", "stdout"), ("error", "stderr")):
            if key in options:
                name = options[key].replace("%j", job).replace("%A", number).replace("%a", task)
                file = Path(name.replace("%t", str(rank)))
                file.parent.mkdir(parents=True, exist_ok=True)
                to[stream] = open(file, "a")
        mine = env | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}
        processes.append(subprocess.Popen(command, env=mine, **to))
    _note(job, pids=[p.pid for p in processes])
    while any(p.poll() is None for p in processes):
        if os.environ.get("SLURM_KILL_BAD_EXIT") == "1" and any(p.poll() for p in processes):
            time.sleep(1)
            for p in processes:
                p.kill()
        time.sleep(0.1)
    return max(abs(p.returncode) for p in processes)


def scontrol(words: list[str]) -> int:
    if words[:2] == ["show", "hostnames"]:
        print("127.0.0.1" if words[2] == "localhost" else words[2])
        return 0
    assert words[0] == "requeue", words
    known = {about["id"] for about in jobs(Path(os.environ["STAND_IN"]))}
    if words[1] not in known:
        print("Invalid job id specified", file=sys.stderr)
        return 1
    _note(words[1], requeue=True)
    return 0


def sacct(words: list[str]) -> int:
    print("JobID|State|NodeList")
    for about in jobs(Path(os.environ["STAND_IN"])):
        print(f"{about['id']}|{about['state']}|localhost")
    return 0


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]](sys.argv[2:]))
