"""Fixup, SkipInit and sigmaReparam do what their papers say, at the start and in training."""

import math

import pytest
import torch

from models.methods import METHODS

from .helpers import TINY_GPT, TINY_VIT, train
from .test_models import made

VIT = ["model=vit_nano", "model.dim=16", "model.depth=3", "model.heads=2", "norm=none"]
GPT = ["model=gpt_nano", "model.dim=16", "model.depth=3", "model.heads=2", "model.context=16", "norm=none"]


def inputs(words):
    g = torch.Generator().manual_seed(1)
    return torch.randint(50, (2, 16), generator=g) if words is GPT else torch.randn(2, 3, 28, 28, generator=g)


@pytest.mark.parametrize("words", [VIT, GPT], ids=["vit", "gpt"])
@pytest.mark.parametrize("method", ["fixup", "skipinit"])
def test_every_branch_is_zero_at_the_start(words, method):
    model, _ = made(*words, f"model.method={method}")
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, args, out: seen.append((args[0], out)))
    model(inputs(words))
    assert len(seen) == 3
    for before, after in seen:
        assert torch.equal(before, after)


def test_fixup_scales_first_layers_and_zeroes_last_ones():
    plain, _ = made(*VIT)
    fixed, _ = made(*VIT, "model.method=fixup")
    for a, b in zip(plain.blocks, fixed.blocks, strict=True):
        torch.testing.assert_close(b.attn.qkv.weight, a.attn.qkv.weight / math.sqrt(6))
        torch.testing.assert_close(b.mlp.fc1.weight, a.mlp.fc1.weight / math.sqrt(6))
        assert not b.attn.proj.weight.any() and not b.mlp.fc2.weight.any()
    assert not fixed.head.weight.any()
    scalars = [name for name, p in fixed.blocks.named_parameters() if p.shape == (1,)]
    assert len(scalars) == 3 * 2 * 3  # a bias before each of two layers and a factor, per branch


def test_sigma_reparam_makes_every_linear_layer_of_spectral_norm_gamma():
    model, _ = made(*VIT, "model.method=sigma_reparam")
    model.train()
    for _ in range(50):  # power iteration
        model(inputs(VIT))
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert len(linear) == 3 * 4 + 1
    for layer in linear:
        assert torch.linalg.matrix_norm(layer.weight, 2).item() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("words", [TINY_VIT, TINY_GPT], ids=["vit", "gpt"])
@pytest.mark.parametrize("method", METHODS)
def test_they_train_and_resume(words, method):
    more = [
        "norm=none",
        f"model.method={method}",
        "trainer.max_steps=30",
        "trainer.eval_batches=1",
        "trainer.log_every=5",
    ]
    summary, folder = train(*words, *more, "optim.warmup_steps=0", "optim.lr=1e-2")
    assert summary["status"] == "finished"
    from .helpers import rows_of

    losses = [row["train/loss"] for row in rows_of(folder)]
    assert losses[-1] < losses[0]
    again, _ = train(*words, *more, "optim.warmup_steps=0", "optim.lr=1e-2")
    assert again["final"] == summary["final"]


@pytest.mark.parametrize(
    "words, says",
    [
        (["model=vit_nano", "model.method=fixup"], "type norm=none instead of dyt"),
        (["model=vit_nano", "norm=none", "model.method=fixupp"], "model.method"),
        (
            ["model=vit_nano", "norm=none", "model.method=fixup", "norm.sites.attn.kind=layernorm"],
            "model.method=fixup stands in the place of norms; type norm.sites.attn.kind=none instead of layernorm",
        ),
        (
            [
                "model=convnext_base",
                "model.timm_name=test_convnext",
                "norm=none",
                "model.method=skipinit",
                "data.img_size=32",
            ],
            "is no ViT",
        ),
        (["model=resnet_nano", "model.timm_name=test_vit"], "has no BatchNorm2d to replace"),
        (["model=resnet_nano", "model.stem=tiny"], "model.stem=tiny: choose from imagenet, small"),
    ],
)
def test_bad_input_gets_one_line(words, says):
    with pytest.raises(ValueError) as refused:
        train(*words, "data=mnist5k", "trainer.max_steps=1")
    assert says in str(refused.value) and "\n" not in str(refused.value)
