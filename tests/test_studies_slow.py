"""Whole studies through the command line: all at smoke scale, killed ones, workers that die. `make test-slow`."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dyt.studies.running.rows import TIMING
from dyt.studies.running.study import names

from .helpers import ROOT

pytestmark = pytest.mark.slow
SCRIPT = str(ROOT / "scripts/reproduce.py")


def command(folder, *words: str) -> list[str]:
    return [
        sys.executable,
        SCRIPT,
        *words,
        "--scale",
        "smoke",
        "--results",
        str(folder / "results"),
        f"out_root={folder / 'runs'}",
        "logger.mode=disabled",
    ]


def values(folder, study: str) -> list[dict]:
    """The rows of a runs.csv without what the clock decides."""
    with open(folder / "results" / study / "smoke" / "runs.csv", newline="") as stream:
        return [{k: v for k, v in row.items() if k not in TIMING} for row in csv.DictReader(stream)]


def until(condition, process, what: str) -> None:
    """Waits for a condition as long as the process lives."""
    while not condition():
        assert process.poll() is None, f"ended before {what}"
        time.sleep(0.01)


@pytest.mark.timeout(900)
def test_all_studies_at_smoke_scale_in_ten_minutes(tmp_path):
    began = time.monotonic()
    done = subprocess.run(command(tmp_path, "--jobs", "2"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert time.monotonic() - began < 600
    for name in names():
        folder = tmp_path / "results" / name / "smoke"
        assert {"runs.csv", "curves.parquet", "table.md", "figure.png", "verdicts.json"} <= {
            p.name for p in folder.iterdir()
        }
        assert all(row["status"] in ("finished", "diverged") for row in values(tmp_path, name))
        # One seed proves nothing, at any scale.
        assert {v["verdict"] for v in json.loads((folder / "verdicts.json").read_text())} <= {"inconclusive", "not run"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(folder, "vit_norms", "--jobs", "1"), check=True, capture_output=True)
    return values(folder, "vit_norms")


def test_killed_in_the_middle_it_ends_with_the_same_rows(tmp_path, undisturbed):
    runs = tmp_path / "runs" / "default"

    def one_ended_and_one_under_way() -> bool:
        ended = list(runs.glob("*/summary.json"))
        return bool(ended) and len(list(runs.glob("*/metrics.jsonl"))) > len(ended)

    process = subprocess.Popen(command(tmp_path, "vit_norms", "--jobs", "2"), stdout=subprocess.DEVNULL)
    until(one_ended_and_one_under_way, process, "a run was under way")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = subprocess.run(command(tmp_path, "vit_norms", "--jobs", "2"), capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "5 to run" not in again.stdout
    assert values(tmp_path, "vit_norms") == undisturbed


def test_a_study_outlives_what_reads_it(tmp_path):
    """As in `reproduce.py ... | head -1`."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command(tmp_path, "gradient_depth"), stdout=write, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    rows = values(tmp_path, "gradient_depth")
    assert rows and all(row["status"] == "finished" for row in rows)


def test_a_killed_worker_harms_no_other_run(tmp_path, undisturbed):
    runs = tmp_path / "runs"

    def a_worker() -> int | None:
        logs = sorted((runs / ".workers").glob("worker-*.log"))
        busy = list((runs / "default").glob("*/metrics.jsonl"))
        return int(logs[0].stem.split("-")[1]) if logs and busy else None

    process = subprocess.Popen(command(tmp_path, "vit_norms", "--jobs", "1"), stdout=subprocess.PIPE, text=True)
    until(lambda: a_worker() is not None, process, "a run was under way")
    os.kill(a_worker(), signal.SIGKILL)
    out, _ = process.communicate()
    assert process.returncode == 1
    assert out.count("failed, its worker process ended by signal 9") == 1, out
    statuses = [row["status"] for row in values(tmp_path, "vit_norms")]
    assert sorted(statuses) == ["failed"] + ["finished"] * 4
    again = subprocess.run(command(tmp_path, "vit_norms", "--jobs", "1"), capture_output=True, text=True)
    assert again.returncode == 0 and "4 finished before, 1 to run" in again.stdout
    assert values(tmp_path, "vit_norms") == undisturbed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_asked_to_stop_it_saves_and_goes_on(number, tmp_path, undisturbed):
    runs = tmp_path / "runs" / "default"
    process = subprocess.Popen(
        command(tmp_path, "vit_norms", "--jobs", "2"),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # these tests may have been started by nohup
    )
    until(lambda: list(runs.glob("*/metrics.jsonl")), process, "a run was under way")
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 75, out
    assert "the same command goes on" in out
    again = subprocess.run(command(tmp_path, "vit_norms", "--jobs", "2"), capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert values(tmp_path, "vit_norms") == undisturbed
