"""Every norm equals its formula in float64, starts as it should, and takes every option."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dyt import Derf, DynamicTanh
from dyt.config.compose import norm_arguments, options
from dyt.norms import NORMS, NormFactory
from dyt.norms.statistical import layer_norm_by_hand
from dyt.training.optim import build

B, T, C = 3, 5, 8
SQUASH = {
    "tanh": torch.tanh,
    "hardtanh": lambda x: x.clamp(-1, 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "erf": torch.erf,
    "isru": lambda x: x / torch.sqrt(1 + x**2),
    "identity": lambda x: x,
}


def drawn(module: nn.Module) -> nn.Module:
    """The module in float64 with every parameter at random, so that no formula passes by its initial values."""
    generator = torch.Generator().manual_seed(1)
    module = module.double()
    for p in module.parameters():
        p.data = 0.5 + torch.rand(p.shape, generator=generator, dtype=torch.float64)
    return module


@pytest.fixture
def x():
    return torch.randn(B, T, C, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 + 0.3


@pytest.mark.parametrize("squash", SQUASH)
@pytest.mark.parametrize("alpha_shape", ["layer", "channel"])
def test_dyt_is_its_formula(x, squash, alpha_shape):
    m = drawn(DynamicTanh(C, squash=squash, alpha_shape=alpha_shape))
    want = m.weight * SQUASH[squash](m.alpha * x) + m.bias
    torch.testing.assert_close(m(x), want, rtol=1e-14, atol=1e-14)
    assert m.alpha.shape == ((C,) if alpha_shape == "channel" else (1,))


def test_derf_is_its_formula(x):
    m = drawn(Derf(C))
    want = m.weight * torch.special.erf(m.alpha * x + m.shift) + m.bias
    torch.testing.assert_close(m(x), want, rtol=1e-14, atol=1e-14)


def test_statistical_norms_are_their_formulas(x):
    ln = drawn(NormFactory("layernorm")(C, "attn", eps=1e-3))
    torch.testing.assert_close(ln(x), layer_norm_by_hand(x, ln.weight, ln.bias, 1e-3), rtol=1e-12, atol=1e-12)

    rms = drawn(NormFactory("rmsnorm", eps=1e-3)(C, "attn"))
    want = x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-3) * rms.weight
    torch.testing.assert_close(rms(x), want, rtol=1e-12, atol=1e-12)

    for kind, axes in (("batchnorm", (0, 1)), ("instancenorm", (1,))):
        m = drawn(NormFactory(kind, eps=1e-3)(C, "attn"))
        weight, bias = dict(m.named_parameters())["norm.weight"], dict(m.named_parameters())["norm.bias"]
        mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True, unbiased=False)
        want = (x - mean) / torch.sqrt(var + 1e-3) * weight + bias
        torch.testing.assert_close(m(x), want, rtol=1e-12, atol=1e-12)

    assert NormFactory("none")(C, "attn")(x) is x


def test_published_start():
    m = DynamicTanh(C)
    assert m.alpha.shape == (1,) and m.alpha.item() == 0.5
    assert torch.equal(m.weight, torch.ones(C)) and torch.equal(m.bias, torch.zeros(C))
    assert list(m.state_dict()) == ["alpha", "weight", "bias"]
    d = Derf(C)
    assert d.alpha.item() == 0.5 and d.shift.shape == (1,) and d.shift.item() == 0.0


def test_official_checkpoint_loads(x):
    """Keys and shapes as in jiachenzhu/DyT: alpha (1,), weight (C,), bias (C,)."""
    official = {"alpha": torch.tensor([0.7]), "weight": torch.full((C,), 2.0), "bias": torch.full((C,), 0.1)}
    m = DynamicTanh(C, alpha_init=0.5)
    m.load_state_dict(official)
    torch.testing.assert_close(m(x.float()), 2 * torch.tanh(0.7 * x.float()) + 0.1)


def test_options():
    fixed = DynamicTanh(C, 0.3, alpha="fixed")
    assert "alpha" in dict(fixed.named_buffers()) and fixed.alpha.item() == pytest.approx(0.3)
    absent = DynamicTanh(C, 0.3, alpha="absent")
    assert absent.alpha is None
    torch.testing.assert_close(absent(torch.ones(1, C)), torch.full((1, C), math.tanh(1.0)))
    gain = DynamicTanh(C, 0.2, gamma_init="inverse_alpha")
    torch.testing.assert_close(gain.weight.data, torch.full((C,), 5.0))
    torch.testing.assert_close(gain(torch.full((1, C), 1e-4)), torch.full((1, C), 1e-4))  # gain 1 near zero
    assert DynamicTanh(C, gamma_init=3.0).weight[0].item() == 3.0
    bare = DynamicTanh(C, affine=False)
    assert [n for n, _ in bare.named_parameters()] == ["alpha"]
    assert [n for n, _ in DynamicTanh(C, bias=False).named_parameters()] == ["alpha", "weight"]


@pytest.mark.parametrize("kind", sorted(NORMS))
def test_channels_first_is_channels_last_moved(kind):
    images = torch.randn(2, C, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = drawn(NormFactory(kind)(C, "stem", channels_last=False))
    last = drawn(NormFactory(kind)(C, "stem"))
    want = last(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(first(images), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", options("norm"))
def test_yaml_gives_every_argument_and_its_default(name):
    """A norm's yaml is complete: it lists the arguments of the class, so that each can be set without a +."""
    import inspect

    import yaml

    from dyt.config.compose import CONFIGS

    text = (CONFIGS / "norm" / f"{name}.yaml").read_text()
    kind = "dyt" if name == "dyt_unit_gain" else yaml.safe_load(text)["kind"]
    ours = {k: v.default for k, v in inspect.signature(NORMS[kind]).parameters.items()}
    for shared in ("dim", "channels_last", "device", "dtype"):
        ours.pop(shared, None)
    assert set(norm_arguments(name)) == set(ours)
    if name != "dyt_unit_gain":
        assert norm_arguments(name) == ours


