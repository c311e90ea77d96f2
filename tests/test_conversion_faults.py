"""convert() on small models, one for each way in which a norm in somebody else's model can mislead it."""

import copy
import io
import math
import pickle
import re

import pytest
import timm.layers
import torch
from timm.layers import GlobalResponseNormMlp
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F

import dyt
from dyt import DynamicTanh, conversion_report, convert, kernels, revert

C = 10


@pytest.fixture(autouse=True)
def no_compiling():
    kernels.force("reference")  # the kernels have tests of their own
    yield
    kernels.force("auto")


class Norm(nn.Module):
    """The usual start of a norm written by hand; `formula` is the forward of each test class below."""

    def __init__(self, dim=C, name="weight", value=1.0):
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.full((dim,), value)))
        self.eps = 1e-6

    def rms(self, x, axis=-1):
        return x * torch.rsqrt(x.square().mean(axis, keepdim=True) + self.eps)


class ScaleCalledScale(Norm):
    def __init__(self):
        super().__init__(name="scale")

    def forward(self, x):
        return self.rms(x) * self.scale


class ScaleCalledG(Norm):
    def __init__(self):
        super().__init__(name="g")

    def forward(self, x):
        return F.normalize(x, dim=-1) * C**0.5 * self.g


class GammaBeta(Norm):
    def __init__(self):
        super().__init__(name="gamma")
        self.beta = nn.Parameter(torch.zeros(C))

    def forward(self, x):
        return F.layer_norm(x, (C,), self.gamma, self.beta)


class GemmaNorm(Norm):
    def __init__(self):
        super().__init__(value=0.0)

    def forward(self, x):
        return self.rms(x.float()).mul(1.0 + self.weight.float()).type_as(x)


class ChannelsFirst(Norm):
    """As in the ConvNeXt repository."""

    def __init__(self, data_format):
        super().__init__()
        self.bias, self.data_format = nn.Parameter(torch.zeros(C)), data_format

    def forward(self, x):
        if self.data_format == "channels_last":
            return F.layer_norm(x, (C,), self.weight, self.bias)
        x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + self.eps).sqrt()
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Permutes(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PlainNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.normalized_shape = (C,)

    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape)


class MambaRMSNormGated(Norm):
    """As in Mamba2: the gate is a second argument."""

    def forward(self, hidden_states, gate=None):
        if gate is not None:
            hidden_states = hidden_states * F.silu(gate)
        return self.rms(hidden_states) * self.weight


class QwenRMSNormGated(Norm):
    """As in Qwen3-Next: the gate comes after the norm, and always."""

    def forward(self, hidden_states, gate=None):
        return self.weight * self.rms(hidden_states) * F.silu(gate)


class ResidualNorm(Norm):
    def forward(self, x, residual=None):
        x = x if residual is None else x + residual
        return self.rms(x) * self.weight


class DropsNorm(Norm):
    def forward(self, x):
        return F.dropout(self.rms(x) * self.weight, 0.5, self.training)


class SkipNorm(Norm):
    def forward(self, x):
        return x + self.rms(x) * self.weight


class GlobalResponseNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.zeros(C)), nn.Parameter(torch.zeros(C))

    def forward(self, x):
        g = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + self.bias + self.weight * x * g / (g.mean(-1, keepdim=True) + 1e-6)


class L2Norm(nn.Module):
    def forward(self, x):
        return F.normalize(x, dim=-1)


class WholeSampleNorm(Norm):
    """GroupNorm with one group: on (N, C) it is a LayerNorm, on anything longer it is not."""

    def forward(self, x):
        axes = tuple(range(1, x.ndim))
        x = (x - x.mean(axes, keepdim=True)) / (x.var(axes, keepdim=True, unbiased=False) + self.eps).sqrt()
        return x * self.weight


class AxisByShapeNorm(Norm):
    def forward(self, x):
        if x.ndim == 4:
            return self.rms(x, 1) * self.weight[:, None, None]
        return self.rms(x) * self.weight


class FrozenBatchNorm2d(nn.Module):
    def __init__(self):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((C,), value))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


def fill(module):
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.rand(p.shape, generator=random) + 0.5)
    return module


