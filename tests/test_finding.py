"""Finding things again: the words of train.py, copies that are not the original, directories of somebody else."""

import json
import shutil

import pytest
import torch

from dyt.config import compose, identity
from dyt.rundir.files import read_json, sha256_of, write_json

from .helpers import ROOT, TINY_GPT, one_line, python, train

SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "trainer.log_every=1", "logger.mode=disabled"]
EXPORT, REPORT, RUNS = (str(ROOT / f"scripts/{name}.py") for name in ("export", "report", "runs"))


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    import os

    home = tmp_path_factory.mktemp("home")
    before = os.getcwd()
    os.chdir(home)
    _, folder = train(*TINY_GPT, *SHORT, "norm=dyt", "optim.lr=2e-3", "tag=2024_01")
    os.chdir(before)
    return home, home / folder


@pytest.fixture
def run(finished_run, tmp_path):
    shutil.copytree(finished_run[0] / "runs", tmp_path / "runs")
    return tmp_path / "runs" / finished_run[1].relative_to(finished_run[0] / "runs")


@pytest.mark.parametrize(
    "word, found",
    [
        ("norm=dyt", True),
        ("norm=layernorm", False),
        ("norm=dy", False),
        ("model=gpt_nano", True),
        ("data=stdlib", True),
        ("seed=0", True),
        ("seed=1", False),
        ("optim.lr=0.002", True),
        ("optim.lr=2e-3", True),
        ("optim.betas=[0.9,0.99]", True),
        ("trainer.max_steps=2", True),
        ("trainer.max_steps=20", False),
        ("tag=2024_01", True),
        ("init_from=null", True),
        ("-norm=dyt", False),
        ("finished", True),
    ],
)
def test_the_words_typed_for_train_find_the_run(finished_run, word, found):
    from dyt.report.collect import of_directory
    from scripts.runs import fits

    about, _ = of_directory(finished_run[1])
    assert fits(about, [word]) is found


def test_a_copied_or_renamed_run_is_not_the_original(run):
    words = [*TINY_GPT, *SHORT, "norm=dyt", "optim.lr=2e-3"]
    plan = identity.plan(compose.load(words), words)
    assert plan.dir.is_dir() and plan.dir.name == run.name
    for name in ("backup-" + run.name, "a-" + run.name, run.name.replace("gpt_nano", "gpt_nano-copy")):
        shutil.copytree(run, run.with_name(name))
    other = ["optim.lr=2e-3", "norm=dyt", *TINY_GPT, *SHORT, "model.bias=false"]  # the same settings, other words
    assert identity.plan(compose.load(other), other).dir == plan.dir
    shutil.rmtree(run)
    assert not identity.plan(compose.load(other), other).dir.exists()


def test_a_run_of_before_is_found_under_its_own_name(run):
    about = read_json(run / "run.json")
    del about["name"]
    write_json(run / "run.json", about)
    other = ["optim.lr=2e-3", "norm=dyt", *TINY_GPT, *SHORT, "model.bias=false"]
    shutil.copytree(run, run.with_name("backup-" + run.name))
    assert identity.plan(compose.load(other), other).dir.name == run.name


def test_the_page_shows_the_original_and_not_its_copy(run, tmp_path):
    from dyt.report.collect import collect

    shutil.copytree(run, run.with_name("zz-" + run.name))
    shutil.copytree(run, run.with_name("aa-" + run.name))
    found = collect(tmp_path / "none", [tmp_path / "runs"], [])
    assert [r["name"] for r in found["runs"]] == [run.name]


def damage(run, what):
    if what == "empty":
        shutil.rmtree(run)
        run.mkdir()
    elif what == "foreign":
        shutil.rmtree(run)
        run.mkdir()
        (run / "config.yaml").write_text("learning_rate: 1\n")
    elif what == "list":
        (run / "config.yaml").write_text("- 1\n")
    elif what == "bytes":
        (run / "config.yaml").write_bytes(b"\xff\xfe\0")
    elif what == "names":
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("  name: gpt_nano", "  name: [1]"))
    elif what == "checkpoint":
        for manifest in (run / "checkpoints").glob("*.json"):
            torch.save({"weights": [1, 2]}, manifest.with_suffix(".pt"))
            about = read_json(manifest)
            write_json(manifest, about | {"sha256": sha256_of(manifest.with_suffix(".pt"))})


@pytest.mark.parametrize("what", ["empty", "foreign", "list", "bytes", "names", "checkpoint"])
def test_a_damaged_or_foreign_directory_is_one_line(run, what, capsys):
    import eval as evaluation
    from scripts import export

    damage(run, what)
    assert evaluation.main([f"run={run}"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(said) == 1 and said[0].startswith("eval.py: run="), said
    with pytest.raises(ValueError, match="run=") as error:
        export.main([f"run={run}"])
    assert "\n" not in str(error.value)


def test_a_damaged_summary_does_not_become_a_traceback(run):
    (run / "summary.json").write_text(json.dumps({"parameters": "many", "best": 5, "final": [1]}))
    assert "its summary.json is damaged" in one_line(python(EXPORT, f"run={run}"))


def test_report_and_its_port(run, tmp_path):
    assert "--port 99999: give a number from 0" in one_line(python(REPORT, "--port", "99999"))
    shutil.rmtree(run)
    run.mkdir()
    assert "no run directory there" in one_line(python(REPORT, str(run)))
    (run / "run.json").write_text("{")
    (run / "config.yaml").write_text("x: 1")
    (run / "metrics.jsonl").write_text('{"step": 1, "train/loss": 1.0}\n')
    assert "no runs to show" in one_line(python(REPORT, str(run), "--out", str(tmp_path / "page")))
