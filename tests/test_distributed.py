"""Several processes give the curve of one, however the model lies over them. Real ones, over gloo."""

import contextlib
from pathlib import Path

import pytest

from .helpers import TINY_GPT, TINY_VIT, train
from .ranks import Ranks, curve, fault

GPT = [
    *TINY_GPT,
    "model.embed_scale=learnable",
    "data.batch_size=8",
    "data.eval_batch_size=4",
    "data.train_tokens=20000",
]
VIT = [*TINY_VIT, "data.batch_size=8", "data.eval_batch_size=50"]
SHORT = ["trainer.max_steps=50", "trainer.log_every=1", "trainer.eval_every=25", "trainer.eval_batches=3"]
SHORT += ["logger.mode=disabled", "trainer.keep=1", "trainer.kernel=reference", "optim.clip_grad=1.0"]
LAYOUTS = {
    "ddp": ["trainer.strategy=ddp"],
    "fsdp": ["trainer.strategy=fsdp"],
    "tp": ["trainer.tp=2"],
}


@pytest.fixture(scope="module")
def two():
    with Ranks(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The curve of one process, computed once for each config."""
    known = {}

    def of(*words):
        if words not in known:
            _, folder = train(*words, out=str(tmp_path_factory.mktemp("alone")))
            known[words] = folder
        return known[words]

    return of


def worst(a, b, key="train/loss") -> float:
    """The largest relative difference of two runs' curves."""
    a, b = curve(a, key), curve(b, key)
    assert a.keys() == b.keys() and a
    return max(abs(a[step] - b[step]) / abs(a[step]) for step in a)


@pytest.mark.parametrize("precision, close", [("fp64", 1e-9), ("fp32", 1e-3)])
@pytest.mark.parametrize("norm", ["dyt", "layernorm"])
@pytest.mark.parametrize(
    "family, layout", [("gpt", "ddp"), ("gpt", "fsdp"), ("gpt", "tp"), ("vit", "ddp"), ("vit", "fsdp")]
)
def test_two_processes_give_the_curve_of_one_over_50_steps(family, layout, norm, precision, close, two, alone):
    words = [*(GPT if family == "gpt" else VIT), *SHORT, f"norm={norm}", f"trainer.precision={precision}"]
    one = alone(*words)
    both = two.trained(*words, *LAYOUTS[layout])
    assert both.name == one.name
    assert worst(one, both) < close
    assert worst(one, both, "grad_norm") < 10 * close
    assert worst(one, both, "val/loss") < close


@pytest.fixture(scope="module")
def four():
    with Ranks(4) as ranks:
        yield ranks


ALL_ON = [*GPT, *SHORT, "trainer.ema_decay=0.9", "trainer.precision=fp64", "norm=dyt", "model.positions=rope"]
ALL_ON += [
    "model.mlp=swiglu",
    "model.bias=true",
    "trainer.max_steps=30",
    "trainer.save_every=10",
    "trainer.eval_every=10",
]


@pytest.mark.parametrize("layout", [["trainer.strategy=fsdp"], ["trainer.tp=2"]], ids=["fsdp", "tp"])
@pytest.mark.parametrize("places", ["both one both", "one both one"])
def test_stopped_twice_it_goes_on_on_another_number_of_processes(places, layout, two, alone):
    """Moving average and optimizer come along. A signal to one process stops both."""
    one = alone(*ALL_ON)
    for number, where in enumerate(places.split()):
        wrong = ("stop", 10 * (number + 1)) if number < 2 else None
        if where == "both":
            answers = two.run(*ALL_ON, *layout, wrong=wrong)
        else:
            with fault(*wrong) if wrong else contextlib.nullcontext():
                summary, place = train(*ALL_ON)
            answers = [(summary["status"], str(place))]
        assert {status for status, _ in answers} == {"interrupted" if wrong else "finished"}, answers
        place = Path(answers[0][1])
        assert (place / "checkpoints" / f"step-{10 * (number + 1):09d}.{'parts' if where == 'both' else 'pt'}").exists()
    assert worst(one, place) < 1e-9 and worst(one, place, "val/loss") < 1e-9