def refused(model, says, **options):
    """One line, and the model is as it was, to the last attribute."""
    before = {n: (m, dict(vars(m))) for n, m in model.named_modules()} if isinstance(model, nn.Module) else {}
    kept = {n: (dict(m._modules), {k: v.clone() for k, v in m.state_dict().items()}) for n, (m, _) in before.items()}
    with pytest.raises(ValueError, match=says) as error:
        convert(model, **options)
    assert "\n" not in str(error.value)
    for name, (module, attributes) in before.items():
        assert model.get_submodule(name) is module and vars(module) == attributes and module._modules == kept[name][0]
        assert all(torch.equal(v, kept[name][1][k]) for k, v in module.state_dict().items())


# -- the formula of each norm: which axis, which scale, what else ------------------------------------------------------

LAYERS = timm.layers
# (norm on axis 1, its number of scales and shifts). Their input is (B, C, C, C): width, height and channels are alike.
FIRST = [
    (lambda: LAYERS.LayerNorm2d(C), 2),
    (lambda: LAYERS.LayerNorm2dFp32(C), 2),
    (lambda: LAYERS.RmsNorm2d(C), 1),
    (lambda: LAYERS.RmsNorm2dFp32(C), 1),
    (lambda: ChannelsFirst("channels_first"), 2),
    (lambda: Permutes(C), 2),
    (lambda: Permutes(C, bias=False), 1),
    (lambda: Permutes(C, elementwise_affine=False), 0),
]
LAST = [
    (lambda: nn.LayerNorm(C), 2),
    (lambda: nn.LayerNorm(C, bias=False), 1),
    (lambda: nn.LayerNorm(C, elementwise_affine=False), 0),
    (lambda: nn.RMSNorm(C), 1),
    (lambda: LAYERS.LayerNorm(C), 2),
    (lambda: LAYERS.LayerNormFp32(C), 2),
    (lambda: LAYERS.RmsNorm(C), 1),
    (lambda: ChannelsFirst("channels_last"), 2),
    (ScaleCalledScale, 1),
    (ScaleCalledG, 1),
    (GammaBeta, 2),
    (GemmaNorm, 1),
    (PlainNorm, 0),
]


@pytest.mark.parametrize("make, affine, axis", [(*f, 1) for f in FIRST] + [(*f, -1) for f in LAST], ids=lambda v: None)
def test_axis_and_scale_are_those_of_the_old_norm(make, affine, axis):
    model = nn.Sequential(fill(make()))
    old = model[0]
    entry = dyt.plan(model)[0]
    assert (entry.fate, entry.axis, entry.width) == ("replace", axis, C)
    x = torch.randn(2, C, C, C, generator=torch.Generator().manual_seed(2)) * 3
    was = old(x)
    convert(model, alpha_init=0.7, keep_affine=True)
    new = model[0]
    assert (
        isinstance(new, DynamicTanh) and len([n for n in ("weight", "bias") if getattr(new, n) is not None]) == affine
    )
    shape = [1] * 4
    shape[axis] = C
    scale = old._parameters[entry.norm.scale] + entry.norm.offset if affine else torch.ones(C)
    shift = old._parameters[entry.norm.bias] if affine == 2 else torch.zeros(C)
    want = torch.tanh(0.7 * x) * scale.reshape(shape) + shift.reshape(shape)
    assert torch.allclose(new(x), want, atol=1e-6)
    if affine:  # a scale of zero zeroes channel 0 of both on that axis, and nothing else
        with torch.no_grad():
            old._parameters[entry.norm.scale][0] = -entry.norm.offset
            new.weight[0] = 0
        only = torch.zeros_like(x, dtype=torch.bool)
        only.select(axis, 0).fill_(True)
        assert torch.equal((old(x) - shift.reshape(shape)).abs() < 1e-6, only)
        assert torch.equal((new(x) - shift.reshape(shape)).abs() < 1e-6, only)
    with torch.no_grad():
        fill(old)
    assert torch.equal(revert(model)[0](x), was)


