"""Tasks: what is learned and what is counted, from logits whose loss and hits are known by hand."""

import contextlib
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dyt.config.compose import load
from dyt.config.identity import base_config
from dyt.data import open_data
from dyt.tasks import build_task
from dyt.tasks.classification import Classification
from dyt.tasks.language import Language
from dyt.training.distributed import World
from dyt.training.evaluation import evaluate

from .helpers import (
    TINY_DINO,
    TINY_DIT,
    TINY_DNABERT,
    TINY_DT,
    TINY_GPT,
    TINY_HYENA,
    TINY_MAE,
    TINY_VIT,
    TINY_WAV2VEC2,
    train,
)

UNMIXED = {"mixup": 0.0, "cutmix": 0.0}


def says(*rows):
    """A model whose logits are these, whatever it sees."""
    return lambda x: torch.tensor(rows, dtype=torch.float32)


# -- accuracy ----------------------------------------------------------------------------------------------------------


def test_a_target_of_rank_1_2_5_and_6_counts_once_for_top_1_and_three_times_for_top_5():
    row = [3.0, 6.0, 1.0, 5.0, 2.0, 4.0]  # classes by rank: 1, 3, 5, 0, 4, 2
    loss, top1, top5, count = Classification(UNMIXED, 6, 0.0).measure(
        says(row, row, row, row), torch.zeros(4, 1), torch.tensor([1, 3, 4, 2])
    )
    assert [top1, top5, count] == [1, 3, 4]
    each = math.log(sum(math.exp(z) for z in row))
    assert loss.item() == pytest.approx(4 * each - (6 + 5 + 2 + 1))


def test_with_fewer_than_five_classes_every_target_is_among_the_first_five():
    row = [0.0, 2.0, 1.0]
    sums = Classification(UNMIXED, 3, 0.0).measure(says(row, row, row), torch.zeros(3, 1), torch.arange(3))
    assert sums[1:].tolist() == [1, 3, 3]


def test_a_language_models_top_1_counts_tokens_whose_likeliest_is_right():
    rows = [[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]], [[1.0, 0.0, 2.0], [2.0, 1.0, 0.0]]  # (B, T, V); likeliest 0, 1, 2, 0
    loss, top1, count = Language(0.0).measure(says(*rows), torch.zeros(2, 2), torch.tensor([[0, 1], [2, 1]]))
    assert [top1, count] == [3, 4]
    assert loss.item() == pytest.approx(4 * math.log(1 + math.e + math.e**2) - (2 + 2 + 2 + 1))


def test_an_evaluation_is_of_the_split_that_was_asked_for(tmp_path):
    """Each split is of letters of its own, and the model gives each letter a chance of its own, whatever was read."""
    for name, text in (("train", "d" * 60), ("validation", "a" * 40), ("test", "bc" * 20)):
        (tmp_path / f"{name}.txt").write_text(text)
    words = [*TINY_GPT, "data=hf_text", f"data.path={tmp_path}", "data.eval_batch_size=2"]
    data = open_data(load(words)["data"], 16)

    class Letters(nn.Module):
        def forward(self, tokens):
            chances = torch.full((256,), 1e-9)
            chances[[ord(letter) for letter in "abc"]] = torch.tensor([0.5, 0.25, 0.125])
            return chances.log().expand(*tokens.shape, 256)

    def on(split):
        task, world = Language(0.0), World(torch.device("cpu"))
        return evaluate(Letters(), task, data, split, world, contextlib.nullcontext())

    # Of "bcbc..." every token but the first is foreseen: 20 c and 19 b. The chances sum to 0.875.
    of_test = (20 * math.log(8) + 19 * math.log(4)) / 39 + math.log(0.875)
    assert on("test") == {"test/loss": pytest.approx(of_test, rel=1e-5), "test/top1": 0.0}
    assert on("val") == {"val/loss": pytest.approx(math.log(2) + math.log(0.875), rel=1e-5), "val/top1": 1.0}


