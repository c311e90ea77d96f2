"""Optimizers do with a config's numbers what their names promise."""

import pytest
import torch
from torch import nn

from dyt.config.compose import load
from dyt.training.optim import build

from .helpers import TINY_GPT


class Net(nn.Module):
    """A matrix in a block, one outside, and a gain."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(256, 64, bias=False)])
        self.embed = nn.Embedding(3, 8)
        self.gain = nn.Parameter(torch.ones(8))


def optim(kind, *words):
    """(model, optimizer) with a gradient on every parameter."""
    model = Net()
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model, build(model, load([*TINY_GPT, f"optim.kind={kind}", *words])["optim"])


def test_muons_groups_and_adamws_beside_it_decay_matrices_as_the_config_says():
    model, both = optim("muon", "optim.weight_decay=0.3", "optim.lr=0.01")
    decay = {id(p): group["weight_decay"] for group in both.param_groups for p in group["params"]}
    assert decay == {id(model.blocks[0].weight): 0.3, id(model.embed.weight): 0.3, id(model.gain): 0.0}
    # What Muon adds is of the gradient alone, so that from equal weights two steps differ by their decay.
    (muon, _), before = both.parts, model.blocks[0].weight.detach().clone()
    bare, plain = optim("muon", "optim.weight_decay=0", "optim.lr=0.01")
    with torch.no_grad():
        bare.blocks[0].weight.copy_(before)
        bare.blocks[0].weight.grad.copy_(model.blocks[0].weight.grad)
    muon.step(), plain.parts[0].step()
    torch.testing.assert_close(bare.blocks[0].weight - model.blocks[0].weight, 0.01 * 0.3 * before)


def test_muon_moves_a_matrix_by_about_a_fifth_of_the_learning_rate_as_adamw_does():
    """An orthogonal 64 x 256 matrix has an RMS of 1 / 16, and 0.2 sqrt(256) = 3.2 of that is 0.2 (arXiv 2502.16982)."""
    model, both = optim("muon", "optim.weight_decay=0", "optim.lr=0.01")
    (group,) = both.parts[0].param_groups
    assert group["adjust_lr_fn"] == "match_rms_adamw"
    before = model.blocks[0].weight.detach().clone()
    both.step()
    moved = (model.blocks[0].weight.detach() - before).square().mean().sqrt().item()
    assert moved == pytest.approx(0.2 * 0.01, rel=0.2)


def test_muon_says_why_it_has_nothing_to_train():
    config = load([*TINY_GPT, "optim.kind=muon"])["optim"]
    model = Net()
    model.blocks.requires_grad_(False)
    with pytest.raises(ValueError, match="blocks are frozen, as model.frozen=true has it; choose optim.kind=adamw or"):
        build(model, config)
    model.blocks = nn.ModuleList([nn.LayerNorm(8)])
    with pytest.raises(ValueError, match="this model has no matrices in its blocks; choose optim.kind=adamw or sgd"):
        build(model, config)


def test_sgd_has_a_momentum_of_nine_tenths():
    """Of a gradient of 1: the first step is lr x 1, the second lr x (0.9 + 1)."""
    model, sgd = optim("sgd", "optim.weight_decay=0", "optim.lr=0.1")
    assert [group["momentum"] for group in sgd.param_groups] == [0.9, 0.9]
    model.gain.grad = torch.ones(8)
    sgd.step()
    torch.testing.assert_close(model.gain.detach(), torch.full((8,), 0.9))
    sgd.step()
    torch.testing.assert_close(model.gain.detach(), torch.full((8,), 0.9 - 0.19))
