"""metrics.jsonl is the truth and W&B a view: what each holds, and that W&B cannot hurt a run."""

import json
import shutil
import sys
import time

import pytest
import torch
from PIL import Image

from dyt.rundir import checkpoint
from dyt.rundir.files import read_json
from dyt.tracking.metrics import Metrics, read_metrics
from dyt.tracking.wandb import api_key, server, wandb_mode

from .helpers import ROOT, TINY_GPT, TINY_MAE, one_line, python, rows_of, train
from .wandb_server import Server

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
        ("auto", {}, "machine api.forge.coreweave.com login user password k", "online"),
        ("auto", {"WANDB_BASE_URL": "https://w.example:8080"}, "machine api.wandb.ai login user password k", "offline"),
        ("auto", {"WANDB_API_KEY": "k", "WANDB_MODE": "disabled"}, "", "disabled"),
        ("offline", {"WANDB_API_KEY": "k", "WANDB_MODE": "online"}, "", "offline"),
        ("disabled", {"WANDB_API_KEY": "k"}, "", "disabled"),
    ],
)
def test_mode(mode, environment, netrc, want, monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / ".netrc").write_text(netrc)
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert wandb_mode(mode) == want


def test_a_key_for_an_own_server_is_found_where_wandb_login_puts_it(monkeypatch, tmp_path):
    """As W&B itself finds it: the server in its settings, the key in the file that NETRC names."""
    from wandb.sdk.lib.wbauth import read_netrc_auth

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "keys"))
    (tmp_path / "keys").write_text(f"machine w.example:8080 login user password {'k' * 40}")
    assert wandb_mode("auto") == "offline" and server() == "https://api.wandb.ai"
    (tmp_path / ".config/wandb").mkdir(parents=True)
    (tmp_path / ".config/wandb/settings").write_text("[default]\nbase_url = http://w.example:8080\n")
    assert wandb_mode("auto") == "online" and server() == "http://w.example:8080"
    assert api_key() == read_netrc_auth(host=server()) == "k" * 40
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "nothing"))
    assert wandb_mode("auto") == "offline"


def test_what_is_written_offline_is_not_called_sent_and_what_was_moved_aside_is_left_out(tmp_path):
    _, folder = train(*TINY_GPT, *SHORT)
    aside = folder.with_name(folder.name + ".replaced-1")
    shutil.copytree(folder, aside)
    done = python(SYNC, str(folder), str(aside), WANDB_MODE="offline")
    assert done.returncode == 0 and f"{aside}: left out, it was moved aside" in done.stdout
    assert f"{folder}: written, to be sent by: wandb sync {folder}/wandb/offline-run-*" in done.stdout
    assert ": sent" not in done.stdout and list(folder.glob("wandb/offline-run-*")) and not (aside / "wandb").exists()


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
    sent = [json.dumps(record) for record in records if "history" in record]
    assert len(sent) == len(rows_of(folder))
    for row, record in zip(rows_of(folder), sent, strict=True):
        for key in {"step", "train/loss", "val/loss"} & row.keys():
            assert str(row[key]) in record, (key, record)
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

        def fails(row, step):
            if step > 2:
                raise OSError("no space left on device")
            log(row, step=step)

        run.log = fails
        return run

    monkeypatch.setattr(wandb, "init", breaks)
    summary, folder = train(*TINY_GPT, *SHORT, "logger.mode=offline")
    assert summary["status"] == "finished" and [r["step"] for r in rows_of(folder)] == [2, 3, 4, 6]
    assert sum("W&B stopped working" in r.message for r in caplog.records) == 1


