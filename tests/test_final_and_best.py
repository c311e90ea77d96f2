"""The last and the best value of a metric, from the loop to a study's table and W&B, are never each other."""

import json
from types import SimpleNamespace

import pytest

from dyt.studies.running.rows import row_of
from dyt.studies.running.study import Study
from dyt.tasks.classification import Classification
from dyt.tasks.language import Language
from dyt.tracking.wandb import short_summary
from dyt.training.loop import Trainer

SUMMARY = {
    "status": "finished",
    "why": None,
    "step": 8,
    "max_steps": 8,
    "final": {"train/loss": 1.25, "val/loss": 2.0},
    "best": {"train/loss": {"value": 1.0, "step": 7}, "val/loss": {"value": 1.5, "step": 4}},
    "config_hash": "0123456789",
    "parameters": 77,
    "tokens": 800,
    "wall_s": 3.5,
    "peak_memory_mib": 9.0,
    "data_sha256": "d" * 64,
    "provenance": {
        "hardware": "a machine",
        "threads": 1,
        "versions": {"torch": "2"},
        "git_commit": "c" * 40,
        "git_dirty": False,
    },
}


@pytest.mark.parametrize(
    "task, key, values, improved, best",
    [
        (Classification, "val/top1", [0.3, 0.5, 0.4], [True, True, False], [0.5, 2]),
        (Classification, "val/top1", [0.5, 0.5, 0.5], [True, False, False], [0.5, 1]),  # the first of equal ones
        (Classification, "val/loss", [2.0, 1.5, 1.8], [False, False, False], [1.5, 2]),  # picks no checkpoint there
        (Language, "val/loss", [2.0, 1.5, 1.8], [True, True, False], [1.5, 2]),
        (Language, "val/top1", [0.3, 0.5, 0.4], [False, False, False], [0.5, 2]),
    ],
)
def test_the_loop_notes_the_best_with_its_step_and_the_last(task, key, values, improved, best):
    loop = SimpleNamespace(task=task, best={}, final={}, step=0)
    found = []
    for loop.step, value in enumerate(values, start=1):
        found.append(Trainer.note(loop, {key: value, "lr": 9.0, "probe/blocks.0/alpha": 9.0}))
    assert found == improved and loop.best == {key: best} and loop.final == {key: values[-1]}


def test_a_value_that_is_not_finite_is_the_last_and_never_the_best():
    loop = SimpleNamespace(task=Language, best={"val/loss": [1.5, 2]}, final={}, step=3)
    for value in (float("nan"), float("-inf")):
        assert Trainer.note(loop, {"val/loss": value}) is False
        assert loop.best == {"val/loss": [1.5, 2]} and loop.final == {"val/loss": None}


def test_a_row_of_a_table_has_final_and_best_of_the_studys_metric(tmp_path):
    study = Study("gpt_norms")
    assert study.metric == "val/loss"
    run = study.runs("smoke")[0]
    folder = tmp_path / "gpt_nano" / "a_run"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    row = row_of(run, study, "0123456789", folder)
    assert {key: row[key] for key in ("final", "best", "best_step", "train_loss", "step", "samples")} == {
        "final": 2.0,
        "best": 1.5,
        "best_step": 4,
        "train_loss": 1.25,
        "step": 8,
        "samples": 800,
    }
    assert row_of(run, study, "another", folder) is None


def test_wandb_shows_final_and_best_under_their_names():
    assert short_summary(SUMMARY) == {
        "final/train/loss": 1.25,
        "final/val/loss": 2.0,
        "best/train/loss": 1.0,
        "best/val/loss": 1.5,
        "status": "finished",
    }
