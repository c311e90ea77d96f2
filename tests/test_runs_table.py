"""scripts/runs.py: what the terminal shows of runs."""

import signal
import subprocess
import sys

import pytest

from .helpers import ROOT, TINY_GPT, one_line, python, train

RUNS = str(ROOT / "scripts/runs.py")
SHORT = ["trainer.max_steps=20", "trainer.log_every=1", "trainer.eval_every=10", "trainer.eval_batches=1"]
SHORT += ["optim.lr=1e-2", "optim.warmup_steps=0"]


@pytest.fixture
def two():
    return [train(*TINY_GPT, *SHORT, f"norm={norm}") for norm in ("dyt", "layernorm")]


def test_the_table_has_status_progress_metrics_and_a_sparkline(two):
    lines = python(RUNS).stdout.splitlines()
    assert lines[0].split() == "status done norm model data seed train val best loss run".split()
    for summary, folder in two:
        (line,) = [x for x in lines if folder.name in x]
        cells = line.split()
        assert cells[:6] == ["finished", "100%", summary["norm"], "gpt_nano", "stdlib", "0"]
        assert cells[7] == f"{summary['final']['val/loss']:.4g}"
        assert cells[8] == f"{summary['best']['val/loss']['value']:.4g}"
        assert len(cells[9]) == 16 and cells[9][0] == "█" and cells[9][-1] in "▁▂"
    only = python(RUNS, "layernorm").stdout.splitlines()
    assert len(only) == 2 and "layernorm" in only[1]
    assert len(python(RUNS, "gpt", "-layernorm", "norm.alpha_init=0.50").stdout.splitlines()) == 2
    assert len(python(RUNS, "optim.lr=1e-2", "-hardtanh").stdout.splitlines()) == 3
    assert "none of 2 runs" in one_line(python(RUNS, "optim.lr=1e-3"))


def test_compare_shows_what_differs(two):
    done = python(RUNS, "--compare", *(str(folder) for _, folder in two))
    lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "dyt" in lines["norm.name"] and "layernorm" in lines["norm.name"] and "norm.alpha_init" in lines
    assert "optim.lr" not in lines and f"{two[0][0]['final']['val/loss']:.4g}" in lines["final val/loss"]


def test_broken_lines_and_odd_names(two, tmp_path):
    _, folder = two[0]
    (folder / "metrics.jsonl").open("a").write("{torn")
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text().replace("name: dyt", 'name: "\\e[2Jx"'))
    out = python(RUNS).stdout
    assert "1 broken lines of metrics.jsonl left out" in out and "\033" not in out and "?[2Jx" in out


def test_follow_shows_again_until_it_is_stopped(two):
    def heard():  # a shell's background job ignores Ctrl-C, and its children with it
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, RUNS, "--follow"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        heads = 0
        for line in process.stdout:
            heads += line.startswith("status")
            if heads == 2:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 0


def test_bad_input_gets_one_line(tmp_path):
    assert "no runs under runs; train one first" in one_line(python(RUNS))
    train(*TINY_GPT, "trainer.max_steps=2", "trainer.eval_batches=1")
    assert "none of 1 runs has xyz" in one_line(python(RUNS, "xyz"))
    assert "not a run directory with metrics" in one_line(python(RUNS, "--compare", ".", "."))
    assert one_line(python(RUNS, "--compare", ".", ".", "dyt")) == "runs.py: --compare A B takes no dyt; leave it out"
    assert (
        one_line(python(RUNS, "--compare", ".", ".", "--follow"))
        == "runs.py: --compare A B takes no --follow; leave it out"
    )
