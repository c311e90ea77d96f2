"""What is finished stays: rows of studies, W&B runs of sweeps, runs whose terminal goes away."""

import io
import os
import re
import signal
import subprocess
import sys

import pytest

from dyt.rundir.files import read_json
from dyt.rundir.streams import Steady
from dyt.studies import runner
from dyt.studies.running import rows
from dyt.studies.running.study import Study
from dyt.tracking.wandb import about_run, clipped, variant

from .helpers import ROOT, TINY_GPT, TINY_VIT, python, rows_of, train
from .test_tracking import held, online
from .wandb_server import Server

SHORT = ["trainer.max_steps=6", "trainer.eval_every=3", "trainer.eval_batches=1", "trainer.log_every=2"]
SYNC = str(ROOT / "scripts/wandb_sync.py")


# -- rows of a study ---------------------------------------------------------------------------------------------------


def planned(tmp_path, *extra, study="gradient_depth", scale="smoke"):
    extra = ["logger.mode=disabled", f"out_root={tmp_path / 'runs'}", *extra]
    return runner.StudyAt(Study(study), scale, extra=extra, results=tmp_path / "results")


@pytest.fixture
def finished_study(tmp_path):
    """A study with finished rows that have no run directory any more; the bytes of its runs.csv."""
    at = planned(tmp_path)
    for hash, (run, plan, _) in at.planned.items():
        at.rows[hash] = {**run.cell, "status": "finished", "seed": run.seed, "final": 1.5, "config_hash": hash}
        at.rows[hash] |= {"overrides": rows.overrides(run), "data_sha256": plan.data_sha256, "run": "a/b"}
    at.write_runs()
    return (at.folder / "runs.csv").read_bytes()


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_finished_row_is_replaced_by_a_finished_one_only(finished_study, status, tmp_path):
    at = planned(tmp_path)
    tasks = at.gather(rerun=True)
    assert len(tasks) == len(at.planned)
    for task in tasks:
        row = at.done(task.tag, {"status": status, "why": "no GPU"})
        assert row["status"] == status  # what is printed
    at.write_runs()
    assert (at.folder / "runs.csv").read_bytes() == finished_study


def test_a_failed_row_is_replaced(tmp_path):
    at = planned(tmp_path)
    hash = next(iter(at.planned))
    for why in ("first", "second"):
        at.done(hash, {"status": "failed", "why": why})
        assert [r["why"] for r in rows.read_runs(at.folder / "runs.csv", at.study)] == [why]


@pytest.mark.parametrize(
    "extra, message",
    [
        (
            ["trainer.device=cuda"],
            "device=cuda: torch sees no GPU here; leave trainer.device out, or type trainer.device=cpu",
        ),
        (["out_root=blocked/runs"], "out_root=blocked/runs: cannot write there"),
        (["logger=tensorboard"], "logger=tensorboard: the package is missing; type pip install tensorboard"),
    ],
)
def test_what_the_machine_lacks_is_said_once_before_the_first_run(
    finished_study, extra, message, tmp_path, monkeypatch
):
    import torch

    from dyt.studies.running import ready

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(ready.importlib.util, "find_spec", lambda name: None)
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(ValueError, match=re.escape(message)):
        runner.reproduce([planned(tmp_path, *extra)], jobs=1, rerun=True)
    assert {p.name for p in tmp_path.rglob("*")} <= {"blocked", "results", "gradient_depth", "smoke", "runs.csv"}
    assert (tmp_path / "results/gradient_depth/smoke/runs.csv").read_bytes() == finished_study


def test_missing_data_is_said_before_the_first_run(tmp_path, monkeypatch):
    from dyt.studies.running import ready
    from dyt.studies.running.pool import Task

    at = planned(tmp_path)
    (hash, (_, plan, words)), *_ = at.planned.items()
    plan.config["data"] |= {"source": "files", "hub": "nobody/nothing", "path": None}
    with pytest.raises(ValueError, match="data.hub=nobody/nothing: could not be loaded"):
        ready.refuse_unready([Task(plan.config, words, hash)], "smoke", tmp_path / "results")


def test_the_gpu_scale_without_a_gpu_says_so(tmp_path, monkeypatch):
    import torch

    from dyt.studies.running import ready
    from dyt.studies.running.pool import Task

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = {"trainer": {"device": "auto"}, "out_root": str(tmp_path)}
    with pytest.raises(ValueError, match="--scale gpu is for a GPU and torch sees none here; type --scale small"):
        ready.refuse_unready([Task(config, [], "x")], "gpu", tmp_path)