def test_the_activation_in_a_norm_stays_and_so_does_its_dropout():
    for make, act in (
        (lambda: LAYERS.LayerNormAct2d(C, act_layer=nn.GELU), F.gelu),
        (lambda: LAYERS.LayerNormAct2d(C), F.relu),
        (lambda: LAYERS.LayerNormAct2dFp32(C), F.relu),
        (lambda: LAYERS.RmsNormAct2d(C), F.relu),
        (lambda: LAYERS.RmsNormAct2dFp32(C), F.relu),
    ):
        model, x = nn.Sequential(make()).eval(), torch.randn(2, C, C, C)
        was = model(x)
        convert(model, alpha_init=0.7)
        assert conversion_report(model)[0].axis == 1
        assert torch.allclose(model(x), act(torch.tanh(0.7 * x)), atol=1e-6)
        assert torch.equal(revert(model)(x), was)
    model, x = nn.Sequential(LAYERS.LayerNormAct(C, drop_layer=nn.Dropout)).eval(), torch.randn(2, C)
    convert(model, alpha_init=0.7)
    assert torch.allclose(model(x), F.relu(torch.tanh(0.7 * x)), atol=1e-6)
    assert any(isinstance(m, nn.Dropout) for m in model.modules())


@pytest.mark.parametrize(
    "make, reason",
    [
        (MambaRMSNormGated, "takes more than its input: gate"),
        (QwenRMSNormGated, "takes more than its input: gate"),
        (ResidualNorm, "takes more than its input: residual"),
        (SkipNorm, "does something else"),
        (DropsNorm, "does something else in training than in eval"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.LayerNorm(C)), "its parameters are parametrized"),
        (lambda: nn.LayerNorm((4, C)), r"several axes at once, \(4, 10\)"),
        (lambda: nn.GroupNorm(2, C), "measures groups of channels over all positions; groupnorm='replace'"),
        (lambda: LAYERS.GroupNorm1(C), "measures groups of channels over all positions"),
        (lambda: nn.InstanceNorm2d(C), "measures one channel over positions"),
        (lambda: nn.BatchNorm2d(C), "measures over the batch.*76.2 -> 68.9"),
        (lambda: LAYERS.BatchNormAct2d(C), "measures over the batch"),
        (lambda: LAYERS.FrozenBatchNormAct2d(C), "statistics that are frozen"),
        (FrozenBatchNorm2d, "statistics that are frozen"),
        (GlobalResponseNorm, "does something else"),
        (WholeSampleNorm, "does something else than LayerNorm or RMSNorm"),
        (AxisByShapeNorm, "last axis or over axis 1, depending on its input"),
        (lambda: GlobalResponseNormMlp(C, C).grn, "does something else"),
        (lambda: LAYERS.SimpleNorm2d(C), "does something else"),
        (L2Norm, "scales to unit length"),
        (lambda: nn.LocalResponseNorm(2), "neighbouring channels"),
    ],
)
def test_what_does_more_or_something_else_is_left_whole_with_the_reason(make, reason):
    body = make()
    model = nn.ModuleDict({"before": nn.LayerNorm(C), "norm": body})
    convert(model, batchnorm="keep", verbose=False)
    report = conversion_report(model)
    assert model["norm"] is body and isinstance(model["before"], DynamicTanh)
    assert [(e.name, e.fate) for e in report] == [("before", "replaced"), ("norm", "keep")]
    assert report[1].cls == type(body).__name__
    assert re.search(reason, report[1].reason), report[1].reason
    assert report.summary() == f"replaced 1 norm (final 1); left as they were: 1 {type(body).__name__}"
    assert f"left as they were: 1 {type(body).__name__}" in str(report)
    alone = nn.Sequential(make())
    refused(alone, "0, a|0 is a BatchNorm")


def test_replaced_one_left_twenty_four_does_not_read_as_done(capsys, caplog):
    model = nn.Sequential(nn.LayerNorm(C), *[nn.GroupNorm(2, C) for _ in range(24)])
    convert(model)
    assert "replaced 1 norm (final 1); left as they were: 24 GroupNorm" in caplog.text  # a warning: level is not set
    assert capsys.readouterr().out == ""
    convert(revert(model), verbose=True)
    out = capsys.readouterr().out
    assert "replaced 1 norm" in out and "keep: measures groups of channels" in out