@pytest.mark.parametrize("make", [DynamicTanh, Derf, lambda c: DynamicTanh(c, alpha_shape="channel")])
def test_gradients(make, x):
    m = drawn(make(C))
    assert torch.autograd.gradcheck(
        lambda x, *p: torch.func.functional_call(m, dict(zip(dict(m.named_parameters()), p, strict=True)), (x,)),
        (x.requires_grad_(), *[p.detach().requires_grad_() for p in m.parameters()]),
    )


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    alpha=st.floats(-3, 3, allow_nan=False),
    scale=st.floats(0, 1e4),
)
def test_dyt_of_any_shape_is_bounded_by_gamma_and_beta(shape, alpha, scale):
    x = torch.randn(*shape, C) * scale
    y = DynamicTanh(C, alpha)(x)
    assert y.shape == x.shape and y.abs().max() <= 1.0


def test_site_arguments_and_counts():
    norm = NormFactory("dyt", {"attn": {"alpha_init": 0.8, "bias": None}, "mlp": None}, alpha_init=0.2, bias=False)
    attn, mlp = norm(C, "attn"), norm(C, "mlp")
    assert attn.alpha.item() == pytest.approx(0.8) and attn.bias is None
    assert mlp.alpha.item() == pytest.approx(0.2)
    assert norm.describe() == "dyt at attn 1, mlp 1"
    with pytest.raises(ValueError, match="norm.sites.stem.alpha_init: m has no site 'stem'; its sites: attn"):
        bad = NormFactory("dyt", {"stem": {"alpha_init": 1.0}})
        bad(C, "attn")
        bad.check_sites("m")


