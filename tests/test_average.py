"""The moving average of the weights is what is evaluated, kept as the best and measured by eval.py."""

import json

import pytest
import torch
from torch.nn import functional as F

from dyt.config.compose import load
from dyt.run import assemble
from dyt.training.distributed import join

from .helpers import TINY_GPT, rows_of, train

WORDS = "".join(f"line {i} of a small text with some words in it\n" for i in range(60))
STILL = ["optim.lr=0", "optim.min_lr=0", "trainer.max_steps=1", "trainer.ema_decay=0.5"]


@pytest.fixture
def words(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    return [*TINY_GPT, "data=hf_text", f"data.path={tmp_path}/t.txt", "logger.mode=disabled", "optim.warmup_steps=0"]


def built(words):
    """(data, model) of a run's config at its first step."""
    data, model, *_ = assemble(load(words), join("cpu"), 0)
    return data, model


def states(folder, kind="step"):
    """step -> state of each checkpoint of a kind."""
    files = (folder / "checkpoints").glob(f"{kind}-*.pt")
    return {int(file.stem.partition("-")[2]): torch.load(file, weights_only=True) for file in sorted(files)}


def close(ours, theirs) -> bool:
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[k], theirs[k], rtol=1e-5, atol=1e-7) for k in ours)


def test_a_run_evaluates_and_keeps_the_average_of_its_weights(words, capsys):
    """e = 0.5 e + 0.5 w after each step, from the first weights on; w is read from the checkpoint of each step."""
    import eval as evaluation

    words = [*words, "trainer.ema_decay=0.5", "trainer.max_steps=3", "trainer.eval_every=1", "trainer.keep=3"]
    words += ["optim.lr=1e-2", "trainer.log_every=1"]
    _, folder = train(*words)
    found = states(folder)
    data, model = built(words)
    batches = list(data.eval_batches("val"))
    assert list(found) == [1, 2, 3]

    def loss_of(weights):
        model.load_state_dict(weights)
        with torch.no_grad():
            parts = [(model.eval()(x).flatten(0, 1), y.flatten()) for x, y in batches]
        total = sum(F.cross_entropy(logits.double(), y, reduction="sum").item() for logits, y in parts)
        return total / sum(len(y) for _, y in parts)

    average = {name: value.clone() for name, value in model.state_dict().items()}
    losses, rows = {}, rows_of(folder)
    for step, row in zip((1, 2, 3), rows, strict=True):
        average = {name: 0.5 * value + 0.5 * found[step]["model"][name] for name, value in average.items()}
        assert close(found[step]["ema"], average)
        losses[step] = loss_of(average)
        assert row["val/loss"] == pytest.approx(losses[step], rel=1e-5)
        assert abs(loss_of(found[step]["model"]) - losses[step]) > 1e-3  # the raw weights are worth something else
    best = min(losses, key=losses.get)
    kept = states(folder, "best")
    assert list(kept) == [best] and close(kept[best]["model"], found[best]["ema"])
    capsys.readouterr()
    assert evaluation.main([f"run={folder}", "ckpt=last"]) == 0
    assert json.loads(capsys.readouterr().out)["val/loss"] == pytest.approx(losses[3], rel=1e-5)


def test_the_average_starts_at_the_weights_that_init_from_gives(words):
    _, source = train(*words, "trainer.max_steps=2", "optim.lr=1e-2", out="a")
    theirs = states(source)[2]["model"]
    _, folder = train(*words, *STILL, f"init_from={source}", out="b")
    assert close(states(folder)[1]["ema"], theirs)
    assert not close(built(words)[1].state_dict(), theirs)  # the weights that the run would else begin with


def test_the_average_starts_at_the_weights_whose_norms_were_converted(words):
    base = "init_from=norm=layernorm trainer.max_steps=3 optim.lr=1e-2 optim.warmup_steps=0"
    _, folder = train(*words, *STILL, base, "norm=dyt", "convert=naive")
    state = states(folder)[1]
    assert close(state["ema"], state["model"])
    assert not close(built([*words, "norm=dyt"])[1].state_dict(), state["model"])