def test_policies():
    x = torch.randn(4, C, 5, 5)
    for norm, options in (
        (nn.GroupNorm(2, C), {"groupnorm": "replace"}),
        (nn.BatchNorm2d(C), {"batchnorm": "replace"}),
    ):
        model = convert(nn.Sequential(norm, nn.Conv2d(C, C, 1)), alpha_init=0.7, **options)
        assert isinstance(model[0], DynamicTanh) and torch.allclose(model[0](x), torch.tanh(0.7 * x), atol=1e-6)
    act = convert(nn.Sequential(LAYERS.BatchNormAct2d(C)), alpha_init=0.7, batchnorm="replace")
    assert torch.allclose(act(x), F.relu(torch.tanh(0.7 * x)), atol=1e-6)
    refused(nn.Sequential(nn.LayerNorm(C), nn.GroupNorm(2, C)), "1 is a GroupNorm", groupnorm="refuse")
    refused(nn.Sequential(nn.LayerNorm(C), nn.BatchNorm1d(C)), "1 is a BatchNorm.*batchnorm='keep'")
    refused(nn.Sequential(nn.LayerNorm(C)), "batchnorm='swap': choose from refuse, keep, replace", batchnorm="swap")


# -- what is around a norm stays as it was -----------------------------------------------------------------------------


def test_a_module_in_two_places_and_an_alias_stay_one():
    shared = nn.LayerNorm(C)
    model = nn.ModuleDict({"a": shared, "b": nn.ModuleList([shared, nn.Linear(C, C)])})
    model.alias = shared
    model.plain, model.pair, model.nested = [shared], (shared, 1), {"x": [(shared,), shared]}
    old_keys = set(model.state_dict())
    convert(model)
    new = model["a"]
    assert isinstance(new, DynamicTanh) and new is model["b"][0] is model.alias is model.plain[0]
    assert model.pair == (new, 1) and model.nested == {"x": [(new,), new]}
    assert conversion_report(model)[0].names == ("a", "b.0", "alias")
    assert set(model.state_dict()) == old_keys | {"a.alpha", "b.0.alpha", "alias.alpha"}
    revert(model)
    assert model["a"] is model["b"][0] is model.alias is model.plain[0] is shared
    assert model.pair == (shared, 1) and model.nested == {"x": [(shared,), shared]}


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.LayerNorm(C), nn.LayerNorm(C), nn.RMSNorm(C))
    model[1].weight = model[0].weight
    convert(model)
    assert model[0].weight is model[1].weight and model[0].bias is not model[1].bias
    assert model[2].weight is not model[0].weight and model[0].alpha is not model[1].alpha
    revert(model)
    assert model[0].weight is model[1].weight


def test_hooks_stay_and_their_handles_still_remove_them():
    model, seen = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, 1)), []
    handles = [
        model[0].register_forward_hook(lambda m, args, out: seen.append("forward")),
        model[0].register_forward_pre_hook(lambda m, args: seen.append("before")),
        model[0].register_full_backward_hook(lambda m, gi, go: seen.append("backward")),
        model[0].register_forward_hook(lambda m, args, kwargs, out: out * 0, with_kwargs=True),
    ]
    convert(model)
    x = torch.randn(2, C, requires_grad=True)
    out = model[0](x)
    out.sum().backward()
    assert seen == ["before", "forward", "backward"] and not out.any()
    for handle in handles:
        handle.remove()
    assert model[0](x).any() and len(seen) == 3
    revert(model)
    assert model[0](x).any() and len(seen) == 3


def test_requires_grad_and_training_mode_stay():
    model = nn.ModuleDict(
        {"frozen": nn.LayerNorm(C), "partly": nn.LayerNorm(C), "evaluated": nn.LayerNorm(C).eval(), "none": PlainNorm()}
    )
    model["frozen"].requires_grad_(False)
    model["partly"].bias.requires_grad_(False)
    convert(model)
    frozen, half = model["frozen"], model["partly"]
    assert not any(p.requires_grad for p in frozen.parameters())
    assert half.weight.requires_grad and not half.bias.requires_grad and half.alpha.requires_grad
    assert [model[k].training for k in ("frozen", "partly", "evaluated", "none")] == [True, True, False, True]
    revert(model)
    assert [p.requires_grad for p in model.parameters()] == [False, False, True, False, True, True]
    assert not model["evaluated"].training


