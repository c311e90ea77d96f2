"""convert(): norms that lie about what they do, found after the first tests: each was wrong in silence once."""

import re

import pytest
import timm.layers
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from dyt import conversion_report, convert, plan


class Of(nn.Module):
    """A parent of one norm called `norm`."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x)


class Scaled(nn.Module):
    """An RMSNorm whose scale has any name, any shape and may be 1 + weight; its class name says nothing."""

    def __init__(self, dim, name, offset=0.0, shape=None):
        super().__init__()
        self.called, self.offset, self.eps = name, offset, 1e-6
        if name:
            setattr(self, name, nn.Parameter(torch.full(shape or (dim,), 1.0 - offset)))

    def forward(self, x):
        axis = 1 if self.called and getattr(self, self.called).dim() > 1 else -1
        x = x * torch.rsqrt(x.pow(2).mean(axis, keepdim=True) + self.eps)
        return x * (self.offset + getattr(self, self.called)) if self.called else x


def test_a_norm_whose_scale_something_else_uses_stays():
    model = nn.ModuleDict({"norm": nn.LayerNorm(6), "other": nn.RMSNorm(6), "last": nn.LayerNorm(6)})
    model.extra = nn.Parameter(torch.ones(6))
    model["norm"].weight = model.extra
    model["other"].weight = model["norm"].weight
    convert(model)
    rows = {e.name: e.reason for e in conversion_report(model) if e.fate == "keep"}
    assert set(rows) == {"norm", "other"} and all("shares its parameters with the model" in r for r in rows.values())
    assert model["norm"].weight is model.extra


def test_keep_affine_and_gamma_init_exclude_each_other():
    with pytest.raises(ValueError, match="keep_affine=True carries the old scale over; leave gamma_init out"):
        convert(nn.Sequential(nn.LayerNorm(6)), keep_affine=True, gamma_init=2.0)
    with pytest.raises(ValueError, match="norm='dyt_unit_gain' starts the scale at 1 / alpha, .* type norm='dyt'"):
        convert(nn.Sequential(nn.LayerNorm(6)), norm="dyt_unit_gain", keep_affine=True)  # gamma_init was not typed


@pytest.mark.parametrize("way", [torch.jit.script, lambda norm: torch.jit.trace(norm, (torch.ones(2, 6),))])
def test_a_norm_that_is_scripted_is_left_with_ways_that_a_converted_model_can_go(way):
    x, model = torch.randn(2, 6), nn.Sequential(nn.LayerNorm(6))
    with pytest.raises(ValueError, match="convert before that, and type torch.export.export or torch.jit.trace in"):
        convert(nn.Sequential(way(model[0])))
    convert(model)
    for gone in (torch.export.export(model, (x,)).module(), torch.jit.trace(model, (x,))):
        torch.testing.assert_close(gone(x), torch.tanh(0.5 * x))


def test_sites_of_post_norms_and_of_decoders():
    names = ("post_attention_layernorm", "post_feedforward_layernorm")
    olmo = nn.ModuleList([nn.ModuleDict({n: nn.LayerNorm(6) for n in names})])
    assert [e.site for e in plan(olmo)] == ["attn", "mlp"]
    assert [e.site for e in plan(nn.ModuleList([nn.TransformerDecoderLayer(8, 2, 8)]))] == ["attn", "attn", "mlp"]
    xcit = nn.ModuleList([nn.ModuleDict({n: nn.LayerNorm(6) for n in ("norm1", "norm2", "norm3")})])
    assert [e.site for e in plan(xcit)] == ["attn", "mlp", "mlp"]


class OverBatch(nn.Module):
    """Called LayerNorm by its author, and measures the batch."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return (x - x.mean(0)) / x.std(0) * self.weight