def test_a_site_can_have_another_norm():
    """With its own defaults, and what both take: LayerNorm has a bias to leave out, and no alpha."""
    sites = {"attn": {"kind": "layernorm"}, "mlp": {"kind": "derf", "alpha_init": 0.8}}
    norm = NormFactory("dyt", sites, alpha_init=0.2, bias=False)
    attn, mlp, final = (norm(C, site, eps=1e-3) for site in ("attn", "mlp", "final"))
    assert isinstance(attn, nn.LayerNorm) and attn.bias is None and attn.eps == 1e-3
    assert isinstance(mlp, Derf) and mlp.alpha.item() == pytest.approx(0.8) and mlp.bias is None
    assert type(final) is DynamicTanh and final.alpha.item() == pytest.approx(0.2)
    assert norm.describe() == "layernorm at attn 1; derf at mlp 1; dyt at final 1"
    with pytest.raises(ValueError, match="norm.sites.attn.kind 'layernrm' is unknown; choose from batchnorm"):
        NormFactory("dyt", {"attn": {"kind": "layernrm"}})
    with pytest.raises(ValueError, match="norm.sites.attn.alpha_init: unknown key"):
        NormFactory("dyt", {"attn": {"kind": "layernorm", "alpha_init": 0.8}})


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"squash": "tan"}, "norm.squash=tan: choose from tanh, hardtanh"),
        ({"alpha_init": "abc"}, "norm.alpha_init=abc: needs a number"),
        ({"alpha_init": True}, "norm.alpha_init=True: needs a number"),
        ({"gamma_init": "two"}, "norm.gamma_init=two: choose from inverse_alpha or a number"),
        ({"affine": 1}, "norm.affine=1: needs true or false"),
        ({"alpa": 1}, "norm.alpa: unknown key; did you mean 'alpha'"),
    ],
)
def test_wrong_arguments_say_what_to_type(arguments, message):
    with pytest.raises(ValueError, match=message):
        NormFactory("dyt", **arguments)


def test_wrong_use_in_code_says_what_to_type():
    with pytest.raises(ValueError, match="squash='tan': choose from tanh"):
        DynamicTanh(C, squash="tan")
    with pytest.raises(ValueError, match="alpha_init other than 0"):
        DynamicTanh(C, 0.0, gamma_init="inverse_alpha")
    with pytest.raises(ValueError, match="at least one channel"):
        DynamicTanh(0)
    with pytest.raises(ValueError, match="choose from batchnorm, derf, dyt"):
        NormFactory("dty")


def test_no_weight_decay_for_one_dimensional_parameters():
    whole = nn.Module()
    whole.blocks = model = nn.ModuleList(
        [nn.Linear(C, C), Derf(C), DynamicTanh(C, alpha_shape="channel"), nn.LayerNorm(C)]
    )

    def decayed(**more):
        optim = {"kind": "adamw", "lr": 1.0, "betas": (0.9, 0.999), "weight_decay": 0.3, "decay_gain": False, **more}
        optimizer = build(whole, optim)
        return optimizer, {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}

    gains = {id(model[i].weight) for i in (1, 2, 3)}
    for kind in ("adamw", "sgd", "muon"):
        assert decayed(kind=kind)[1] == {id(model[0].weight)}
        assert decayed(kind=kind, decay_gain=True)[1] == {id(model[0].weight)} | gains
    optimizer, _ = decayed()
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


@pytest.mark.parametrize("make", [DynamicTanh, Derf])
@pytest.mark.parametrize("alpha_shape", ["layer", "channel"])
def test_however_alpha_is_learned_the_start_and_the_formula_are_the_same(make, alpha_shape, x):
    published = make(C, 0.3, alpha_shape=alpha_shape).double()
    for how, parameter in (("ratio", "alpha_ratio"), ("log", "log_alpha")):
        m = make(C, 0.3, alpha=how, alpha_shape=alpha_shape).double()
        assert parameter in dict(m.named_parameters()) and "alpha" not in dict(m.named_parameters())
        torch.testing.assert_close(m(x), published(x), rtol=1e-7, atol=1e-7)  # alpha0 began in float32
        torch.testing.assert_close(m.slope(), published.alpha, rtol=1e-7, atol=0)