def test_device_and_dtype_are_the_norms_or_its_neighbours():
    model = nn.ModuleDict(
        {
            "bf16": nn.ModuleList([nn.Linear(C, C).bfloat16(), nn.LayerNorm(C, elementwise_affine=False)]),
            "f64": nn.ModuleList([nn.Linear(C, C).double(), PlainNorm(), nn.RMSNorm(C).float()]),
            "on_meta": nn.ModuleList([nn.Linear(C, C, device="meta"), PlainNorm()]),
        }
    )
    convert(model)
    assert model["bf16"][1].alpha.dtype == torch.bfloat16
    assert model["f64"][1].alpha.dtype == torch.float64 and model["f64"][2].alpha.dtype == torch.float32
    assert model["on_meta"][1].alpha.device.type == "meta"


@pytest.mark.parametrize(
    "make, neighbours",
    [
        (lambda: nn.LayerNorm(C), torch.float32),
        (lambda: nn.LayerNorm(C), torch.bfloat16),
        (lambda: nn.RMSNorm(C), torch.bfloat16),
        (lambda: LAYERS.LayerNormFp32(C), torch.bfloat16),
        (lambda: LAYERS.RmsNormFp32(C) if hasattr(LAYERS, "RmsNormFp32") else LAYERS.LayerNormFp32(C), torch.float16),
        (GemmaNorm, torch.bfloat16),
        (ScaleCalledScale, torch.bfloat16),
        (PlainNorm, torch.bfloat16),
    ],
)
def test_a_float32_norm_in_a_half_model_gives_the_dtype_it_gave(make, neighbours):
    model = nn.Sequential(nn.Linear(C, C).to(neighbours), make().float())
    half, full = torch.randn(2, C, dtype=neighbours), torch.randn(2, C)
    was = {}
    for x in (half, full):
        try:
            was[x.dtype] = model[1](x).dtype
        except RuntimeError:  # LayerNorm refuses bfloat16 with float32 weights: nothing to keep
            pass
    convert(model)
    assert was and {d: model[1](x).dtype for x in (half, full) if (d := x.dtype) in was} == was
    revert(model)
    assert {d: model[1](x).dtype for x in (half, full) if (d := x.dtype) in was} == was


def test_meta_to_empty_and_reset():
    model = convert(nn.Sequential(nn.Linear(C, C, device="meta"), nn.LayerNorm(C, device="meta")), alpha_init=0.7)
    assert model[1].weight.is_meta
    model.to_empty(device="cpu")
    for module in model:
        module.reset_parameters()
    x = torch.randn(2, C)
    assert torch.allclose(model[1](x), torch.tanh(0.7 * x), atol=1e-6)
    assert torch.allclose(revert(model)[1](x), F.layer_norm(x, (C,)))
    scaled = dyt.add_embed_scale(nn.Sequential(nn.Embedding(5, 16, device="meta"))).to_empty(device="cpu")
    scaled[0].embed_scale.scale.data.fill_(math.nan)
    scaled[0].embed_scale.reset_parameters()
    assert scaled[0].embed_scale.scale.tolist() == [4.0]


# -- torch's fast path -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("norm", ["dyt", "derf", "rmsnorm", "none"])
def test_torch_encoders_in_eval_are_what_they_are_in_training(norm, norm_first, mask):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=norm_first)
    x = torch.randn(3, 5, 8)
    padding = torch.arange(5)[None] >= torch.tensor([5, 3, 4])[:, None] if mask else None
    for model in (
        nn.ModuleList([layer]),
        nn.TransformerEncoder(layer, 2, nn.LayerNorm(8), enable_nested_tensor=not norm_first),
    ):
        original = (model[0] if isinstance(model, nn.ModuleList) else model).eval()
        with torch.inference_mode():
            was = original(x, src_key_padding_mask=padding)
        convert(model, norm)
        run = model[0] if isinstance(model, nn.ModuleList) else model
        slow = run.train()(x, src_key_padding_mask=padding)
        run.eval()
        with torch.inference_mode():
            fast = run(x, src_key_padding_mask=padding)
        with torch.no_grad():
            assert torch.allclose(run(x, src_key_padding_mask=padding), fast)
        assert torch.allclose(fast, slow, atol=1e-6) and not torch.allclose(fast, was, atol=1e-2)
        revert(model)
        with torch.inference_mode():
            assert torch.equal(original.eval()(x, src_key_padding_mask=padding), was)