@pytest.mark.slow
def test_an_unreachable_server_never_stops_a_run(monkeypatch, caplog):
    """A key, and nobody there: on with the run, after one warning."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: nothing listens
    monkeypatch.delenv("WANDB_MODE")
    summary, folder = train(*TINY_GPT, *SHORT)
    assert summary["status"] == "finished" and len(rows_of(folder)) == 4
    assert sum("W&B could not start online" in r.message for r in caplog.records) == 1


# -- a server, on loopback ---------------------------------------------------------------------------------------------

SYNC = str(ROOT / "scripts/wandb_sync.py")


def online(server: Server) -> dict:
    return {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url, "WANDB_MODE": "online"}


def held(server: Server, folder) -> list[dict]:
    """The rows that the server has of a run, in order, without what W&B adds and what only W&B gets."""
    kept = server.history.get(read_json(folder / "run.json")["wandb_id"], {})
    assert sorted(kept) == list(range(len(kept)))
    extra = ("_", "alpha/", "sample")
    return [{k: v for k, v in kept[i].items() if not k.startswith(extra)} for i in sorted(kept)]


def test_a_server_gets_the_rows_the_summary_and_a_readable_name(tmp_path):
    with Server() as server:
        done = python("train.py", *TINY_GPT, *SHORT, "norm=dyt", "tag=a_study", **online(server))
        assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
        (folder,) = tmp_path.glob("runs/default/gpt*")
        assert held(server, folder) == rows_of(folder, timing=True)
        run = server.runs[read_json(folder / "run.json")["wandb_id"]]
        name = run["displayName"]
        assert name == "DyT 0.5/1, lr 1e-3, gpt_nano, stdlib, seed 0" and run["notes"] == folder.name
        assert run["groupName"].startswith(f"a_study-{name.removesuffix(', seed 0')} (") and run["exitcode"] == 0
        best = read_json(folder / "summary.json")["best"]["val/loss"]["value"]
        assert run["summary"]["best/val/loss"] == best


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault, says", [({"hang": "all"}, "could not start online"), ({"hang": "rows"}, "W&B stopped working")]
)
def test_a_hanging_server_costs_at_most_30_seconds_and_no_row(fault, says, tmp_path):
    words = ["train.py", *TINY_GPT, *SHORT, "norm=dyt"]
    began = time.monotonic()
    assert python(*words, "out_root=offline", "logger.mode=offline").returncode == 0
    usual = time.monotonic() - began
    with Server(**fault) as server:
        began = time.monotonic()
        done = python(*words, **online(server))
        assert time.monotonic() - began - usual < 30
    assert done.returncode == 0 and says in done.stderr and "Traceback" not in done.stderr
    (folder,) = tmp_path.glob("runs/default/gpt*")
    (undisturbed,) = tmp_path.glob("offline/default/gpt*")
    assert rows_of(folder) == rows_of(undisturbed)
    assert f"python scripts/wandb_sync.py {folder.relative_to(tmp_path)}" in done.stderr


@pytest.mark.slow
def test_a_wrong_key_is_one_warning_and_the_rows_can_be_sent_later_once(tmp_path):
    with Server(refuse=401) as server:
        done = python("train.py", *TINY_GPT, *SHORT, "norm=dyt", **online(server))
    assert done.returncode == 0 and done.stderr.count("could not start online") == 1
    (folder,) = tmp_path.glob("runs/default/gpt*")
    with Server(refuse=401) as server:
        done = python(SYNC, str(folder), **online(server))
        assert done.returncode == 1 and f"{folder}: not sent" in done.stderr and "Traceback" not in done.stderr
    with Server() as server:
        for _ in range(2):  # twice is one run
            done = python(SYNC, **online(server))
            assert done.returncode == 0 and "sent, 4 rows" in done.stdout, done.stderr
            assert "WARNING" not in done.stderr and held(server, folder) == rows_of(folder, timing=True)
        assert len(server.runs) == 1


@pytest.mark.slow
def test_a_run_cut_off_leaves_no_gap_and_nothing_twice(tmp_path):
    """The server had rows 1 and 2 when the run was cut off in step 5, and it goes on from its checkpoint of step 3."""
    words = ["train.py", *TINY_GPT, "norm=dyt", "trainer.max_steps=6", "trainer.log_every=1", "trainer.eval_batches=1"]
    words += ["trainer.save_every=3", "trainer.keep=1"]
    with Server() as server:
        assert python(*words, **online(server)).returncode == 0
        (folder,) = tmp_path.glob("runs/default/gpt*")
        (folder / "summary.json").unlink()
        kept = server.history[read_json(folder / "run.json")["wandb_id"]]
        for line in (2, 3, 4, 5):
            del kept[line]
        state = torch.load(folder / "checkpoints" / "step-000000006.pt")
        assert state["step"] == 6
        checkpoint.save(folder / "checkpoints", "step", 3, state | {"step": 3}, keep=2)
        checkpoint.remove(folder / "checkpoints" / "step-000000006.json")
        done = python(*words, **online(server))
        assert done.returncode == 0 and "resumed at step 3" in done.stdout
        assert [row["step"] for row in held(server, folder)] == [1, 2, 3, 4, 5, 6]
        assert held(server, folder) == rows_of(folder, timing=True)


def test_sending_refuses_what_cannot_be_sent(tmp_path):
    _, folder = train(*TINY_GPT, *SHORT)
    assert "no run there" in one_line(python(SYNC, "nowhere"))
    assert "W&B has no key" in one_line(python(SYNC, str(folder), WANDB_MODE="", HOME=str(tmp_path)))
    (folder / "metrics.jsonl").write_text("")
    done = python(SYNC, str(folder), WANDB_MODE="offline")
    assert done.returncode == 1 and "not sent (metrics.jsonl has no rows)" in done.stderr


def test_alpha_and_a_text_are_in_what_wandb_gets():
    summary, folder = train(*TINY_GPT, *SHORT, "norm=dyt", "logger.mode=offline")
    (offline,) = (folder / "wandb").glob("offline-run-*")
    text = python("-m", "wandb", "leet", "inspect", "--json", str(offline)).stdout
    assert "alpha/blocks.0.attn_norm" in text and "sample" in text
    (file,) = offline.glob("files/media/html/sample*.html")
    assert file.read_text().startswith("<pre>") and len(file.read_text()) > 100
    assert not any(key.startswith("alpha/") for row in rows_of(folder) for key in row)  # W&B's alone


def test_wandb_and_tensorboard_get_the_picture_that_a_task_leaves():
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    short = [*TINY_MAE, "trainer.max_steps=2", "trainer.eval_batches=1", "norm=dyt"]
    _, folder = train(*short, "logger.mode=offline")
    (file,) = folder.glob("wandb/offline-run-*/files/media/images/samples*.png")
    assert file.read_bytes() == (folder / "samples.png").read_bytes()
    _, folder = train(*short, "logger=tensorboard", "logger.mode=auto", out="board")
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    (image,) = events.Images("samples")
    size = Image.open(folder / "samples.png").size
    assert (image.width, image.height) == size


def test_tensorboard_gets_the_same_names_and_steps(monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from .test_trainer import stop_at

    words = [*TINY_GPT, *SHORT, "norm=dyt", "logger=tensorboard"]
    back = stop_at(monkeypatch, 4)
    train(*words)
    back()
    summary, folder = train(*words)  # goes on
    assert summary["status"] == "finished" and not (folder / "wandb").exists()
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    rows = rows_of(folder, timing=True)
    assert set(events.Tags()["scalars"]) == {key for row in rows for key in row} - {"step"}
    for key in ("train/loss", "val/loss", "lr"):
        want = [(row["step"], row[key]) for row in rows if key in row]
        seen = [(e.step, e.value) for e in events.Scalars(key)]
        assert [s for s, _ in seen] == [s for s, _ in want]
        assert [v for _, v in seen] == pytest.approx([v for _, v in want], rel=1e-6)
    texts = {"variant/text_summary", "config/text_summary", "sample/text_summary"}
    assert texts | {"custom_scalars__config__"} <= set(events.Tags()["tensors"])
    (named,) = events.Tensors("variant/text_summary")
    assert named.tensor_proto.string_val[0].decode().startswith("DyT 0.5/1, lr 1e-3, seed 0")


@pytest.mark.parametrize("starts", [(0, 3), (0, 0, 3)])
def test_a_run_that_was_killed_has_each_step_once_in_both_places(starts, tmp_path):
    """`starts`: where each process begins, in what the one before it had on the disk; step 0 is of a conversion."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from dyt.config import compose
    from dyt.tracking.tensorboard import TensorBoard

    config = compose.load(["logger=tensorboard", "logger.mode=auto"])
    (tmp_path / "0").mkdir()
    for number, start in enumerate(starts):
        folder = tmp_path / str(number)
        metrics = Metrics(folder / "metrics.jsonl", start)
        board = TensorBoard(folder, config, metrics.rows, start)
        for step in range(start + 1 if start else 0, 7):
            row = {"step": step, "train/loss": step / 8, "time_s": float(number)}
            metrics.log(row), board.log(row)
        shutil.copytree(folder, tmp_path / str(number + 1))  # nothing was closed: this is what a kill leaves
        metrics.close(), board.finish({}, False)
    rows = rows_of(tmp_path / str(len(starts)), timing=True)
    last = float(len(starts) - 1)
    assert [(row["step"], row["time_s"]) for row in rows] == [(s, last - (s <= 3)) for s in range(7)]
    seen = EventAccumulator(str(tmp_path / str(len(starts)) / "tensorboard")).Reload()
    for key in ("train/loss", "time_s"):
        assert [(e.step, e.value) for e in seen.Scalars(key)] == [(row["step"], row[key]) for row in rows]
    assert len(seen.Tensors("variant/text_summary")) == 1