def test_the_same_relative_step_whatever_alpha0_is():
    """One step of Adam: as published alpha moves by the learning rate, as a ratio or logarithm by that share of it."""
    lr = 1e-2
    for alpha0 in (1.0, 0.05):
        for how in ("learned", "ratio", "log"):
            m = DynamicTanh(C, alpha0, alpha=how).double()
            optimizer = torch.optim.Adam([p for n, p in m.named_parameters() if "alpha" in n], lr=lr)
            x = torch.linspace(-3, 3, C, dtype=torch.float64)
            (m(x) * x).sum().backward()  # the larger alpha, the larger: a step down
            optimizer.step()
            share = 1 - m.slope().item() / alpha0
            assert share == pytest.approx(lr / alpha0 if how == "learned" else lr, rel=2e-2)


@pytest.mark.parametrize("alpha", [30.0, 0.002, -0.1])
def test_a_ratio_starts_at_1_from_whatever_alpha_it_is_given(alpha):
    """A checkpoint's or a calibrated alpha is the new alpha0: else Adam's step is lr / r of it, once up to 250%."""
    published, given = DynamicTanh(C).double(), DynamicTanh(C, alpha="ratio").double()
    published.set_slope(torch.tensor([alpha]))
    given.set_slope(torch.tensor([alpha]))
    loaded = DynamicTanh(C, alpha="ratio").double()
    loaded.load_state_dict(published.state_dict())
    for m in (given, loaded):
        assert m.slope().item() == pytest.approx(alpha, rel=1e-7) and m.alpha_ratio.item() == 1.0
        optimizer = torch.optim.Adam([m.alpha_ratio], lr=1e-2)
        (m.slope() ** 2).sum().backward()
        optimizer.step()
        assert m.slope().item() / alpha == pytest.approx(0.99, rel=1e-4)
    again = DynamicTanh(C, alpha="ratio").double()
    again.load_state_dict(loaded.state_dict())
    assert torch.equal(again.slope(), loaded.slope())


def test_an_alpha_without_a_logarithm_is_refused_and_0_stays_learnable():
    for alpha in (-0.1, 0.0):
        m = DynamicTanh(C)
        m.set_slope(torch.tensor([alpha]))
        whole = nn.ModuleDict({"norm": DynamicTanh(C, alpha="log")})
        with pytest.raises(RuntimeError, match=f"norm: alpha is {alpha:.3g}, not above 0"):
            whole.load_state_dict({f"norm.{k}": v for k, v in m.state_dict().items()})
        assert whole["norm"].slope().item() == pytest.approx(0.5)
    ratio = DynamicTanh(C, 0.3, alpha="ratio")
    ratio.load_state_dict(m.state_dict())
    ratio(torch.ones(2, C)).sum().backward()
    assert ratio.slope().item() == 0 and ratio.alpha0.item() == pytest.approx(0.3) and ratio.alpha_ratio.grad.item() > 0


@pytest.mark.parametrize("to", ["learned", "ratio", "log", "fixed"])
def test_a_checkpoint_is_assigned_to_layers_on_meta(to, x):
    old, new = DynamicTanh(C, 0.2).double(), DynamicTanh(C, 0.7, alpha=to, device="meta")
    new.load_state_dict(old.state_dict(), assign=True)
    assert not any(t.is_meta for t in (*new.parameters(), *new.buffers()))
    torch.testing.assert_close(new(x), old(x), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("make", [DynamicTanh, Derf])
@pytest.mark.parametrize("to", ["learned", "ratio", "log", "fixed"])
@pytest.mark.parametrize("of", ["learned", "ratio", "log", "fixed"])
def test_a_checkpoint_loads_however_alpha_was_learned(make, of, to, x):
    old, new = make(C, 0.2, alpha=of).double(), make(C, 0.7, alpha=to).double()
    for p in old.parameters():
        p.data.mul_(1.3)
    state = old.state_dict()
    before = {k: v.clone() for k, v in state.items()}
    new.load_state_dict(state)
    torch.testing.assert_close(new(x), old(x), rtol=1e-12, atol=1e-12)
    assert {k: v.tolist() for k, v in state.items()} == {k: v.tolist() for k, v in before.items()}  # not changed
    again = make(C, 0.2, alpha=of).double()
    again.load_state_dict(old.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), old.parameters(), strict=True))


