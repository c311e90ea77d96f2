"""What goes wrong in a night of runs, caused for real: a second writer, a full disk, a folder that goes away."""

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dyt.rundir.lock import Held, Lock

from .helpers import ROOT, TINY_GPT, TINY_VIT, one_line, python, rows_of, train

SLOW_RUN = [*TINY_GPT, "norm=dyt", "trainer.max_steps=100000", "trainer.eval_batches=1", "logger.mode=disabled"]


def start(*words: str, out: str = "runs") -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), *words, f"out_root={out}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition, process: subprocess.Popen) -> None:
    """Waits for a condition as long as the process lives."""
    while not condition():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


# -- one directory, one writer ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_writer_is_refused_with_who_holds_it_and_a_dead_one_frees_it(tmp_path):
    first = start(*SLOW_RUN)
    until(lambda: list(tmp_path.glob("runs/default/*/metrics.jsonl")), first)
    line = one_line(python("train.py", *SLOW_RUN))
    assert f"process {first.pid} on " in line and "writes there since" in line
    locks = list(tmp_path.glob("runs/default/.locks/*"))
    assert len(locks) == 1
    first.kill()
    first.wait()
    assert locks[0].exists()  # stale
    again = start(*SLOW_RUN)
    until(lambda: f'"pid": {again.pid}' in locks[0].read_text(), again)
    again.send_signal(signal.SIGTERM)
    assert again.wait() == 75
    assert not locks[0].exists()


def test_a_lock_leaves_nothing_behind(tmp_path):
    with Lock(tmp_path / "runs" / "a"):
        with Lock(tmp_path / "runs" / "b"):
            assert {p.name for p in (tmp_path / "runs" / ".locks").iterdir()} == {"a", "b"}
        assert [p.name for p in (tmp_path / "runs" / ".locks").iterdir()] == ["a"]
    assert not (tmp_path / "runs").exists()


def test_a_file_system_without_locks_is_said_in_a_line_and_nobody_is_waited_for(monkeypatch, tmp_path):
    """It read as a second writer once, for which a run of init_from waits without end. EACCES and EAGAIN are one."""
    import fcntl

    from dyt.data.prepare import Shards

    def refuses(number):
        def lock(*_):
            raise OSError(number, os.strerror(number))

        for name in ("lockf", "flock"):
            monkeypatch.setattr(fcntl, name, lock)

    refuses(errno.ENOLCK)
    with pytest.raises(ValueError, match="out_root=runs: .*its file system has no locks.*on a local disk") as refused:
        train(*TINY_GPT, "trainer.max_steps=1", "init_from=trainer.max_steps=1")
    assert not isinstance(refused.value, Held) and "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="--out shards: its file system has no locks .*on a local disk"):
        Shards(Path("shards"), {}, "uint16", 1)
    for number in (errno.EACCES, errno.EAGAIN):
        refuses(number)
        with pytest.raises(Held), Lock(tmp_path / "a"):
            pass


def test_refused_runs_write_nothing(tmp_path):
    line = one_line(python("train.py", *TINY_GPT, "init_from=nowhere", "trainer.max_steps=1"))
    assert "init_from=nowhere" in line and not (tmp_path / "runs").exists()