def test_torch_decoder_and_transformer_in_eval_are_what_they_are_in_training():
    torch.manual_seed(0)
    a, b = torch.randn(2, 4, 8), torch.randn(2, 3, 8)
    for model, count in (
        (nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), 2, nn.LayerNorm(8)), 7),
        (nn.Transformer(8, 2, 2, 2, 16, 0.0, batch_first=True), 2 * 2 + 1 + 2 * 3 + 1),
    ):
        with torch.inference_mode():
            was = model.eval()(a, b)
        convert(model)
        assert sum(isinstance(m, DynamicTanh) for m in model.modules()) == count
        slow = model.train()(a, b)
        with torch.inference_mode():
            assert torch.allclose(model.eval()(a, b), slow, atol=1e-6)
            assert torch.equal(revert(model).eval()(a, b), was)


# -- choices -----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(C), nn.Linear(C, C)
        self.norm2, self.mlp = nn.LayerNorm(C), nn.Linear(C, C)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.norm = nn.Sequential(Block(), Block()), nn.LayerNorm(C)

    def forward(self, x):
        return self.norm(self.blocks(x))


NAMES = ["blocks.0.norm1", "blocks.0.norm2", "blocks.1.norm1", "blocks.1.norm2", "norm"]


@pytest.mark.parametrize(
    "options, done",
    [
        ({}, NAMES),
        ({"only": "blocks.*.norm1"}, ["blocks.0.norm1", "blocks.1.norm1"]),
        ({"only": ["norm", "blocks.0.*"]}, ["blocks.0.norm1", "blocks.0.norm2", "norm"]),
        ({"skip": "norm"}, NAMES[:4]),
        ({"skip": lambda name, module: name.endswith("2")}, ["blocks.0.norm1", "blocks.1.norm1", "norm"]),
        ({"only": "blocks.*", "skip": "*norm1"}, ["blocks.0.norm2", "blocks.1.norm2"]),
    ],
)
def test_only_and_skip(options, done):
    model = convert(Net(), **options)
    assert [n for n, m in model.named_modules() if isinstance(m, DynamicTanh)] == done
    report = conversion_report(model)
    assert [e.name for e in report if e.fate == "replaced"] == done and len(report) == 5 and report.left == []


def test_sites_overrides_and_their_order():
    model = convert(
        Net(),
        alpha_init=0.1,
        sites={"attn": {"alpha_init": 0.8}},
        overrides={"blocks.0.*": {"alpha_init": 1.0}, "norm": {"bias": False}},
    )
    alphas = [round(m.alpha.item(), 3) for m in model.modules() if isinstance(m, DynamicTanh)]
    assert alphas == [1.0, 1.0, 0.8, 0.1, 0.1]
    assert model.norm.bias is None and model.blocks[0].norm1.bias is not None