def test_alpha_that_cannot_be_learned_so_is_refused():
    with pytest.raises(ValueError, match="alpha='ratio' needs alpha_init other than 0"):
        DynamicTanh(C, 0.0, alpha="ratio")
    with pytest.raises(ValueError, match="alpha='log' needs alpha_init above 0, not -0.5"):
        DynamicTanh(C, -0.5, alpha="log")
    with pytest.raises(ValueError, match="alpha='rate': choose from learned, ratio, log, fixed, absent"):
        DynamicTanh(C, alpha="rate")


@pytest.mark.parametrize(
    "kind", ["rmsnorm_detached", "l1norm", "maxnorm", "grouprms", "signedsqrt", "runningrms", "gatednorm"]
)
def test_norms_made_on_meta_come_to_their_start(kind):
    torch.manual_seed(3)
    start = NormFactory(kind)(16, "attn").state_dict()
    with torch.device("meta"):
        m = NormFactory(kind)(16, "attn")
    m.to_empty(device="cpu")
    for value in (*m.parameters(), *m.buffers()):
        value.data.fill_(float("nan"))
    torch.manual_seed(3)
    for part in (m, *m.children()):
        part.reset_parameters()
    assert m.state_dict().keys() == start.keys()
    assert all(torch.equal(value, start[key]) for key, value in m.state_dict().items())


# -- norms that take RMSNorm apart ---------------------------------------------------------------------------------


def root_mean_square(x, eps):
    return ((x**2).sum(-1, keepdim=True) / x.shape[-1] + eps) ** 0.5


PLAIN = {  # what each divides by, written out
    "rmsnorm_detached": lambda x, eps: root_mean_square(x, eps),
    "l1norm": lambda x, eps: x.abs().sum(-1, keepdim=True) / x.shape[-1] + eps,
    "maxnorm": lambda x, eps: x.abs().sort(-1).values[..., -1:] + eps,
    "grouprms": lambda x, eps: torch.cat([root_mean_square(p, eps).expand_as(p) for p in x.split(4, -1)], -1),
    "signedsqrt": lambda x, eps: (x.abs() + eps) ** 0.5,
    "runningrms": lambda x, eps: ((x**2).sum() / x.numel() + eps) ** 0.5,  # of its first batch
}
SET = {"grouprms": {"group_size": 4}}


@pytest.mark.parametrize("kind", PLAIN)
def test_divided_norms_are_their_formulas(kind, x):
    m = drawn(NormFactory(kind, eps=1e-3, **SET.get(kind, {}))(C, "attn"))
    torch.testing.assert_close(m(x), m.weight * x / PLAIN[kind](x, 1e-3), rtol=1e-12, atol=1e-12)
    assert [n for n, _ in NormFactory(kind, affine=False)(C, "attn").named_parameters()] == []


def test_signed_sqrt_far_from_zero_is_the_signed_square_root():
    m = NormFactory("signedsqrt")(C, "attn").double()
    y = m(torch.tensor([-9.0, -4.0, 0.0, 0.25, 1.0, 4.0, 16.0, 100.0], dtype=torch.float64))
    torch.testing.assert_close(
        y.detach(), torch.tensor([-3, -2, 0, 0.5, 1, 2, 4, 10], dtype=torch.float64), rtol=3e-5, atol=0
    )


@pytest.mark.parametrize("coupling", [0.0, 0.1, 0.5, 1.0])
def test_the_denominator_hands_back_a_share_of_its_gradient(coupling, x):
    """dL/dx_j = w_j g_j / r - coupling x_j / (C r^3) sum_i w_i g_i x_i: RMSNorm's, its second term scaled."""
    m = drawn(NormFactory("rmsnorm_detached", coupling=coupling, eps=1e-3)(C, "attn"))
    rms = drawn(NormFactory("rmsnorm", eps=1e-3)(C, "attn"))
    x.requires_grad_()
    g = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(m(x), rms(x), rtol=1e-12, atol=1e-12)  # forward nothing changes
    (found,) = torch.autograd.grad(m(x), x, g)
    with torch.no_grad():
        r, wg = root_mean_square(x, 1e-3), m.weight * g
        want = wg / r - coupling * x / (C * r**3) * (wg * x).sum(-1, keepdim=True)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-12)
    if coupling == 1.0:
        torch.testing.assert_close(found, torch.autograd.grad(rms(x), x, g)[0], rtol=1e-12, atol=1e-12)
    if coupling == 0.0:  # no channel's gradient depends on another's
        only = torch.zeros_like(g)
        only[..., 3] = 1.0
        alone = torch.autograd.grad(m(x), x, only)[0]
        assert alone[..., 3].abs().min() > 0 and alone[..., [i for i in range(C) if i != 3]].abs().max() == 0