# -- a disk that is full, read-only, or goes away ----------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs the right to mount: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(path) -> None:
    """Writes until the disk is full, to the last byte."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space left"):
        while True:
            os.write(file, b"0" * 4096)
    os.close(file)


FULL = [*TINY_GPT, "norm=dyt", "trainer.eval_batches=1", "trainer.log_every=1", "trainer.save_every=5"]


@pytest.mark.parametrize("logger", ["logger.mode=disabled", "logger.mode=offline", "logger=tensorboard"])
def test_a_full_disk_costs_no_row_and_no_good_checkpoint(logger, small_disk, capsys, caplog):
    """The disk fills after the first checkpoint and is cleared later: the run ends as if nothing had been."""
    from dyt.training.loop import Trainer

    _, undisturbed = train(*FULL, "trainer.max_steps=30", out="undisturbed")
    filler, real, seen = small_disk / "filler", Trainer.train_step, []

    def step(self, batches, lr, stop):
        if self.step == 7:
            fill(filler)
        if self.step == 17:
            folder = next(small_disk.glob("runs/default/g*/checkpoints"))
            seen.extend(p.name for p in folder.iterdir())
            filler.unlink()
        return real(self, batches, lr, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        more = ["trainer.max_steps=30", "logger.mode=auto", logger]  # the logger's files are on that disk too
        summary, folder = train(*FULL, *more, out=str(small_disk / "runs"))
    assert summary["status"] == "finished"
    assert "step-000000005.pt" in seen and not any(name.endswith(".part") for name in seen)
    assert "No space left on device" in caplog.text and "can be written again; nothing was lost" in caplog.text
    assert rows_of(folder) == rows_of(undisturbed)


def test_a_disk_that_stays_full_ends_the_run_and_prints_its_rows(small_disk, capsys):
    from dyt.rundir import checkpoint
    from dyt.training.loop import Trainer

    real = Trainer.train_step

    def step(self, batches, lr, stop):
        if self.step == 7:
            fill(small_disk / "filler")
        return real(self, batches, lr, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        summary, folder = train(*FULL, "trainer.max_steps=30", "trainer.save_patience=0", out=str(small_disk / "runs"))
    assert summary["status"] == "failed" and "No space left on device" in summary["why"]
    printed = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith('{"step"')]
    steps = [row["step"] for row in rows_of(folder)] + [row["step"] for row in printed]
    assert steps == list(range(1, summary["step"] + 1))
    assert checkpoint.newest(folder / "checkpoints")[0]["step"] == 5
    assert not list(folder.rglob("*.part"))


def test_a_directory_that_vanishes_is_noticed(tmp_path, capsys):
    import shutil

    from dyt.training.loop import Trainer

    real = Trainer.train_step

    def step(self, batches, lr, stop):
        if self.step == 7:
            shutil.rmtree(next(tmp_path.glob("runs/default/g*")))
        return real(self, batches, lr, stop)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train_step", step)
        summary, _ = train(*FULL, "trainer.max_steps=12", "trainer.save_patience=0")
    assert summary["status"] == "failed" and "the file was removed" in summary["why"]
    err = capsys.readouterr().err
    assert '{"step": 8' in err and "summary.json could not be written" in err


def test_a_read_only_file_system_is_refused_at_the_start(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    line = one_line(python("train.py", *FULL, "trainer.max_steps=3", f"out_root={small_disk}/runs"))
    assert "cannot write there (Read-only file system); set another folder" in line


def test_a_disk_full_at_the_start_is_one_line(small_disk):
    for room in (0, 64 * 1024):  # not even a folder; folders and small files, then no more
        filler = small_disk / "filler"
        filler.unlink(missing_ok=True)
        fill(filler)
        os.truncate(filler, filler.stat().st_size - room)
        more = ["trainer.max_steps=3", "trainer.save_patience=0", f"out_root={small_disk}/runs{room}"]
        done = python("train.py", *FULL, *more)
        assert done.returncode == 1 and "No space left on device" in done.stderr and "Traceback" not in done.stderr
    filler.unlink()
    summary, folder = train(*FULL, *more[:2], out=str(small_disk / f"runs{room}"))
    assert summary["status"] == "finished" and [row["step"] for row in rows_of(folder)] == [1, 2, 3]


def test_a_divergence_on_a_full_disk_is_a_divergence(small_disk, capsys, monkeypatch):
    from dyt.training.loop import Diverged, Trainer

    real = Trainer.train_step

    def step(self, batches, lr, stop):
        if self.step == 7:
            fill(small_disk / "filler")
            raise Diverged(8, loss=float("nan"))
        return real(self, batches, lr, stop)

    monkeypatch.setattr(Trainer, "train_step", step)
    summary, _ = train(*FULL, "trainer.max_steps=30", "trainer.save_patience=0", out=str(small_disk / "runs"))
    assert summary["status"] == "diverged" and "failure.json could not be written" in capsys.readouterr().err


# -- checkpoints that are not what was saved -------------------------------------------------------------------------


def test_no_flipped_bit_and_no_cut_is_ever_loaded(tmp_path):
    """Any bit of the file or its manifest, any length: either what was saved comes back, or the checkpoint before."""
    from dyt.rundir import checkpoint

    def state(step: int) -> dict:
        return {"step": step, "model": {"w": torch.arange(50.0) + step}, "best": {"val/loss": [1.5, step]}}

    for step in (1, 2):
        checkpoint.save(tmp_path, "step", step, state(step), keep=2)
    dice, seen = random.Random(0), set()
    for file in (tmp_path / "step-000000002.pt", tmp_path / "step-000000002.json"):
        whole = file.read_bytes()
        for _ in range(60):
            data = bytearray(whole)
            if dice.random() < 0.3:
                data = data[: dice.randrange(len(data))]
            else:
                bit = dice.randrange(8 * len(data))
                data[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(data)
            found, _ = checkpoint.newest(tmp_path)
            want = state(found["step"])
            assert torch.equal(found["model"]["w"], want["model"]["w"]) and found["best"] == want["best"]
            seen.add((file.suffix, found["step"]))
        file.write_bytes(whole)
    assert {(".pt", 1), (".json", 1)} <= seen and (".pt", 2) not in seen


# -- divergence ------------------------------------------------------------------------------------------------------


def test_a_validation_loss_that_is_not_finite_is_of_its_own_step(monkeypatch):
    from dyt.training.loop import Trainer

    evaluate = Trainer.evaluate

    def spoilt(self, *about):
        return evaluate(self, *about) | ({"val/loss": math.inf} if self.step == 4 else {})

    monkeypatch.setattr(Trainer, "evaluate", spoilt)
    summary, folder = train(*TINY_GPT, "trainer.max_steps=6", "trainer.eval_every=2", "trainer.eval_batches=1")
    failure = json.loads((folder / "failure.json").read_text())
    assert (
        summary["status"] == "diverged" and failure["why"] == "validation loss inf in step 4" and failure["step"] == 4
    )


@pytest.mark.parametrize("norm", ["dyt", "layernorm"])
def test_a_diverged_run_says_what_it_saw(norm):
    words = [*TINY_GPT, f"norm={norm}", "optim.lr=1e6", "optim.warmup_steps=0", "optim.clip_grad=null"]
    summary, folder = train(*words, "trainer.max_steps=200", "trainer.eval_batches=1", "trainer.log_every=1")
    assert summary["status"] == "diverged"
    failure = json.loads((folder / "failure.json").read_text(), parse_constant=pytest.fail)
    assert failure["why"] == summary["why"] and failure["step"] == summary["step"] + 1
    assert [s["step"] for s in failure["steps"]][-1] == failure["step"]
    last = failure["steps"][-1]
    assert last["loss"] is None or last["grad_norm"] is None  # what was not finite
    layer = failure["layers"]["blocks.0.attn_norm"]
    assert layer["in_std"] > 0 and ("alpha" in layer) == ("saturated" in layer) == (norm == "dyt")


# -- memory, and data that cannot be read ------------------------------------------------------------------------------


NO_MORE = """
import resource, runpy, sys
from dyt.training.loop import Trainer