def test_affine_and_bias():
    model = fill(Net())
    weight, bias = model.norm.weight.clone(), model.norm.bias.clone()
    convert(model, keep_affine=True)
    assert torch.equal(model.norm.weight, weight) and torch.equal(model.norm.bias, bias)
    convert(revert(model))
    assert torch.equal(model.norm.weight, torch.ones(C)) and not model.norm.bias.any()
    convert(revert(model), bias=False)
    assert all(m.bias is None for m in model.modules() if isinstance(m, DynamicTanh))
    rms = convert(nn.Sequential(nn.RMSNorm(C)), bias=True)
    assert rms[0].bias is not None
    unit = fill(nn.Sequential(GemmaNorm()))
    scale = 1 + unit[0].weight.detach()
    assert torch.equal(convert(unit, keep_affine=True)[0].weight, scale)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"kind": "derf"}, "kind= cannot be chosen.*norm='derf'"),
        ({"dim": 8}, "dim= cannot be chosen.*width is read"),
        ({"dtype": torch.float16}, r"dtype= cannot be chosen.*model.to\(dtype\)"),
        ({"device": "cpu"}, "device= cannot be chosen"),
        ({"channels_last": False}, "channels_last= cannot be chosen"),
        ({"sites": {"atn": {"alpha_init": 1.0}}}, "sites='atn': the model has no such site; it has attn 2"),
        ({"sites": {"attn": {"kind": "derf"}}}, r"sites\['attn'\]: kind cannot be chosen"),
        ({"sites": {"attn": {"alpha_int": 1.0}}}, "did you mean 'alpha_init'"),
        ({"sites": {"attn": 0.8}}, "must be a dict of options"),
        ({"overrides": {"block.0": {"alpha_init": 1.0}}}, "overrides='block.0' matches no norm"),
        ({"overrides": {"norm": {"dim": 8}}}, "norm has width 10"),
        ({"overrides": {"norm": 0.8}}, "must be a dict of options"),
        ({"sites": ["attn"]}, r"sites=\['attn'\]: needs a dict like \{'attn': \{'alpha_init': 0.8\}\}"),
        ({"only": "nrm"}, "only='nrm' matches no norm; the norms are blocks.0.norm1"),
        ({"skip": ["norm", "nrm"]}, "skip='nrm' matches no norm"),
        ({"skip": "*"}, "in skip="),
        ({"norm": "dty"}, "dty"),
        ({"alpha_init": "x"}, "alpha_init"),
        ({"norm": "none", "keep_affine": True}, "keep_affine=True, but the new blocks.0.norm1 has no scale"),
    ],
)
def test_what_cannot_be_chosen_is_a_line_and_the_model_is_as_it_was(options, says):
    refused(Net(), says, **options)


def test_what_is_no_model_to_convert():
    refused(None, "needs a torch.nn.Module, not None")
    refused([Net()], "not a list; convert each model by itself")
    refused(Net, "Net is a class")
    refused("vit", "not a str")
    refused(nn.LayerNorm(C), "the model is itself a norm")
    refused(nn.Sequential(nn.Linear(C, C)), "no LayerNorm or RMSNorm to replace")
    refused(convert(Net()), r"Net is converted already, 5 x DynamicTanh; type dyt.revert\(model\) first")
    refused(nn.Sequential(nn.BatchNorm2d(C), nn.BatchNorm2d(C)), "0 is a BatchNorm.*and the model has no LayerNorm")
    with pytest.raises(ValueError, match="0, a LazyBatchNorm1d, is lazy; run the model once first"):
        convert(nn.Sequential(nn.LazyBatchNorm1d()), batchnorm="replace")
    refused(nn.Sequential(torch.compile(Net())), "torch.compile already; convert before that")
    with pytest.raises(ValueError, match="was not converted"):
        conversion_report(Net())
    with pytest.raises(ValueError, match="holds no layer that convert put there"):
        revert(Net())
    with pytest.raises(ValueError, match="revert: needs a torch.nn.Module, not None"):
        revert(None)
    with pytest.raises(ValueError, match="add_embed_scale: needs a torch.nn.Module, not None"):
        dyt.add_embed_scale(None)


