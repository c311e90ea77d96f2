"""SLURM itself, on this machine alone: its own daemons on loopback, a run that is pre-empted, a sweep of its jobs.

Needs root and Debian's packages: apt-get install slurmctld slurmd slurm-client munge. Without them test_cluster.py
has a stand-in.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from .helpers import ROOT, python, rows_of
from .slurm import REAL
from .test_cluster import LONG, QUICK, statuses, until, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("slurm"),
    pytest.mark.skipif(not REAL, reason="needs root, and apt-get install slurmctld slurmd slurm-client munge"),
]
CONF = """
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
PreemptMode=REQUEUE
PreemptType=preempt/partition_prio
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES State=UP PriorityTier=1 GraceTime=60
PartitionName=high Nodes={host} State=UP PriorityTier=10
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A cluster of this machine with two processors; its environment."""
    place = tmp_path_factory.mktemp("slurm")
    (place / "state").mkdir()
    host = socket.gethostname().split(".")[0]
    (place / "slurm.conf").write_text(CONF.format(host=host, place=place, ports=[free_port(), free_port()]))
    env = {"SLURM_CONF": str(place / "slurm.conf")}
    started = []
    if subprocess.run(["munge", "-n"], capture_output=True).returncode:
        os.makedirs("/run/munge", exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        started.append(subprocess.Popen(["runuser", "-u", "munge", "--", "munged", "--foreground"]))
    for daemon in ("slurmctld", "slurmd"):
        started.append(subprocess.Popen([daemon, "-D"], env=os.environ | env, stderr=subprocess.DEVNULL))
        time.sleep(1)
    try:
        until(lambda: set(said("sinfo", "-h", "-o", "%t", env=env).split()) == {"idle"})
        yield env
    finally:
        said("scancel", "--user=root", "--signal=KILL", env=env)
        said("scancel", "--user=root", env=env)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def said(*command: str, env: dict) -> str:
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True).stdout.strip()


@pytest.mark.timeout(600)
def test_a_pre_empted_run_of_two_processes_goes_on(cluster, tmp_path):
    script = tmp_path / "job.sh"
    words = " ".join([*LONG, "trainer.max_steps=600", "trainer.strategy=fsdp", "trainer.threads=1"])
    script.write_text(
        "#!/bin/bash\n#SBATCH --ntasks=2 --requeue --open-mode=append\n"
        f"srun {sys.executable} {ROOT / 'train.py'} {words} out_root={tmp_path / 'runs'}\n"
    )
    other = tmp_path / "other.sh"
    other.write_text("#!/bin/bash\nsleep 3\n")
    queue = {"cwd": tmp_path, "env": os.environ | cluster, "check": True}
    job = subprocess.run(["sbatch", "--parsable", str(script)], **queue, capture_output=True, text=True).stdout.strip()

    def folder():
        return next(tmp_path.glob("runs/default/*"), None)

    def steps() -> list[int]:
        return [row["step"] for row in rows_of(folder())] if folder() and (folder() / "metrics.jsonl").exists() else []

    def summary() -> dict:
        """Empty while it runs."""
        file = folder() / "summary.json"
        return json.loads(file.read_text()) if file.exists() else {}

    until(lambda: len(steps()) > 5, 240)
    subprocess.run(["sbatch", "--partition=high", "--ntasks=2", str(other)], **queue)
    until(lambda: said("squeue", "-h", "-j", job, "-o", "%T", env=cluster) == "PENDING", 60)
    (saved,) = (int(file.stem.split("-")[1]) for file in folder().glob("checkpoints/step-*.json"))
    assert saved == steps()[-1] < 600 and summary()["status"] == "interrupted"
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], **queue)  # two minutes are the rule
    until(lambda: summary().get("status") == "finished", 150)
    assert steps() == list(range(1, 601))


@pytest.mark.timeout(600)
def test_a_sweep_of_four_jobs_of_which_one_fails_and_a_second_call_runs_that_one(cluster, tmp_path):
    texts = [tmp_path / f"text{i}" for i in range(4)]
    for number, place in enumerate(texts[:3]):
        write(place, number)
    launcher = ["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"]
    words = [*launcher, *QUICK, "trainer.threads=1", "data=hf_text", f"data.path={','.join(map(str, texts))}"]
    first = python("train.py", "-m", *words, **cluster)
    assert statuses(first) == ["finished"] * 3 + ["failed"], first.stdout + first.stderr
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/default/*/metrics.jsonl")}
    write(texts[3], 3)
    second = python("train.py", "-m", *words, **cluster)
    assert second.returncode == 0 and statuses(second) == ["finished"] * 4, second.stdout + second.stderr
    after = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/default/*/metrics.jsonl")}
    assert len(before) == 3 and len(after) == 4 and before.items() <= after.items()