@pytest.mark.parametrize("kind", ["l1norm", "maxnorm", "grouprms", "signedsqrt", "gatednorm"])
def test_gradients_of_norms_that_detach_nothing(kind, x):
    m = drawn(NormFactory(kind, **SET.get(kind, {}))(C, "attn"))
    assert torch.autograd.gradcheck(
        lambda x, *p: torch.func.functional_call(m, dict(zip(dict(m.named_parameters()), p, strict=True)), (x,)),
        (x[:1, :2].requires_grad_(), *[p.detach().requires_grad_() for p in m.parameters()]),
    )


def test_running_rms_follows_its_batches_and_evaluates_as_it_stands(x):
    m = NormFactory("runningrms", momentum=0.25, eps=0.0)(C, "attn").double()
    assert torch.equal(m.eval()(x), x)  # nothing seen yet
    first, second = x.square().mean(), (3 * x).square().mean()
    torch.testing.assert_close(m.train()(x), x / first.sqrt())
    mixed = 0.75 * first + 0.25 * second
    x = x.requires_grad_()
    torch.testing.assert_close(m(3 * x), 3 * x / mixed.sqrt())
    torch.testing.assert_close(m.mean_square, mixed[None])
    (slope,) = torch.autograd.grad(m.eval()(x).sum(), x)
    torch.testing.assert_close(slope, torch.full_like(x, 1 / mixed.sqrt().item()))  # element-wise, one slope for all
    torch.testing.assert_close(m.mean_square, mixed[None])  # evaluation changes nothing
    loaded = NormFactory("runningrms", eps=0.0)(C, "attn").double()
    loaded.load_state_dict(m.state_dict())
    assert torch.equal(loaded.eval()(x), m(x))


def test_two_batches_before_one_backward(x):
    """Accumulated gradients: the buffer moves on between a forward and its backward."""
    m = NormFactory("runningrms")(C, "attn").double()
    (m(x).sum() + m(5 * x).sum()).backward()
    assert m.weight.grad.isfinite().all()


@pytest.mark.parametrize("inner", ["rmsnorm", "dyt"])
def test_gated_norm_is_its_formula(inner, x):
    m = drawn(NormFactory("gatednorm", inner=inner, alpha_init=0.7, rank=3, eps=1e-3)(C, "attn"))
    assert m.down.shape == (3, C) and m.up.shape == (C, 3)
    if inner == "dyt":
        y = m.norm.weight * torch.tanh(m.norm.alpha * x) + m.norm.bias
    else:
        y = m.norm.weight * x / root_mean_square(x, 1e-3)
    inside = y @ m.down.T
    gate = 1 / (1 + torch.exp(-((inside / (1 + torch.exp(-inside))) @ m.up.T)))
    torch.testing.assert_close(m(x), gate * y, rtol=1e-12, atol=1e-12)
    fresh = NormFactory("gatednorm", inner=inner)(C, "attn")
    torch.testing.assert_close(fresh(x.float()), fresh.norm(x.float()) / 2)  # every gate starts at 1/2


def test_a_width_that_groups_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="norm.group_size=8: 12 channels cannot be divided into groups of that size"):
        NormFactory("grouprms")(12, "attn")
    with pytest.raises(ValueError, match="norm.rank=0: must be at least 1"):
        NormFactory("gatednorm", rank=0)(C, "attn")