@pytest.fixture
def alone():
    """A group of one process, which is enough to wrap a model."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPS = {
    "DistributedDataParallel": lambda model: nn.parallel.DistributedDataParallel(model),
    "fully_shard": lambda model: fully_shard(model),
    "torch.compile": lambda model: torch.compile(model, backend="eager"),
    r"compile\(\)": lambda model: model.compile(backend="eager") or model,
}


@pytest.mark.parametrize("been", WRAPS)
@pytest.mark.parametrize("command", [convert, revert, dyt.add_embed_scale])
def test_a_wrapped_or_compiled_model_is_refused_by_each_command_that_changes_models(command, been, alone):
    """DDP and FSDP know the parameters of before alone: a new one would become another in each process."""
    model = nn.Sequential(nn.Embedding(4, C), nn.LayerNorm(C))
    if command is revert:
        convert(model)
    keys, wrapped, name = [*model.state_dict()], WRAPS[been](model), command.__name__
    with pytest.raises(ValueError, match=f"{name}: the model went through {been} already; {name} before that"):
        command(wrapped)
    assert [*model.state_dict()] == keys


def test_a_refusal_in_the_last_norm_leaves_the_first():
    model = nn.Sequential(nn.LayerNorm(C), nn.LayerNorm(C, elementwise_affine=False))
    refused(model, "the new 1 has no scale|the new 0 has no scale", norm="none", keep_affine=True)
    refused(nn.Sequential(nn.LayerNorm(C), nn.BatchNorm1d(C)), "1 is a BatchNorm")


def test_keep_affine_loses_no_shift_in_silence():
    model = nn.Sequential(nn.LayerNorm(C))
    convert(copy.deepcopy(model), norm="rmsnorm", keep_affine=True)  # a shift of 0 is none
    nn.init.constant_(model[0].bias, -3.0)
    refused(model, r"the new 0 has no shift to carry the old one to \(up to 3\)", norm="rmsnorm", keep_affine=True)
    assert convert(model, keep_affine=True, bias=False)[0].bias is None  # asked for


# -- copies and files --------------------------------------------------------------------------------------------------


def test_two_steps_and_a_part_of_a_model():
    model = fill(Net())
    x = torch.randn(2, C)
    was = model(x)
    convert(model.blocks[0])
    assert [e.name for e in conversion_report(model)] == NAMES[:2]
    convert(model)
    assert [e.name for e in conversion_report(model)] == NAMES
    assert {e.fate for e in conversion_report(model)} == {"replaced"}
    assert sum(isinstance(m, DynamicTanh) for m in model.modules()) == 5
    revert(model.blocks[1])
    assert [e.name for e in conversion_report(model)] == [*NAMES[:2], "norm"]
    convert(model)
    assert [e.name for e in conversion_report(model)] == NAMES
    assert torch.equal(revert(model)(x), was)


def test_revert_brings_back_the_norms_of_before_the_first_of_two_conversions():
    model, x = fill(Net()), torch.randn(2, C)
    firsts, was, keys = [model.get_submodule(name) for name in NAMES], model(x), set(model.state_dict())
    handle = model.norm.register_forward_hook(lambda norm, args, out: 2 * out)
    convert(convert(model, "rmsnorm"), "dyt", skip="blocks.0.*")
    assert type(model.norm) is DynamicTanh and "RMSNorm" in type(model.blocks[0].norm1).__name__
    other = copy.deepcopy(model).double()
    revert(model)
    handle.remove()
    assert torch.equal(model(x), was) and set(model.state_dict()) == keys
    assert [model.get_submodule(name) for name in NAMES] == firsts
    for again in (model, revert(other)):
        with pytest.raises(ValueError, match="holds no layer that convert put there"):
            revert(again)
        with pytest.raises(ValueError, match="conversion_report: Net was not converted"):
            conversion_report(again)
    assert other.norm.weight.dtype == torch.float64 and torch.equal(other.norm.weight.float(), model.norm.weight)


def test_deepcopy_pickle_torch_save_and_the_keys_of_a_state_dict():
    model = fill(Net())
    x = torch.randn(2, C)
    was, keys = model(x), set(model.state_dict())
    convert(model, alpha_init=0.7)
    now = model(x)
    assert set(model.state_dict()) == keys | {f"{n}.alpha" for n in NAMES}
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), now) and len(conversion_report(other)) == 5
        assert torch.equal(revert(other)(x), was) and set(other.state_dict()) == keys
        assert isinstance(model.norm, DynamicTanh)  # the first is not touched
    fresh = convert(Net(), alpha_init=0.2)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), now)
    assert len(list(model.parameters())) == len({p for p in model.parameters()}) == len(list(Net().parameters())) + 5


def test_revert_follows_dtype_and_mode_and_keeps_what_was_trained_elsewhere():
    model = fill(Net())
    was = copy.deepcopy(model)
    convert(model).double().eval()
    with torch.no_grad():
        model.blocks[0].attn.weight.add_(1)
    revert(model)
    assert model.norm.weight.dtype == torch.float64 and not model.norm.training
    assert torch.equal(model.norm.weight.float(), was.norm.weight)
    assert torch.equal(model.blocks[0].attn.weight.float(), was.blocks[0].attn.weight + 1)
