"""Weights of other libraries: each against that library's own class, where it is installed."""

import pytest
import torch
from torch import nn

from dyt import Derf, DynamicTanh, load_foreign, to_foreign

C = 6
X = torch.linspace(-3, 3, 4 * C).reshape(4, C)


def drawn(module: nn.Module) -> nn.Module:
    """The same module with random values everywhere."""
    generator = torch.Generator().manual_seed(1)
    for p in module.parameters():
        p.data = torch.rand(p.shape, generator=generator) + 0.2
    return module


class OfficialDyT(nn.Module):
    """As in jiachenzhu/DyT: its names, shapes and formula."""

    def __init__(self, normalized_shape, channels_last, alpha_init_value=0.5):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1) * alpha_init_value)
        self.weight, self.bias = nn.Parameter(torch.ones(normalized_shape)), nn.Parameter(torch.zeros(normalized_shape))

    def forward(self, x):
        return torch.tanh(self.alpha * x) * self.weight + self.bias


class OfficialDerf(OfficialDyT):
    """As in zlab-princeton/Derf."""

    def __init__(self, normalized_shape, alpha_init_value=0.5, shift_init_value=0.0):
        super().__init__(normalized_shape, True, alpha_init_value)
        self.shift = nn.Parameter(torch.ones(1) * shift_init_value)

    def forward(self, x):
        return torch.erf(self.alpha * x + self.shift) * self.weight + self.bias


def there_and_back(theirs, ours, library, **how):
    """Their weights in our layer compute what theirs does; written back, their strict loading takes them to the bit."""
    state = theirs.state_dict()
    before = {k: v.clone() for k, v in state.items()}
    ours.load_state_dict(load_foreign(state, **how))
    torch.testing.assert_close(ours(X), theirs(X), rtol=1e-6, atol=1e-6)
    back = to_foreign(ours.state_dict(), library, **how)
    theirs.load_state_dict(back)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=1e-6, atol=1e-6)
        assert value.shape == before[key].shape
    assert state.keys() == before.keys()


def test_the_official_code():
    there_and_back(drawn(OfficialDyT(C, True)), DynamicTanh(C), "official")
    there_and_back(drawn(OfficialDerf(C)), Derf(C), "official")


@pytest.mark.parametrize("beta", [True, False])
def test_liger_kernel(beta):
    """Its kernel needs a GPU; its names and shapes do not."""
    made = pytest.importorskip("liger_kernel.transformers.dyt").LigerDyT
    theirs = drawn(made(C, beta=beta))
    ours = DynamicTanh(C, bias=beta)
    ours.load_state_dict(load_foreign(theirs.state_dict()))
    want = torch.tanh(theirs.alpha * X) * theirs.gamma + (theirs.beta if beta else 0)
    torch.testing.assert_close(ours(X), want, rtol=1e-6, atol=1e-6)
    if torch.cuda.is_available():
        torch.testing.assert_close(theirs.cuda()(X.cuda()).cpu(), want, rtol=1e-5, atol=1e-5)
        theirs.cpu()
    back = to_foreign(ours.state_dict(), "liger")
    theirs.load_state_dict(back)
    assert set(back) == {"alpha", "gamma", *(["beta"] if beta else [])} and torch.equal(theirs.gamma, ours.weight)


@pytest.mark.parametrize("unit_offset", [False, True])
def test_x_transformers(unit_offset):
    library = pytest.importorskip("x_transformers.x_transformers")
    theirs = drawn(library.DynamicTanh(C, init_alpha=0.7, unit_offset=unit_offset))
    there_and_back(theirs, DynamicTanh(C), "x-transformers", unit_offset=unit_offset, init_alpha=0.7)
    there_and_back(drawn(library.Derf(C, unit_offset=unit_offset)), Derf(C), "x-transformers", unit_offset=unit_offset)


def test_a_whole_model_of_x_transformers():
    """Its encoder with its norms swapped for ours gives its outputs; what is no norm passes through untouched."""
    library = pytest.importorskip("x_transformers")
    own = pytest.importorskip("x_transformers.x_transformers")
    encoder = library.Encoder(dim=8, depth=2, heads=2, attn_dim_head=4, use_dynamic_tanh=True).eval()
    assert isinstance(encoder.final_norm, own.DynamicTanh)
    for name, p in encoder.named_parameters():
        if name.endswith(("pre_tanh_scale", "gamma", "beta")):
            p.data = torch.rand_like(p) - 0.3
    x = torch.randn(2, 5, 8)
    want, state = encoder(x), encoder.state_dict()
    norms = [(name, m) for name, m in encoder.named_modules() if isinstance(m, own.DynamicTanh)]
    assert len(norms) == 5
    for name, _ in norms:
        parent, _, child = name.rpartition(".")
        setattr(encoder.get_submodule(parent), child, DynamicTanh(8))
    renamed = load_foreign(state, unit_offset=True)
    encoder.load_state_dict(renamed)
    torch.testing.assert_close(encoder(x), want, rtol=1e-5, atol=1e-5)
    others = [k for k in state if k in renamed]
    assert others and all(renamed[k] is state[k] for k in others) and len(renamed) == len(state)


