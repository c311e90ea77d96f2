"""SIGKILL at chosen moments, and faults that only show with several processes or runs. Real ones, each."""

import json
import os
import resource
import subprocess
import sys

import pytest

from .helpers import ROOT, TINY_GPT, TINY_VIT, python, rows_of

# All that draws at random or has state, on.
HARD = {
    "gpt": [*TINY_GPT, "model.dropout=0.1", "data.workers=1", "trainer.accumulate=2", "trainer.ema_decay=0.9"],
    "vit": [*TINY_VIT, "model.dropout=0.1", "model.drop_path=0.1", "data.mixup=0.8", "data.workers=1"],
}
HARD["vit"] += ["data.auto_augment=rand-m9-mstd0.5-inc1", "trainer.ema_decay=0.9", "trainer.accumulate=2"]
HARD["vit"] += ["data.batch_size=16"]
LENGTH = ["norm=dyt", "trainer.max_steps=24", "trainer.eval_every=6", "trainer.save_every=3", "trainer.log_every=1"]
LENGTH += ["trainer.eval_batches=3", "logger.mode=disabled"]

# train.py, in which the n-th call of a function ends the process as `kill -9` from outside would.
DRIVER = """
import os, runpy, signal, sys
sys.path.insert(0, {root!r})
import dyt.rundir.checkpoint, dyt.tasks, dyt.tracking.metrics, dyt.training.evaluation, dyt.training.loop

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def in_training(real):
    return die

def in_evaluation(real):  # with a part of the batches done
    def some(model, batches, *rest):
        return real(model, (b if i < 1 else die() for i, b in enumerate(batches)), *rest)
    return some

def in_saving(real):  # with half of the file written
    def half(state, stream):
        import io
        whole = io.BytesIO()
        real(state, whole)
        stream.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        stream.flush()
        die()
    return half

def before_the_manifest(real):
    return die

def in_logging(real):  # with half of the line written
    def half(self):
        os.write(self._file, self.unwritten[0].encode()[:20])
        die()
    return half

place = {{
    "in_training": (dyt.training.loop.Trainer, "train_step"),
    "in_evaluation": (dyt.training.evaluation, "sums_over"),
    "in_saving": (dyt.rundir.checkpoint.torch, "save"),
    "before_the_manifest": (dyt.rundir.checkpoint, "write_json"),
    "in_logging": (dyt.tracking.metrics.Metrics, "flush"),
}}
moment, count = sys.argv.pop(1), int(sys.argv.pop(1))
owner, name = place[moment]
real, calls = getattr(owner, name), 0

def counted(*args, **more):
    global calls
    calls += 1
    return (globals()[moment](real) if calls == count else real)(*args, **more)

setattr(owner, name, counted)
sys.argv[0] = {train!r}
runpy.run_path({train!r}, run_name="__main__")
"""
MOMENTS = [("in_training", 5), ("in_evaluation", 1), ("in_saving", 2), ("before_the_manifest", 3), ("in_logging", 2)]


def summary_of(folder) -> dict:
    summary = json.loads((folder / "summary.json").read_text())
    return {key: summary[key] for key in ("status", "step", "final", "best", "skipped", "config_hash")}


@pytest.mark.slow
@pytest.mark.parametrize("family", HARD)
def test_killed_anywhere_it_goes_on_to_the_bit(family, tmp_path):
    """One run, killed at each moment in turn, against one that nothing happened to."""
    words = [*HARD[family], *LENGTH]
    assert python("train.py", *words, "out_root=whole").returncode == 0
    (undisturbed,) = tmp_path.glob("whole/default/[gv]*")
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), train=str(ROOT / "train.py")))
    for moment, count in MOMENTS:
        killed = python(str(driver), moment, str(count), *words)
        assert killed.returncode == -9, f"{moment}: {killed.stdout[-500:]}{killed.stderr[-1500:]}"
        torsos = list(tmp_path.glob("runs/**/*.part"))
        assert bool(torsos) == (moment == "in_saving")
    done = python("train.py", *words)
    assert done.returncode == 0, done.stderr
    assert "resumed at step" in done.stdout
    (folder,) = tmp_path.glob("runs/default/[gv]*")
    assert rows_of(folder) == rows_of(undisturbed)
    assert summary_of(folder) == summary_of(undisturbed)
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_ends_all(tmp_path):
    """Rank 1 alone sees it; rank 0 must not step, wait forever, or save spoilt weights."""
    driver = tmp_path / "driver.py"
    driver.write_text(f"""
import os, runpy, sys
sys.path.insert(0, {str(ROOT)!r})
import dyt.tasks
from dyt.training.loop import Trainer
real = Trainer.train_step
def step(self, batches, lr, stop):
    if self.step == 4 and self.world.rank == 1:
        loss = self.task.loss
        self.task.loss = lambda *a: loss(*a) * float("nan")
    return real(self, batches, lr, stop)
Trainer.train_step = step
sys.argv[0] = {str(ROOT / "train.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
""")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(driver)]
    words = [*TINY_GPT, "norm=dyt", "trainer.max_steps=20", "trainer.eval_batches=1", "trainer.save_every=1"]
    python(*torchrun, *words, OMP_NUM_THREADS="1")
    (folder,) = tmp_path.glob("runs/default/gpt*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "diverged" and summary["step"] == 4
    from dyt.rundir import checkpoint

    state, _ = checkpoint.newest(folder / "checkpoints")
    assert state["step"] == 4 and all(value.isfinite().all() for value in state["model"].values())
    assert json.loads((folder / "failure.json").read_text())["step"] == 5


@pytest.mark.slow
def test_a_sweep_goes_on_past_a_run_without_memory(tmp_path):
    """The system really refuses: the address space is limited to 6 GiB."""
    words = [*TINY_GPT, "norm=dyt", "model.context=64", "trainer.max_steps=2", "trainer.eval_batches=1"]
    words += ["logger.mode=disabled", "data.eval_batch_size=8", "data.batch_size=65000,4"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *words],
        capture_output=True,
        text=True,
        env=os.environ,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30)),
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "out of memory" in done.stderr and "trainer.micro_batch=32500 " in done.stderr
    statuses = [json.loads(f.read_text())["status"] for f in tmp_path.glob("runs/default/*/summary.json")]
    assert sorted(statuses) == ["failed", "finished"]


def test_a_full_disk_behind_the_output_ends_no_run(tmp_path):
    words = [*TINY_GPT, "norm=dyt", "trainer.max_steps=3", "trainer.eval_batches=1", "logger.mode=disabled"]
    with open("/dev/full", "w") as full:
        subprocess.run([sys.executable, str(ROOT / "train.py"), *words], stdout=full, stderr=subprocess.PIPE)
    (file,) = tmp_path.glob("runs/default/*/summary.json")
    assert json.loads(file.read_text())["status"] == "finished"


def test_the_soak_lost_nothing():
    from scripts.maintain.soak import KINDS, OUT

    report = json.loads(OUT.read_text())
    assert report["nothing_lost"] and report["total"] >= 100
    assert all(report["faults"][kind] >= 10 for kind in KINDS)