class TwoAxes(nn.Module):
    """Normalizes the last axis and scales axis 1."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:]) * self.weight.view(1, -1, *[1] * (x.dim() - 2))


class DropsInside(nn.LayerNorm):
    def forward(self, x):
        return F.dropout(super().forward(x), 0.5, self.training)


class ByDimensions(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x) * (1 if x.dim() == 3 else 2)


class DropsBefore(nn.LayerNorm):
    def __init__(self, dim):
        super().__init__(dim)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return super().forward(self.drop(x))


class Exponential(Scaled):
    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:]) * self.weight.exp()


def pruned():
    norm = nn.LayerNorm(6)
    prune.random_unstructured(norm, "weight", amount=2)
    return norm


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make, why",
    [
        (lambda: OverBatch(6), "does something else"),
        (lambda: TwoAxes(6), "does something else"),
        (lambda: DropsInside(6), "does something else in training"),
        (lambda: ByDimensions(6), "does not do the same to inputs of 2, 3 and 4 dimensions"),
        (lambda: DropsBefore(6), "runs drop before it normalizes"),
        (lambda: Exponential(6, "weight"), "its scale is not a parameter"),
        (pruned, "its scale is not a parameter"),
        (lambda: nn.utils.weight_norm(nn.LayerNorm(6), dim=None), "its scale is not a parameter|more than one|clear"),
    ],
)
def test_names_that_lie_and_scales_that_are_made_elsewhere(make, why):
    (entry,) = plan(nn.ModuleDict({"norm": make()}))
    assert entry.fate == "keep" and re.search(why, entry.reason), entry.reason


def test_dropout_inside_is_not_lost_where_there_is_no_activation():
    model = convert(Of(timm.layers.LayerNormAct2d(6, apply_act=False, drop_layer=lambda: nn.Dropout(0.5))))
    assert isinstance(model.norm[1], nn.Dropout)


def test_a_shift_of_zeros_that_is_not_learned_is_no_shift():
    class Buffered(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(6))
            self.register_buffer("beta", torch.zeros(6))

        def forward(self, x):
            return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)

    assert convert(Of(Buffered())).norm.bias is None


def test_a_probe_leaves_no_trace():
    class Counts(nn.LayerNorm):
        def __init__(self):
            super().__init__(6)
            self.register_buffer("count", torch.zeros(()))
            self.log = []

        def forward(self, x):
            self.count += 1
            self.log.append(x)
            return super().forward(x)

    model = Of(Counts())
    assert plan(model)[0].fate == "replace" and model.norm.count == 0 and model.norm.log == []


def test_a_norm_that_is_read_and_not_called_stays():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(6)

        def forward(self, x):
            return F.layer_norm(x, (6,), self.norm.weight, self.norm.bias)

    class Calls(Reads):
        def forward(self, x):
            return self._normed(x)

        def _normed(self, x):
            return self._inner(x)

        def _inner(self, x):
            return F.layer_norm(x, (6,), self.norm.weight, self.norm.bias)

    class Above(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Module()
            self.part.norm, self.norm = nn.LayerNorm(6), nn.LayerNorm(6)

        def forward(self, x):
            return self.norm(F.layer_norm(x, (6,), self.part.norm.weight))

        def unused(self):
            return self.norm.weight

    class Loops(nn.Module):
        def __init__(self):
            super().__init__()
            self.norms, self.last = nn.ModuleList([nn.LayerNorm(6), nn.LayerNorm(6)]), nn.Sequential(nn.LayerNorm(6))

        def forward(self, x):
            for n in self.norms:
                x = F.layer_norm(x, x.shape[-1:], n.weight, n.bias)
            return self.last(x)

    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(6)
            self.call = self.norm.forward

    assert plan(Calls())[0].reason == "is read, not called, in the forward of Calls"
    found = {e.name: e.reason for e in plan(Above())}
    assert found["part.norm"] == "is read, not called, in the forward of Above"
    assert plan(Reads())[0].reason == "is read, not called, in the forward of Reads"
    found = {e.name: e.reason for e in plan(Loops())}
    assert found.pop("last.0") == "" and set(found.values()) == {"may be read, not called, in the forward of Loops"}
    assert plan(Holds())[0].reason == "has a method held in call; hold the module instead"


def test_whatever_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        (entry,) = plan(Of(Scaled(6, "g")))
    finally:
        torch.set_default_dtype(torch.float32)
    assert entry.fate == "replace"