# -- label smoothing, mixup and cutmix ---------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [TINY_VIT, TINY_GPT], ids=["classification", "language"])
def test_smoothing_is_in_the_loss_of_training_and_not_in_that_of_the_evaluation(words):
    """Logits 2, 0, 0: the target's share is e^2 / (e^2 + 2), so its loss is 0.2395 and that of the others 2.2395.

    Smoothed by 0.1 a tenth of the weight is on all three: 0.9 x 0.2395 + 0.1 x (0.2395 + 2 x 2.2395) / 3 = 0.3729.
    """
    tokens = words is TINY_GPT
    task = build_task(load([*words, "trainer.label_smoothing=0.1"]), 3)
    plain = build_task(load(words), 3)
    model = says([[2.0, 0.0, 0.0]]) if tokens else says([2.0, 0.0, 0.0])
    inputs, targets = torch.zeros(1, 1), torch.zeros((1, 1) if tokens else (1,), dtype=torch.int64)
    assert task.loss(model, inputs, targets).item() == pytest.approx(0.372878, abs=1e-5)
    assert plain.loss(model, inputs, targets).item() == pytest.approx(0.239545, abs=1e-5)
    for each in (task, plain):
        assert each.measure(model, inputs, targets)[0].item() == pytest.approx(0.239545, abs=1e-5)


SMOOTHED, MIXED = "trainer.label_smoothing=0.5", ["data.mixup=0.8", "data.cutmix=1.0"]
UNREAD = [(w, SMOOTHED) for w in (TINY_HYENA, TINY_DNABERT, TINY_MAE, TINY_DINO, TINY_DIT, TINY_WAV2VEC2, TINY_DT)]
UNREAD += [(w, mixed) for w in (TINY_MAE, TINY_DINO) for mixed in MIXED]


@pytest.mark.parametrize("words, unread", UNREAD, ids=lambda w: w if isinstance(w, str) else w[0])
def test_what_a_task_does_not_read_is_refused_and_not_another_run(words, unread, tmp_path):
    key, name = unread.partition("=")[0], load(words)["model"]["task"]
    for dry in ("false", "true"):
        with pytest.raises(ValueError, match=f"{unread}: model.task={name} does not read it; type {key}=0"):
            train(*words, unread, "trainer.max_steps=1", f"trainer.dry_run={dry}")
    assert not list(tmp_path.rglob("runs/*/*"))


def test_a_run_that_mixes_starts_from_one_that_has_no_labels_to_mix():
    first = "init_from=model=mae_nano norm=dyt"
    config = load([*TINY_VIT, *MIXED, first])
    base, _ = base_config(config)
    assert base["data"] == config["data"] | UNMIXED and config["data"]["mixup"] == 0.8
    again, _ = base_config(load([*TINY_VIT, *MIXED, "init_from=norm=dyt"]))  # which has
    assert again["data"] == config["data"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixup, cutmix", [(0.8, 0.0), (0.0, 1.0)])
def test_mixed_pictures_are_learned_with_timms_mixed_targets(mixup, cutmix, smoothing):
    from timm.data import Mixup

    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    pictures, labels = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 2])
    config = load([*TINY_VIT, f"data.mixup={mixup}", f"data.cutmix={cutmix}", f"trainer.label_smoothing={smoothing}"])
    task = build_task(config, 3)
    np.random.seed(5)  # noqa: NPY002 - what timm draws from
    loss = task.loss(lambda x: logits, pictures.clone(), labels)
    np.random.seed(5)  # noqa: NPY002
    timms = Mixup(mixup_alpha=mixup, cutmix_alpha=cutmix, label_smoothing=smoothing, num_classes=3)
    _, targets = timms(pictures.clone(), labels)
    assert not torch.equal(targets, F.one_hot(labels, 3).float())
    assert loss.item() == pytest.approx(-(targets * logits.log_softmax(dim=-1)).sum(dim=-1).mean().item(), rel=1e-5)
    plain = F.cross_entropy(logits, labels, reduction="sum").item()
    assert task.measure(lambda x: logits, pictures, labels)[0].item() == pytest.approx(plain, rel=1e-6)
    assert loss.item() != pytest.approx(plain / 4, rel=1e-3)
