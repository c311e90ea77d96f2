"""bfloat16 is for a model's own products: what a task computes of its outputs, and places in a sequence, stay exact."""

import pytest
import torch
from torch import nn

from dyt.config import compose
from dyt.run import assemble
from dyt.tasks import Place
from dyt.training.distributed import join
from models.hyena import Filters

from .helpers import TINY_CLASSIFIER, TINY_DINO, TINY_DIT, TINY_DNABERT, TINY_DT, TINY_MAE, TINY_WAV2VEC2

FAMILIES = {
    "dit": TINY_DIT,
    "mae": TINY_MAE,
    "dt": TINY_DT,
    "bases": TINY_DNABERT,
    "sequences": TINY_CLASSIFIER,
    "wav2vec2": TINY_WAV2VEC2,
    "dino": TINY_DINO,
}


class Exact(nn.Module):
    """A model that autocast does not reach."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        with torch.autocast("cpu", enabled=False):
            return self.model(*inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_computes_with_bf16_what_it_does_without(family):
    config = compose.load([*FAMILIES[family], "data.eval_batch_size=300"])  # bfloat16 has no 300 and no 257
    data, model, _, task = assemble(config, join("cpu"), 0)
    inputs, targets = task.prepare(*next(iter(data.eval_batches("val", limit=1))), Place(("val",), 0))
    model, found = Exact(model).eval(), []
    for bf16 in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found.append((task.measure(model, inputs, targets), task.loss(model, inputs, targets)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("how", ["autocast", "sharded"])
def test_a_hyena_filter_has_a_value_of_its_own_at_each_place(how):
    """Sharded weights are bfloat16 as such; places, which bfloat16 counts to 256 only, are not."""
    torch.manual_seed(0)
    filters = Filters(16, 1024, width=16, bands=2, frequency=10.0)
    weights = {k: v.bfloat16() if how == "sharded" else v for k, v in filters.state_dict().items()}
    filters.load_state_dict(weights)
    with torch.no_grad():
        exact = filters(1024)
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            found = (filters.bfloat16() if how == "sharded" else filters)(1024)
    torch.testing.assert_close(found.float(), exact, rtol=1e-6, atol=1e-6)