real = Trainer.train_step

def step(self, *rest):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), resource.RLIM_INFINITY))
    return real(self, *rest)

Trainer.train_step = step
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_out_of_memory_says_what_would_help():
    """A real refusal by the system: the address space may not grow any more. In a process that has none to reuse."""
    words = [*TINY_GPT, "norm=layernorm", "model.context=256", "data.batch_size=512", "trainer.max_steps=3"]
    done = python("-c", NO_MORE, "train.py", *words, "trainer.eval_batches=1", PYTHONPATH=str(ROOT))
    assert done.returncode == 1 and "out of memory" in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "trainer.micro_batch=256 " in done.stderr and "data.eval_batch_size below 128" in done.stderr
    assert "data.batch_size (now 512)" in done.stderr


@pytest.fixture
def pictures(tmp_path):
    """A folder of 40 pictures of two classes; number 7 of each is no picture."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        folder = tmp_path / "pictures" / "train" / label
        folder.mkdir(parents=True)
        (tmp_path / "pictures" / "val" / label).mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(0, 255, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:02}.png")
            Image.fromarray(pixels).save(tmp_path / "pictures" / "val" / label / f"{i:02}.png")
        (folder / "07.png").write_bytes(b"no picture at all")
    return tmp_path / "pictures"


PICTURES = ["model=vit_nano", "model.dim=16", "model.depth=1", "model.heads=2", "norm=dyt", "data=imagefolder"]
PICTURES += ["data.img_size=28", "data.patch_size=7", "data.batch_size=10", "trainer.max_steps=8", "trainer.threads=1"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_picture_is_named_by_file_and_row(pictures, workers, capsys):
    words = [*PICTURES, f"data.path={pictures}", f"data.workers={workers}"]
    summary, _ = train(*words)
    assert summary["status"] == "failed"
    assert "07.png) cannot be decoded" in summary["why"] and "train image in row " in summary["why"]
    assert "\n" not in summary["why"] and "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_or_left_out_and_counted(pictures, workers, caplog):
    words = [*PICTURES, f"data.path={pictures}", f"data.workers={workers}", "data.on_error=skip"]
    summary, _ = train(*words)
    assert summary["status"] == "finished"
    assert summary["skipped"] == 4  # two epochs of four steps, two pictures each
    if workers == 0:
        assert caplog.text.count("cannot be decoded") == 2


ONE_BY_ONE = [*PICTURES[:-3], "data.on_error=skip", "data.batch_size=1", "data.eval_batch_size=1", "trainer.threads=1"]
ONE_BY_ONE += ["trainer.log_every=1", "trainer.max_epochs=1", "logger.mode=disabled"]


def test_a_batch_without_a_readable_picture_is_passed_over(pictures):
    (pictures / "val" / "b" / "19.png").write_bytes(b"no picture at all")
    summary, folder = train(*ONE_BY_ONE, f"data.path={pictures}", "data.workers=0")
    assert summary["status"] == "finished" and summary["skipped"] == 2 and summary["step"] == 40
    rows = rows_of(folder)
    assert [row["train/loss"] for row in rows].count(None) == 2 and rows[-1]["val/loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])  # each process of the loader sees a part of them
def test_a_split_without_a_readable_picture_ends_the_run(pictures, workers):
    said = {"val": ["no val image is readable", "val: hold nothing to measure"]}
    said["train"] = ["no train image is readable", "no training sample could be read"]
    for split in ("val", "train"):
        for file in (pictures / split).glob("*/*.png"):
            file.write_bytes(b"no picture at all")
        summary, _ = train(*ONE_BY_ONE, f"data.path={pictures}", f"data.workers={workers}", out=split)
        assert summary["status"] == "failed" and said[split][workers > 0] in summary["why"]


def test_skipping_and_mixup_are_refused_together(pictures):
    line = one_line(python("train.py", *PICTURES, f"data.path={pictures}", "data.on_error=skip", "data.mixup=0.8"))
    assert "mixup and cutmix need whole batches" in line


def loader_of(pid: int) -> int | None:
    """A child process of `pid` that loads data."""
    children = open(f"/proc/{pid}/task/{pid}/children").read().split()
    for child in children:
        if b"train.py" in open(f"/proc/{child}/cmdline", "rb").read():  # forked, so it has its parent's command line
            return int(child)
    return None


@pytest.mark.parametrize(
    "number, says",
    [
        (signal.SIGKILL, "a data loader process ended"),
        pytest.param(signal.SIGSTOP, "no data for 3 s", marks=pytest.mark.slow),
    ],
)
def test_a_loader_that_dies_or_hangs_ends_the_run_with_one_line(number, says, tmp_path):
    words = [
        *TINY_VIT,
        "norm=dyt",
        "trainer.max_steps=100000",
        "data.workers=1",
        "data.timeout=3",
        "logger.mode=disabled",
    ]
    process = start(*words)
    until(lambda: list(tmp_path.glob("runs/default/*/metrics.jsonl")) and loader_of(process.pid), process)
    child = loader_of(process.pid)
    os.kill(child, number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1 and says in err
    if number == signal.SIGKILL:  # torch complains while it tidies up after a loader that hung
        assert "Traceback" not in err
    summary = json.loads(next(tmp_path.glob("runs/default/*/summary.json")).read_text())
    assert summary["status"] == "failed" and says in summary["why"]


def test_a_truncated_token_cache_is_made_anew_and_a_truncated_table_refused(tmp_path):
    import datasets

    words = [*TINY_GPT, "norm=dyt", "trainer.max_steps=3", "trainer.eval_batches=1", f"data.cache_dir={tmp_path / 'c'}"]
    _, first = train(*words)
    for file in (tmp_path / "c" / "tokens").glob("*/train.bin"):
        file.write_bytes(file.read_bytes()[:1000])
    _, second = train(*words, out="again")
    assert rows_of(first) == rows_of(second)
    table = tmp_path / "t.parquet"
    datasets.Dataset.from_dict({"text": ["some words here"] * 1000}).to_parquet(table)
    table.write_bytes(table.read_bytes()[:-200])
    line = one_line(python("train.py", *TINY_GPT, "data=hf_text", f"data.path={table}", "trainer.max_steps=1"))
    assert f"data.path={table}: unreadable as parquet" in line


@pytest.mark.slow
def test_a_document_without_text_is_named_or_left_out_and_counted(tmp_path, caplog):
    import datasets

    table = tmp_path / "t.parquet"
    rows = ["some words here"] * 700 + ["", None] + ["and more"] * 700
    datasets.Dataset.from_dict({"text": rows}).to_parquet(table)
    words = [*TINY_GPT, "data=hf_text", f"data.path={table}", "trainer.max_steps=1", "trainer.eval_batches=1"]
    line = one_line(python("train.py", *words))
    assert "row 701 of train (t.parquet) has no text; data.on_error=skip" in line
    summary, _ = train(*words, "data.on_error=skip")
    assert summary["status"] == "finished"
    assert "train: 1 rows without text left out, 1 empty ones add no token" in caplog.text
    assert "has no text" in one_line(python("train.py", *words))  # what skip made is not taken for it


# -- signals, kills, and going on --------------------------------------------------------------------------------------


def test_a_second_signal_leaves_at_once(tmp_path):
    """The first finds the run in a step that does not end; the checkpoint before stays, and the run goes on from it."""
    driver = tmp_path / "driver.py"
    driver.write_text(f"""