def test_without_the_package_tensorboard_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="type pip install tensorboard"):
        train(*TINY_GPT, *SHORT, "logger=tensorboard", "logger.mode=auto")


@pytest.mark.slow
def test_the_sweep_file_makes_commands_that_compose_and_its_run_is_the_agents(monkeypatch, tmp_path):
    import yaml

    from dyt.config import compose

    sweep = yaml.safe_load((ROOT / "configs/wandb_sweep.yaml").read_text())
    assert sweep["command"][-1] == "${args_no_hyphens}" and sweep["program"] == "train.py"
    words = [
        f"{key}={about.get('value', about.get('values', [None])[0])}" for key, about in sweep["parameters"].items()
    ]
    for norm in sweep["parameters"]["norm"]["values"]:
        assert compose.load([*words, f"norm={norm}"])["norm"]["name"] == norm
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    with Server() as server:
        done = python("train.py", *TINY_GPT, *SHORT, **online(server))
        assert done.returncode == 0 and set(server.runs) == {"fromagent"}


@pytest.mark.slow
def test_a_study_and_the_papers_numbers_are_runs_once(tmp_path):
    from dyt.report.wandb_studies import papers
    from dyt.studies.running.study import Study

    study = Study("gpt_norms")
    want = {paper["id"]: paper for paper in papers(study)}
    assert any(p["summary"]["final/val/loss"] == 2.97 and p["config"]["norm.name"] == "dyt" for p in want.values())
    assert all(0 < p["summary"]["final/val/top1"] < 1 for p in papers(Study("vit_norms")))
    with Server() as server:
        for _ in range(2):
            done = python(SYNC, "--study", "gpt_norms", **online(server))
            assert done.returncode == 0, done.stderr
        (own,) = set(server.runs) - set(want)
        assert own.startswith("study-gpt_norms-small-") and set(want) < set(server.runs)
        for id, paper in want.items():
            run = server.runs[id]
            assert run["summary"]["final/val/loss"] == paper["summary"]["final/val/loss"]
            assert "paper" in run["tags"] and run["displayName"] == paper["name"]
        (row,) = server.history[own].values()
        assert row["figure"]["_type"] == "image-file" and row["verdicts"]["_type"] == "html-file"


def test_reports_and_the_workspace_are_made_or_one_line_says_what_to_install(monkeypatch):
    from dyt.report.wandb_studies import report_of, workspace_of
    from dyt.studies.running.study import Study

    pytest.importorskip("wandb_workspaces")
    report = report_of(Study("gpt_norms"), "small", ROOT / "results", "dyt", "team")
    text = str(report)
    assert "val/loss" in text and "BarPlot" in text and "reproduce.py gpt_norms" in text
    assert "^alpha/" in str(workspace_of("dyt", "team"))
    assert "--report: give --entity" in one_line(python(SYNC, "--study", "gpt_norms", "--report"))
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ValueError, match="type pip install wandb-workspaces"):
        workspace_of("dyt", "team")