# -- W&B: sweeps, long names, offline files ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_multirun_under_an_agent_is_one_wandb_run_each(tmp_path):
    with Server() as server:
        words = [*TINY_GPT, *SHORT, "seed=0,1,2"]
        sweep = {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "fromagent"}
        done = python("train.py", "-m", *words, **online(server), **sweep)
        assert done.returncode == 0, done.stderr
        folders = sorted(tmp_path.glob("runs/default/gpt*"), key=lambda f: read_json(f / "summary.json")["seed"])
        ids = [read_json(f / "run.json")["wandb_id"] for f in folders]
        assert ids[0] == "fromagent" and len(set(ids)) == 3 and set(server.runs) == set(ids)
        for folder in folders:
            assert held(server, folder) == rows_of(folder, timing=True)


def test_an_agents_trial_of_what_is_finished_reports(tmp_path):
    _, folder = train(*TINY_GPT, *SHORT, "logger.mode=disabled")
    own = read_json(folder / "run.json")["wandb_id"]
    with Server() as server:
        sweep = {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "trial7"}
        done = python("train.py", *TINY_GPT, *SHORT, **online(server), **sweep)
        assert done.returncode == 0 and "already finished" in done.stdout, done.stderr
        assert [row["step"] for row in server.history["trial7"].values()] == [2, 3, 4, 6]
        best = read_json(folder / "summary.json")["best"]["val/loss"]["value"]
        assert server.runs["trial7"]["summary"]["best/val/loss"] == best
    assert read_json(folder / "run.json")["wandb_id"] == own


def test_an_agents_trial_that_starts_from_other_runs_is_one_wandb_run(tmp_path):
    """Those it starts from are trained for it, or finished already, and are nobody's trial."""
    chain = """init_from='norm=layernorm trainer.max_steps=2 init_from="norm=layernorm trainer.max_steps=1"'"""
    with Server() as server:
        for trial, rate in (("trial7", "1e-3"), ("trial8", "2e-3")):
            sweep = {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": trial}
            words = [*TINY_GPT, *SHORT, "norm=dyt", "convert=naive", chain, f"optim.lr={rate}"]
            done = python("train.py", *words, **online(server), **sweep)
            assert done.returncode == 0, done.stderr
        folders = list(tmp_path.glob("runs/default/gpt*"))
        ids = {read_json(f / "run.json")["wandb_id"]: f for f in folders}
        assert len(ids) == 4 and set(server.runs) == {"trial7", "trial8"} < set(ids)
        for trial in server.runs:
            assert held(server, ids[trial]) == rows_of(ids[trial], timing=True)


def test_names_fit_what_wandb_takes_and_stay_apart():
    assert clipped("short", 64) == "short"
    a, b = (clipped("x" * 70 + end, 64) for end in "ab")
    assert len(a) == len(b) == 64 and a != b
    from pathlib import Path

    from dyt.config.compose import load

    about = about_run(load([f"tag={'t' * 200}"]), Path("n" * 150))
    assert about["name"].endswith(", seed 0") and len(about["name"]) <= 128 and about["notes"] == "n" * 150
    assert len(about["group"]) <= 128 and max(map(len, about["tags"])) == 64


def test_a_group_at_wandb_holds_seeds_and_nothing_else():
    """Curves are averaged in it. Models, embeddings, lengths and sites once shared groups, for they were in no name."""
    from pathlib import Path

    from dyt.config.compose import load

    start = ["model=gpt_nano", "norm=dyt"]
    others = ["model=gpt_mini", "data=shakespeare", "model.embed_std=rsqrt_dim", "norm.sites.attn.alpha_init=3"]
    others += ["trainer.max_steps=7", "optim.weight_decay=0.3", "init_from=runs/a", "init_from='norm=rmsnorm seed=1'"]
    of = lambda *words: about_run(load([*start, *words]), Path("x"))  # noqa: E731
    groups = [of(word)["group"] for word in ("seed=0", *others)]
    assert len(set(groups)) == len(groups)
    assert [of(word)["group"] for word in ("seed=1", "trainer.device=cpu", "out_root=elsewhere")] == groups[:1] * 3
    assert of("init_from=runs/b", "seed=1")["group"] == groups[-2]  # of that seed's own directory
    assert of("seed=1")["name"] == "DyT 0.5/1, lr 1e-3, gpt_nano, stdlib, seed 1"
    assert {variant(load([*start, f"seed={seed}"])) for seed in (0, 1)} == {groups[0].removeprefix("default-")}


@pytest.mark.parametrize("name, message", [("a/b", "may not contain"), ("p" * 129, "at most 128 characters")])
def test_a_project_that_wandb_refuses_is_refused_at_once(name, message):
    from dyt.config.compose import load

    with pytest.raises(ValueError, match=message):
        load([f"logger.project={name}"])


def offline_run(tmp_path):
    """A run of six rows that has an offline file, and what a server holds of it after `wandb sync`: set by the test."""
    _, folder = train(*TINY_GPT, *SHORT, "trainer.log_every=1", "logger.mode=disabled")
    id = read_json(folder / "run.json")["wandb_id"]
    place = folder / "wandb" / "offline-run-1"
    place.mkdir(parents=True)
    (place / f"run-{id}.wandb").touch()
    return folder, id


@pytest.mark.parametrize(
    "steps, sent",
    [
        pytest.param([], True, marks=pytest.mark.slow),
        ([1, 2, 3], True),
        pytest.param([4, 5, 6], False, marks=pytest.mark.slow),
        ([1, 2, 3, 4, 5, 4, 5], False),
    ],
)
def test_after_wandb_sync_each_step_is_there_once_or_one_word_says_so(steps, sent, tmp_path):
    folder, id = offline_run(tmp_path)
    with Server() as server:
        server.history[id] = {i: {"step": s, "_step": s} for i, s in enumerate(steps)}
        done = python(SYNC, str(folder), **online(server))
        if sent:
            assert done.returncode == 0, done.stderr
            assert [row["step"] for row in server.history[id].values()] == [1, 2, 3, 4, 5, 6]
            return
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert f"W&B has {len(steps)} rows up to step {steps[-1]}" in done.stderr and "--anew" in done.stderr
        typed = re.search(r"python scripts/wandb_sync.py (--anew .*)\)$", done.stderr.strip())[1].split()
        done = python(SYNC, *typed, **online(server))
        assert done.returncode == 0, done.stderr
        new = read_json(folder / "run.json")["wandb_id"]
        assert new != id and held(server, folder) == rows_of(folder, timing=True)


def test_a_server_that_does_not_say_what_it_has_is_a_word(tmp_path, monkeypatch):
    from dyt.tracking.wandb import rows_at_server

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert rows_at_server("dyt", None, "x") == (None, None)


# -- terminals and pipes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sink", ["head", "full disk"])
def test_a_sweep_outlives_what_reads_it(sink, tmp_path):
    words = [*TINY_GPT, *SHORT, "logger.mode=disabled", "seed=0,1"]
    read, write = os.pipe()
    if sink == "head":
        os.close(read)
    out = write if sink == "head" else os.open("/dev/full", os.O_WRONLY)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words]
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, timeout=240)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    states = [read_json(f)["status"] for f in tmp_path.glob("runs/default/*/summary.json")]
    assert states == ["finished", "finished"]


