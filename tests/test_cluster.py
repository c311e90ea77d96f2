"""Sweeps on a cluster: Hydra's launchers, jobs that are queued again, several processes. SLURM is a stand-in."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from dyt.rundir import processes

from . import slurm
from .helpers import ROOT, TINY_GPT, python, rows_of

QUICK = [*TINY_GPT, "trainer.max_steps=4", "trainer.eval_batches=1", "logger.mode=disabled"]
LONG = [*TINY_GPT, "trainer.max_steps=100000", "trainer.log_every=1", "trainer.eval_every=100000"]
LONG += ["trainer.eval_batches=1", "logger.mode=disabled", "trainer.save_every=100000"]

STAND_IN = pytest.mark.skipif(slurm.REAL, reason="SLURM itself is here: test_slurm.py")


def clear(monkeypatch, **env):
    """An environment with `env` alone, in which what is set does not outlive the test."""
    monkeypatch.setattr(os, "environ", env)


@pytest.mark.parametrize(
    "env, place",
    [
        ({}, processes.Place()),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, (5, 8, 1, 4, True)),
        # srun, two machines of four
        (
            {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8"}
            | {"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_NTASKS": "8"},
            (5, 8, 1, 4, True),
        ),
        # torchrun in a job of SLURM: torchrun's count
        (
            {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "RANK": "1", "WORLD_SIZE": "2"},
            (1, 2, 0, 2, True),
        ),
        # python in a batch script, without srun: alone, though the job has eight tasks
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, processes.Place()),
        (
            {"SUBMITIT_EXECUTOR": "local", "SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1"},
            (1, 2, 1, 2, True),
        ),
    ],
)
def test_a_process_knows_its_place(env, place, monkeypatch):
    clear(monkeypatch, **env)
    assert processes.place() == (place if isinstance(place, processes.Place) else processes.Place(*place))


@pytest.mark.parametrize(
    "nodes, first", [("gpu[03-05,9],login", "gpu03"), ("a1,b2", "a1"), ("node7", "node7"), ("n[12]", "n12")]
)
def test_the_first_machine_is_where_they_meet(nodes, first, monkeypatch):
    clear(monkeypatch, SLURM_JOB_ID="77", SLURM_STEP_NODELIST=nodes, PATH="/nowhere")
    processes.meeting_point()
    assert os.environ["MASTER_ADDR"] == first and 20000 <= int(os.environ["MASTER_PORT"]) < 40000


def statuses(done) -> list[str]:
    """Of the table that a sweep ends with."""
    lines = done.stdout.strip().splitlines()
    start = max(i for i, line in enumerate(lines) if line.startswith("status "))
    return [line.split()[0] for line in lines[start + 1 :]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        ["hydra/launcher=submitit_local"],
        pytest.param(["hydra/launcher=slurm", "hydra.launcher.gpus_per_node=null"], marks=STAND_IN),
    ],
    ids=["joblib", "submitit_local", "slurm"],
)
def test_of_four_runs_one_fails_and_a_second_call_runs_that_one_alone(launcher, tmp_path):
    env = slurm.install(tmp_path / "slurm")
    texts = [tmp_path / f"text{i}" for i in range(4)]
    for number, place in enumerate(texts[:3]):
        write(place, number)
    words = [*launcher, *QUICK, "data=hf_text", f"data.path={','.join(map(str, texts))}"]
    first = python("train.py", "-m", *words, **env)
    assert first.returncode == 1, first.stdout + first.stderr
    assert statuses(first) == ["finished"] * 3 + ["failed"]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/default/*/metrics.jsonl")}
    assert len(before) == 3
    write(texts[3], 3)
    second = python("train.py", "-m", *words, **env)
    assert second.returncode == 0 and statuses(second) == ["finished"] * 4, second.stdout + second.stderr
    after = {p: p.stat().st_mtime_ns for p in tmp_path.glob("runs/default/*/metrics.jsonl")}
    assert len(after) == 4 and before.items() <= after.items()


def write(place, number: int) -> None:
    place.mkdir()
    for split in ("train", "val"):
        (place / f"{split}.txt").write_text(f"text {number} of {split}\n" * 300)


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["submitit_local", "slurm", pytest.param("srun", marks=STAND_IN)])
@pytest.mark.parametrize("tasks", [1, 2])
def test_a_pre_empted_job_goes_back_into_the_queue_and_goes_on(how, tasks, tmp_path):
    """SIGUSR1, then SIGTERM, to every process of the job, as SLURM sends them."""
    env = slurm.install(tmp_path / "slurm")
    words = [*LONG, "trainer.max_steps=600"]
    words += ["trainer.strategy=fsdp"] if tasks == 2 else []
    if how == "srun":
        script = tmp_path / "job.sh"
        command = " ".join([sys.executable, str(ROOT / "train.py"), *words])
        script.write_text(f"#!/bin/bash\n#SBATCH --ntasks-per-node={tasks}\nsrun {command}\n")
        subprocess.run(["sbatch", str(script)], env=os.environ | env, check=True, cwd=tmp_path)
        sweep = None
    else:
        launcher = [f"hydra/launcher={how}", f"hydra.launcher.tasks_per_node={tasks}"]
        launcher += ["hydra.launcher.gpus_per_node=null"] if how == "slurm" else []
        command = [sys.executable, str(ROOT / "train.py"), "-m", *launcher, *words, "seed=0"]
        sweep = subprocess.Popen(command, env=os.environ | env, stdout=subprocess.PIPE, text=True)

    def rows() -> int:
        return sum(len(f.read_text().splitlines()) for f in tmp_path.glob("runs/default/*/metrics.jsonl"))

    def training() -> list[int]:
        """Its processes: of the job, with the program that trains."""
        if how != "submitit_local":
            return [pid for about in slurm.jobs(tmp_path / "slurm") for pid in about["pids"]]
        asked = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
        return [
            int(line.split()[0])
            for line in asked.splitlines()
            if "submitit.core._submit" in line and str(tmp_path) in line
        ]

    until(lambda: rows() > 5)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        for pid in training():
            os.kill(pid, number)
        time.sleep(0.02)
    place = next(tmp_path.glob("runs/default/gpt*"))
    if sweep:
        out, _ = sweep.communicate(timeout=120)
        assert sweep.returncode == 0 and "finished" in out
    summary = until(
        lambda: (
            (f := place / "summary.json").exists() and (s := json.loads(f.read_text()))["status"] == "finished" and s
        )
    )
    assert summary["step"] == 600 and summary["processes"] == tasks
    steps = [row["step"] for row in rows_of(place)]
    assert steps == list(range(1, 601))  # none twice, none missing
    assert [p for p in tmp_path.glob("runs/default/*") if p.name != ".locks"] == [place]
    if how != "submitit_local":
        until(lambda: [(j["starts"], j["state"]) for j in slurm.jobs(tmp_path / "slurm")] == [(2, "COMPLETED")])


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["submitit_local"], ["slurm", "hydra.launcher.gpus_per_node=null"]], ids=str)
def test_a_studys_runs_go_to_the_cluster_and_their_rows_come_back(launcher, tmp_path):
    env = slurm.install(tmp_path / "slurm")
    words = ["gradient_depth", "--scale", "smoke", "--results", "results", "--jobs", "2", "logger.mode=disabled"]
    done = python(str(ROOT / "scripts/reproduce.py"), *words, "--launcher", *launcher, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = (tmp_path / "results/gradient_depth/smoke/runs.csv").read_text().splitlines()
    assert len(rows) == 3 and all("finished" in row for row in rows[1:])
    if launcher[0] == "slurm":
        assert {about["state"] for about in slurm.jobs(tmp_path / "slurm")} == {"COMPLETED"}
    again = python(str(ROOT / "scripts/reproduce.py"), *words, "--launcher", *launcher, **env)
    assert again.returncode == 0 and ", 0 to run" in again.stdout


@pytest.mark.parametrize(
    "name, told", [("nosuch", "choose from submitit_local, submitit_slurm, slurm"), ("basic", "sends no jobs")]
)
def test_a_launcher_that_is_none_is_refused(name, told, tmp_path):
    from dyt.studies.running.cluster import Cluster

    with pytest.raises(ValueError, match=told):
        Cluster(name, [], 1, tmp_path)


def test_a_long_study_goes_in_arrays_that_slurm_takes_and_a_refusal_is_one_line(tmp_path, monkeypatch):
    from submitit.core.utils import FailedJobError

    from dyt.studies.running import cluster
    from dyt.studies.running.pool import Task

    class Queue:
        """Like SLURM, it takes at most 1,000 jobs to an array; each ends at once."""

        def __init__(self, most: int = 1000):
            self.arrays, self.most = [], most

        @contextlib.contextmanager
        def batch(self):
            self.arrays.append(0)
            yield
            if self.arrays[-1] > self.most:
                raise FailedJobError("sbatch: error: Batch job submission failed: Invalid job array specification")

        def submit(self, *_):
            self.arrays[-1] += 1
            return SimpleNamespace(done=lambda: True, results=lambda: [{"status": "finished", "why": ""}])

    monkeypatch.setattr(cluster.time, "sleep", lambda _: None)
    with cluster.Cluster("submitit_local", [], 1, tmp_path) as queue:
        queue.at_once, queue.executor = 10**9, Queue()
        tasks = [Task({}, [], str(n)) for n in range(2500)]
        assert [task.tag for task, _ in queue.run(tasks)] == [task.tag for task in tasks]
        assert queue.executor.arrays == [1000, 1000, 500]
        queue.executor = Queue(most=0)
        with pytest.raises(ValueError, match="the cluster took no jobs: sbatch: error: .* Invalid job array"):
            list(queue.run(tasks[:1]))
