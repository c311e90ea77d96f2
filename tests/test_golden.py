"""The curves of 100 steps, for each family and norm, as they were on the machine that wrote tests/golden.json.

A change that moves them beyond rounding shows here. Tolerance across machines and torch versions: 2e-3 of the loss
(sums in another order grow over 100 steps; a wrong gradient is far outside). Seen to hold on Intel with AVX-512 and on
AMD with AVX2. A net with BatchNorm gets 10 steps of 64 pictures instead: BatchNorm makes the gradient of the scale of
the weights before it zero but for rounding, Adam makes whole steps of that rounding, and 100 steps of 8 pictures were
4% apart between those two machines (in float64 too: the pictures are float32).

Where a change is meant to move them:

    DYT_WRITE_GOLDEN=1 python -m pytest -m slow tests/test_golden.py
"""

import json
import os
import random
from pathlib import Path

import pytest

from dyt.rundir.files import write_text

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
    rows_of,
    shrunk,
    train,
)

pytestmark = pytest.mark.slow
FILE = Path(__file__).parent / "golden.json"
RELATIVE = 2e-3
COMMON = ["trainer.max_steps=100", "trainer.log_every=10", "trainer.eval_batches=1", "optim.lr=2e-3", "seed=7"]
COMMON += ["trainer.threads=1", "optim.warmup_steps=10"]
FAMILIES = {
    "gpt": [*TINY_GPT, "data.batch_size=8"],
    "llama": [*shrunk("llama_nano"), "data.batch_size=8"],
    "vit": [*TINY_VIT, "data.batch_size=16"],
    "convnext": [
        *shrunk("convnext_base"),
        "data=mnist5k",
        "data.img_size=32",
        "data.batch_size=8",
        "data.interpolation=bilinear",
    ],
    "dit": [*TINY_DIT, "data.batch_size=16", "model.zero_init=false", "data.interpolation=bilinear"],
    "mae": [*TINY_MAE, "data.batch_size=16"],
    "dt": [*TINY_DT, "data.batch_size=16"],
    "wav2vec2": [*TINY_WAV2VEC2, "model.wav2vec2.probe=0"],
    "hyena": [*TINY_HYENA, "data.batch_size=8"],
    "dnabert": [*TINY_DNABERT, "data.batch_size=8"],
    "dino": [*TINY_DINO, "model.dino.teacher_temp=0.1", "model.dino.warmup_teacher_temp=0.1"],
    "resnet": [*shrunk("resnet_nano"), "data=mnist5k", "data.batch_size=8"],
}
NORMS = ["layernorm", "rmsnorm", "dyt", "derf", "dyt_unit_gain", "none"]
CASES = [(f, n) for f in ("gpt", "llama", "vit") for n in NORMS]
SHORT = ["data.batch_size=64", "trainer.max_steps=10", "trainer.log_every=1"]  # what rounding moves, for BatchNorm
CASES += [(f, n) for f in "dit mae dt wav2vec2 hyena dnabert dino".split() for n in ("layernorm", "dyt")]
EARLY = ["trainer.max_steps=20", "trainer.log_every=2"]  # DINO's loss rises after that
CASES += [("convnext", n) for n in ("layernorm", "dyt")] + [("resnet", n) for n in ("batchnorm", "dyt")]


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> list[str]:
    """A text that is the same everywhere: words of a small language, by Python's own generator."""
    import datasets

    dice = random.Random(0)
    words = ["".join(dice.choice("abcdefgh") for _ in range(dice.randint(2, 6))) for _ in range(60)]
    path = tmp_path_factory.mktemp("text") / "text.parquet"
    lines = [" ".join(dice.choice(words) for _ in range(12)) for _ in range(800)]
    datasets.Dataset.from_dict({"text": lines}).to_parquet(path)
    return ["data=hf_text", f"data.path={path}"]


@pytest.mark.parametrize("family, norm", CASES)
def test_the_curve_is_the_golden_one(family, norm, text):
    data = text if family in ("gpt", "llama") else []
    short = SHORT if norm == "batchnorm" else EARLY if family == "dino" else []
    summary, folder = train(*FAMILIES[family], f"norm={norm}", *data, *COMMON, *short)
    assert summary["status"] == "finished"
    losses = [row["train/loss"] for row in rows_of(folder) if "train/loss" in row]
    curve = [float(f"{value:.6g}") for value in [*losses, summary["final"]["val/loss"]]]
    golden = json.loads(FILE.read_text()) if FILE.is_file() else {}
    if os.environ.get("DYT_WRITE_GOLDEN"):
        golden[f"{family} {norm}"] = curve
        write_text(FILE, json.dumps(golden, indent=1, sort_keys=True).replace("\n  ", " ").replace("\n ]", " ]") + "\n")
    assert len(curve) == 11 and curve[0] > curve[-2]  # it learns something
    assert golden[f"{family} {norm}"] == pytest.approx(curve, rel=RELATIVE)


def test_every_golden_curve_has_its_case_and_norms_differ():
    golden = json.loads(FILE.read_text())
    assert set(golden) == {f"{family} {norm}" for family, norm in CASES}
    assert len({tuple(curve) for curve in golden.values()}) == len(golden)
