"""metrics.jsonl is the truth and W&B a view: what each holds, and that W&B cannot hurt a run."""

import json
import sys

import pytest

from dyt.manifest import read_json
from dyt.tracking import Metrics, read_metrics, wandb_mode

from .helpers import TINY_GPT, python, rows_of, train

SHORT = ["trainer.max_steps=6", "trainer.eval_every=3", "trainer.eval_batches=1", "trainer.log_every=2"]


def test_metrics_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = Metrics(path, 0)
    metrics.log({"step": 1, "train/loss": 2.0})
    metrics.log({"step": 2, "train/loss": float("nan")})
    metrics.log({"step": 3, "train/loss": 1.0})
    metrics.close()
    path.open("a").write('{"step": 4, "trai')
    assert [r["train/loss"] for r in read_metrics(path)] == [2.0, None, 1.0]  # JSON has no NaN; a torn line is left out
    Metrics(path, 2).close()  # goes on after step 2: later rows come anew
    assert [r["step"] for r in read_metrics(path)] == [1, 2]
    assert read_metrics(tmp_path / "none") == []


@pytest.mark.parametrize(
    "mode, environment, netrc, want",
    [
        ("auto", {}, "", "offline"),
        ("auto", {"WANDB_API_KEY": "k"}, "", "online"),
        ("auto", {}, "machine api.wandb.ai login user password k", "online"),
        ("auto", {"WANDB_BASE_URL": "https://w.example:8080"}, "machine api.wandb.ai login user password k", "offline"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "", "disabled"),
        ("offline", {"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "", "offline"),
        ("disabled", {"WANDB_API_KEY": "k"}, "", "disabled"),
    ],
)
def test_mode(mode, environment, netrc, want, monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode(mode) == want


def test_offline_files_hold_our_rows_and_config():
    """Read back with W&B's own reader."""
    summary, folder = train(*TINY_GPT, *SHORT, "logger.mode=offline", "tag=a_study")
    (offline,) = (folder / "wandb").glob("offline-run-*")
    done = python("-m", "wandb", "leet", "inspect", "--json", str(offline))
    assert done.returncode == 0, done.stderr
    text = done.stdout
    records = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    kinds = {kind for record in records for kind in record}
    assert records and kinds, text[:500]
    for row in rows_of(folder):
        assert str(row["step"]) in text
    for word in ("train/loss", "val/loss", summary["config_hash"], "optim.lr", "a_study", "gpt_nano", "dyt", "stdlib"):
        assert word in text, word


def test_a_resumed_run_keeps_its_wandb_id(monkeypatch):
    from .test_trainer import stop_at

    back = stop_at(monkeypatch, 4)
    _, folder = train(*TINY_GPT, *SHORT, "logger.mode=offline")
    back()
    name = read_json(folder / "run.json")["wandb_id"]
    train(*TINY_GPT, *SHORT, "logger.mode=offline")
    assert read_json(folder / "run.json")["wandb_id"] == name
    runs = list((folder / "wandb").glob(f"offline-run-*/run-{name}.wandb"))
    assert len(runs) == 2  # two files, one run: wandb sync joins them by id


def test_no_wandb_package_is_one_warning(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    summary, folder = train(*TINY_GPT, *SHORT, "logger.mode=offline")
    assert summary["status"] == "finished" and len(rows_of(folder)) == 4
    assert sum("W&B could not start" in r.message for r in caplog.records) == 1


def test_wandb_failing_in_the_middle_is_one_warning(monkeypatch, caplog):
    import wandb

    init = wandb.init

    def breaks(*args, **more):
        run = init(*args, **more)
        log = run.log

        def fails(row):
            if row["step"] > 2:
                raise OSError("no space left on device")
            log(row)

        run.log = fails
        return run

    monkeypatch.setattr(wandb, "init", breaks)
    summary, folder = train(*TINY_GPT, *SHORT, "logger.mode=offline")
    assert summary["status"] == "finished" and [r["step"] for r in rows_of(folder)] == [2, 3, 4, 6]
    assert sum("W&B stopped working" in r.message for r in caplog.records) == 1


def test_an_unreachable_server_never_stops_a_run(monkeypatch, caplog):
    """A key, and a server that refuses: on with the run, offline, after one warning."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: nothing listens
    monkeypatch.delenv("WANDB_MODE")
    summary, folder = train(*TINY_GPT, *SHORT)
    assert summary["status"] == "finished" and len(rows_of(folder)) == 4
    assert sum("W&B could not start online" in r.message for r in caplog.records) == 1
    assert list((folder / "wandb").glob("offline-run-*"))