def test_a_sweep_into_the_home_folder_lands_there(tmp_path):
    words = [*TINY_GPT, *SHORT, "logger.mode=disabled", "seed=0,1", "out_root=~/my runs"]
    done = python("train.py", "-m", *words, HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "my runs").glob("*/*/summary.json"))) == 2 and not (tmp_path / "~").exists()


class Full(io.StringIO):
    """A stream on a disk that is full for a while."""

    full = True

    def flush(self):
        if self.full:
            raise OSError(28, "No space left on device")


def test_a_steady_stream_never_raises_and_goes_on():
    inner = Full()
    stream = Steady(inner)
    print("one", file=stream, flush=True)
    inner.full = False
    print("two", file=stream, flush=True)
    assert inner.getvalue() == "one\ntwo\n"


def test_hangup_saves_and_may_come_twice(monkeypatch):
    from .test_trainer import stop_at

    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and stays so
    back = stop_at(monkeypatch, 2, signal.SIGHUP)
    summary, folder = train(*TINY_VIT, *SHORT, "trainer.save_every=100", "logger.mode=disabled", "norm=layernorm")
    back()
    assert summary["status"] == "interrupted" and summary["step"] == 3  # the step after
    assert list((folder / "checkpoints").glob("step-000000003.json"))
    from dyt.training.loop import Stop

    with Stop() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    signal.signal(signal.SIGHUP, before)


def test_nohup_is_respected():
    from dyt.rundir.streams import heard

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert not heard(signal.SIGHUP) and heard(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_worker_that_dies_between_two_runs_costs_no_run(tmp_path):
    from dyt.studies.running.pool import Pool, Task

    with Pool(1, tmp_path / "logs") as pool:
        found = []
        for task, answer in pool.run([Task({"no": "config"}, [], tag) for tag in range(3)]):
            found.append((task.tag, answer["why"]))
            if task.tag == 0:
                idle = pool.workers[0].process
                idle.kill(), idle.join()
    assert [tag for tag, _ in found] == [0, 1, 2] and len({why for _, why in found}) == 1  # the config's own fault


def test_a_run_that_another_process_finished_stays_finished(tmp_path):
    ours, theirs = planned(tmp_path), planned(tmp_path)
    first, second = list(ours.planned)[:2]
    theirs.done(first, {"status": "failed", "why": "another process writes there"})
    run, plan, _ = ours.planned[first]
    ours.rows[first] = {**run.cell, "status": "finished", "seed": run.seed, "final": 1.5, "config_hash": first}
    ours.rows[first] |= {"overrides": rows.overrides(run), "data_sha256": plan.data_sha256, "run": "a/b"}
    ours.write_runs()
    theirs.done(second, {"status": "failed", "why": "no GPU"})
    found = {row["config_hash"]: row["status"] for row in rows.read_runs(ours.folder / "runs.csv", ours.study)}
    assert found == {first: "finished", second: "failed"}
