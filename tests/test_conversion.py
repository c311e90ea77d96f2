"""convert(): somebody else's model."""

import logging

import pytest
import timm
import torch
from torch import nn

from dyt import DynamicTanh, convert


class LlamaRMSNorm(nn.Module):
    """As Hugging Face's: known by its name only."""

    def __init__(self, dim):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.ones(dim)), 1e-6

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def dynamic(model):
    return [m for m in model.modules() if isinstance(m, DynamicTanh)]


@pytest.mark.parametrize("name, count", [("test_vit", 0), ("test_convnext", 0), ("vit_tiny_patch16_224", 25)])
def test_timm_models(name, count, caplog):
    model = timm.create_model(name)
    found = sum(isinstance(m, nn.LayerNorm) for m in model.modules())
    images = torch.randn(2, 3, *model.default_cfg["input_size"][1:])
    with caplog.at_level(logging.INFO):
        out = convert(model, alpha_init=0.8)
    assert out is model and len(dynamic(model)) == found and found == (count or found) and found > 3
    assert not any(isinstance(m, nn.LayerNorm) for m in model.modules())
    assert f"replaced {found} norms" in caplog.text
    assert all(m.alpha.item() == pytest.approx(0.8) for m in dynamic(model))
    assert model(images).isfinite().all()


def test_huggingface_and_torch_rmsnorm_by_class_and_name():
    model = nn.Sequential(LlamaRMSNorm(8), nn.Linear(8, 8), nn.RMSNorm(8), nn.LayerNorm(8, elementwise_affine=False))
    convert(model.double().eval(), "dyt", bias=False)
    assert len(dynamic(model)) == 3
    assert model[0].weight.dtype == torch.float64 and not model[0].training and model[0].bias is None
    assert model[3].weight is None  # had no scale before, has none now
    assert model(torch.randn(2, 8, dtype=torch.float64)).shape == (2, 8)


def test_other_norms_and_the_unit_gain_preset():
    model = convert(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)), "dyt_unit_gain", alpha_init=0.25)
    assert model[0].weight[0].item() == 4.0
    assert isinstance(convert(nn.Sequential(nn.RMSNorm(8)), "layernorm")[0], nn.LayerNorm)
    assert isinstance(convert(nn.Sequential(nn.RMSNorm(8)), "none")[0], nn.Identity)


def test_refusals():
    with pytest.raises(ValueError, match="no LayerNorm or RMSNorm to replace"):
        convert(nn.Sequential(nn.Linear(8, 8)))
    with pytest.raises(ValueError, match=r"1 is a BatchNorm.*76.2 -> 68.9.*batchnorm='keep'"):
        convert(nn.Sequential(nn.LayerNorm(8), nn.BatchNorm1d(8)))
    kept = convert(nn.Sequential(nn.LayerNorm(8), nn.BatchNorm1d(8)), batchnorm="keep")
    assert isinstance(kept[0], DynamicTanh) and isinstance(kept[1], nn.BatchNorm1d)
    with pytest.raises(ValueError, match="did you mean 'alpha_init'"):
        convert(nn.Sequential(nn.LayerNorm(8)), alpha_int=0.5)
    with pytest.raises(ValueError, match="several axes at once"):
        convert(nn.Sequential(nn.LayerNorm((4, 8))))
    with pytest.raises(ValueError, match="the model is itself a norm"):
        convert(nn.LayerNorm(8))


def test_a_refused_model_is_left_as_it_was():
    model = nn.Sequential(nn.LayerNorm(8), nn.BatchNorm1d(8))
    with pytest.raises(ValueError):
        convert(model)
    assert isinstance(model[0], nn.LayerNorm)


def test_a_small_model_learns_after_conversion():
    torch.manual_seed(0)
    model = convert(nn.Sequential(nn.Linear(4, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 2)))
    x = torch.randn(64, 4)
    y = (x[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