import runpy, sys, time
sys.path.insert(0, {str(ROOT)!r})
from dyt.training.loop import Trainer
real = Trainer.train_step
def step(self, batches, lr, stop):
    while self.step == 7:
        open("asked" if stop.asked else "in_step", "w").close()
        time.sleep(0.05)
    return real(self, batches, lr, stop)
Trainer.train_step = step
sys.argv[0] = {str(ROOT / "train.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
""")
    process = subprocess.Popen([sys.executable, str(driver), *SLOW_RUN, "trainer.save_every=5"], text=True)
    until(lambda: (tmp_path / "in_step").exists(), process)
    process.send_signal(signal.SIGTERM)
    until(lambda: (tmp_path / "asked").exists(), process)  # it still waits in its step
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    (folder,) = tmp_path.glob("runs/default/g*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "interrupted" and "second signal" in summary["why"]
    from dyt.rundir import checkpoint

    assert checkpoint.newest(folder / "checkpoints")[0]["step"] == 5


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_under_slurm_an_interrupted_job_is_requeued_but_not_after_ctrl_c(number, tmp_path):
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho $@ > {tmp_path}/asked\n")
    tool.chmod(0o755)
    more = {"SLURM_JOB_ID": "4711", "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    command = [sys.executable, str(ROOT / "train.py"), *SLOW_RUN]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **more})
    until(lambda: list(tmp_path.glob("runs/default/*/metrics.jsonl")), process)
    process.send_signal(number)
    _, err = process.communicate()
    again = number == signal.SIGUSR1
    assert process.returncode == 75 and ("SLURM job 4711 requeued" in err) == again
    assert not again or (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert (tmp_path / "asked").exists() == again


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT], [signal.SIGUSR1, signal.SIGINT]])
def test_a_person_at_ctrl_c_wants_no_second_start(numbers, monkeypatch):
    from dyt.rundir import requeue
    from dyt.training.schedule import Stop

    asked = []
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    done = SimpleNamespace(returncode=0)
    monkeypatch.setattr(requeue.subprocess, "run", lambda *words, **_: asked.append(words) or done)
    requeue.seen.clear()
    with Stop() as stop:
        for number in numbers:
            os.kill(os.getpid(), number)
    requeue.requeue()
    requeue.seen.clear()
    assert stop.asked and len(asked) == (numbers == [signal.SIGTERM])


@pytest.mark.slow
def test_weights_are_exported_with_a_card_and_come_back(tmp_path):
    words = [*TINY_GPT, "norm=dyt", "trainer.max_steps=4", "trainer.eval_batches=1"]
    summary, folder = train(*words)
    done = python(str(ROOT / "scripts/export.py"), f"run={folder}", "ckpt=last", "out=exported")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "exported" / "README.md").read_text()
    assert f"{summary['final']['val/loss']:.4f}" in card and summary["config_hash"] in card
    more = [*TINY_GPT, "norm=dyt", "init_from=exported/model.safetensors", "optim.lr=0", "optim.min_lr=0"]
    again, _ = train(*more, "trainer.max_steps=1", "trainer.eval_batches=1", out="again")
    assert again["final"]["val/loss"] == pytest.approx(summary["final"]["val/loss"], abs=1e-6)
    for bad, says in (
        (["run=nowhere"], "run=nowhere: not a run directory"),
        (["ckpt=best"], "run=<run directory> is missing"),
        ([f"run={folder}", "ckpt=x"], "choose from best, last"),
    ):
        assert says in one_line(python(str(ROOT / "scripts/export.py"), *bad))


def test_weights_whose_manifest_could_not_be_written_are_removed(tmp_path, monkeypatch):
    from dyt.rundir import checkpoint

    state = {"step": 1, "model": {"w": torch.arange(5.0)}}
    write = checkpoint.write_json

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, "step", 1, state, keep=2)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(checkpoint, "write_json", write)
    checkpoint.save(tmp_path, "step", 2, state, keep=2)
    (tmp_path / "step-000000003.pt").write_bytes(b"of a process that was killed here")
    checkpoint.remove_unfinished(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["step-000000002.json", "step-000000002.pt"]