def test_equinox_has_one_alpha_a_channel():
    alpha, weight, bias = torch.rand(3, C)
    state = {"norm.alpha": alpha, "norm.weight": weight, "norm.bias": bias}
    ours = nn.ModuleDict({"norm": DynamicTanh(C, alpha_shape="channel")})
    ours.load_state_dict(load_foreign(state))
    torch.testing.assert_close(ours["norm"](X), torch.tanh(alpha * X) * weight + bias)
    assert to_foreign(ours.state_dict(), "equinox")["norm.alpha"].tolist() == alpha.tolist()
    one = to_foreign(DynamicTanh(C, 0.3).state_dict(), "equinox")
    assert one["alpha"].shape == (C,) and one["alpha"][C - 1].item() == pytest.approx(0.3)
    with pytest.raises(ValueError, match="norm has one alpha a channel, which only library='equinox' has"):
        to_foreign(ours.state_dict(), "liger")


def test_however_alpha_was_learned():
    for how in ("ratio", "log", "fixed"):
        for library, name in (("official", "alpha"), ("x-transformers", "pre_tanh_scale")):
            state = to_foreign(DynamicTanh(C, 0.25, alpha=how).state_dict(), library)
            assert state[name].item() == pytest.approx(0.25) and len(state) == 3, (how, library)


def test_what_is_no_dyt_passes_through_untouched():
    lone = {"snake.alpha": torch.ones(C), "snake.beta": torch.ones(C), "LayerNorm.gamma": torch.ones(C)}
    lone |= {"LayerNorm.beta": torch.ones(C), "lora.alpha": torch.tensor(16.0), "lora.weight": torch.ones(C, C)}
    lone |= {"ls1.gamma": torch.ones(C), "act.alpha": torch.ones(1), "steps": 5}
    lone |= {"block.alpha": torch.ones(1), "block.gamma": torch.ones(C), "block.extra": torch.ones(2)}
    out = load_foreign({**lone, "n.alpha": torch.ones(1), "n.gamma": torch.ones(C)})
    assert {k: v for k, v in out.items() if not k.startswith("n.")} == lone and {"n.alpha", "n.weight"} < out.keys()


def test_an_alpha_without_axes_gets_one():
    layer = DynamicTanh(C)
    layer.load_state_dict(load_foreign({"alpha": torch.tensor(0.3), "scale": 2 * torch.ones(C), "bias": torch.ones(C)}))
    torch.testing.assert_close(layer(X), 2 * torch.tanh(0.3 * X) + 1)


ONE, MANY = torch.ones(1), torch.ones(C)


@pytest.mark.parametrize(
    "state, says",
    [
        ({"a.pre_tanh_scale": ONE[0], "a.gamma": MANY}, "a.pre_tanh_scale is x-transformers'.*unit_offset"),
        ({"alpha": ONE[0], "s": ONE[0], "gamma": MANY, "beta": MANY}, "s is x-transformers'.* type unit_offset=True"),
        ({"a.alpha": ONE, "a.gamma": MANY, "a.weight": MANY}, "a has both gamma and weight; which one is meant"),
        ({"alpha": ONE, "pre_tanh_scale": ONE, "weight": MANY}, "the layer has both alpha and pre_tanh_scale"),
        ({"a.alpha": torch.ones(4), "a.gamma": MANY}, "a.alpha has 4 values for 6 channels"),
        ({"norm.weight": MANY, "norm.bias": MANY}, r"no DyT or Derf is among these 2 keys \(norm.weight, norm.bias"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_one_line(state, says):
    with pytest.raises(ValueError, match=f"load_foreign: {says}") as error:
        load_foreign(state)
    assert "\n" not in str(error.value)


def test_what_a_library_does_not_have_is_one_line():
    with pytest.raises(ValueError, match="library='keras': choose from official, liger"):
        to_foreign(DynamicTanh(C).state_dict(), "keras")
    with pytest.raises(ValueError, match="the layer is a Derf, which liger does not have"):
        to_foreign(Derf(C).state_dict(), "liger")
    with pytest.raises(ValueError, match="no DyT or Derf with gamma"):
        to_foreign(nn.LayerNorm(C).state_dict(), "official")
