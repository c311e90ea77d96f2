"""The probe: what it measures is what is there, and training does not notice it."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dyt.training.probe import best_line, best_tanh, plain

from .helpers import TINY_DINO, TINY_DIT, TINY_GPT, TINY_VIT, rows_of, shrunk, train
from .test_trainer import stop_at


def test_best_tanh_finds_a_tanh_and_a_line():
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 3
    r2, a, b = best_tanh(x, 2.5 * torch.tanh(0.8 * x))
    assert r2 > 0.99999 and a == pytest.approx(2.5, rel=0.01) and b == pytest.approx(0.8, rel=0.01)
    assert best_line(x, 2.5 * torch.tanh(0.8 * x)) < 0.9
    assert best_line(x, -3 * x) == pytest.approx(1.0)
    assert best_tanh(x, 3 * x)[0] > 0.9999  # a line is a tanh of small slope


def test_plain_is_the_norm_without_its_scale_and_shift():
    x = torch.randn(4, 7, 16)
    for norm in (nn.LayerNorm(16), nn.RMSNorm(16, eps=1e-5)):
        nn.init.constant_(norm.weight, 3.0)
        torch.testing.assert_close(3 * plain(norm, x), norm(x))
    assert plain(nn.Identity(), x) is None


def test_the_probe_sees_pictures_of_all_classes(monkeypatch):
    from dyt.training import probe

    seen = []
    init = probe.Probe.__init__

    def spied(self, *args):
        init(self, *args)
        seen.append(self.targets)

    monkeypatch.setattr(probe.Probe, "__init__", spied)
    train(*TINY_VIT, "trainer.max_steps=1", "trainer.eval_batches=1", "trainer.probe_every=1")
    assert len(seen[0]) == probe.SAMPLES and set(seen[0].tolist()) == set(range(10))


@pytest.mark.parametrize(
    "tiny, norm",
    [
        *((TINY_GPT, norm) for norm in ("layernorm", "dyt", "derf", "none")),
        *((tiny, norm) for tiny in (TINY_VIT, TINY_DIT) for norm in ("layernorm", "dyt")),
    ],
    ids=lambda of: of if isinstance(of, str) else of[0].removeprefix("model=").removesuffix("_nano"),
)
def test_training_does_not_notice_the_probe(tiny, norm):
    words = [*tiny, f"norm={norm}", "trainer.max_steps=5", "trainer.log_every=1", "trainer.eval_batches=1"]
    _, without = train(*words, out="without")
    _, with_it = train(*words, "trainer.probe_every=2", out="with")
    rows = rows_of(with_it)
    probed = [row["step"] for row in rows if any(k.startswith("probe/") for k in row)]
    assert probed == [1, 2, 4, 5]
    assert [{k: v for k, v in row.items() if not k.startswith("probe/")} for row in rows] == rows_of(without)
    last = {k: v for k, v in rows[-1].items() if k.startswith("probe/")}
    block = "probe/blocks.1." + ("norm1" if tiny is TINY_VIT else "attn_norm")
    assert last[f"{block}/in_std"] > 0 and last["probe/blocks.1/grad_norm"] > 0
    assert (f"{block}/alpha" in last) == (f"{block}/saturated" in last) == (norm in ("dyt", "derf"))
    assert (f"{block}/tanh_r2" in last) == (norm == "layernorm")
    summary = json.loads((with_it / "summary.json").read_text())
    assert not any(k.startswith("probe/") for k in summary["final"])


@pytest.mark.parametrize("norm", ["layernorm", "dyt"])
def test_a_norm_that_stands_within_another_module_has_its_gradient_too(norm):
    """A ConvNeXt's stem has its channels second, where a LayerNorm stands in a module that turns."""
    words = [*shrunk("convnext_base"), f"norm={norm}", "data.batch_size=8", "data.eval_batch_size=8"]
    _, folder = train(*words, "trainer.max_steps=1", "trainer.probe_every=1", "trainer.eval_batches=1")
    last = rows_of(folder)[-1]
    own = {key.rpartition("/")[0] for key in last if key.startswith("probe/") and key.endswith("/in_std")}
    assert len(own) == 14 and "probe/stem.1" in own
    assert all(last[f"{name}/grad_norm"] > 0 for name in own)


def test_saturation_and_alpha_are_the_layers_own():
    """By hand: the share of a known input with abs(alpha x) > 2."""
    from dyt import DynamicTanh
    from dyt.training.probe import _statistics

    layer = DynamicTanh(4, alpha_init=0.5)
    x = torch.tensor([[-10.0, -1.0, 1.0, 5.0]])
    found = _statistics("a", layer, x)
    assert found["probe/a/saturated"] == 0.5 and found["probe/a/alpha"] == 0.5
    assert found["probe/a/in_mean"] == pytest.approx(-1.25)


def test_derfs_shift_counts_in_what_is_saturated():
    """alpha x + s is -4, 1.5, 2.5 and 3.5; without s it would be above 2 in two places alone."""
    from dyt import Derf
    from dyt.training.probe import _statistics

    layer = Derf(4, alpha_init=0.5, shift_init=1.0)
    assert _statistics("a", layer, torch.tensor([[-10.0, 1.0, 3.0, 5.0]]))["probe/a/saturated"] == 0.75


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.RMSNorm(4)], ids=lambda norm: type(norm).__name__)
def test_what_is_all_curve_has_the_tanhs_share_and_not_the_lines(norm):
    """Tokens of 1 and of 9 in size, half of their channels negative: the norm makes each its sign.

    The best line of the points (1, 1) and (9, 1) has the slope 10 / 82 and explains 10^2 / (2 x 82) = 0.6098 of them.
    """
    from dyt.training.probe import _statistics

    nn.init.constant_(norm.weight, 3.0)  # which is not looked at
    found = _statistics("a", norm, torch.tensor([[1.0, -1.0, 1.0, -1.0], [9.0, 9.0, -9.0, -9.0]]))
    assert found["probe/a/line_r2"] == pytest.approx(100 / 164, abs=1e-4)
    assert found["probe/a/tanh_r2"] > 0.9999


def test_a_blocks_gradient_norm_is_of_all_its_parameters_and_a_norms_of_its_own():
    from dyt.config.compose import load
    from dyt.run import assemble
    from dyt.training.distributed import join
    from dyt.training.probe import SAMPLES, Probe

    world = join("cpu")
    data, model, norms, task = assemble(load([*TINY_GPT, "norm=dyt"]), world, 0)
    model.train()
    row = Probe(model, norms.made, task, data, world).row(torch.autocast("cpu", enabled=False))
    assert model.training and all(p.grad is None for p in model.parameters())

    tokens = torch.tensor(data.tokens["val"][: SAMPLES * 16 + 1].astype("int64"))
    logits = model.eval()(tokens[:-1].view(SAMPLES, 16))
    F.cross_entropy(logits.flatten(0, 1), tokens[1:]).backward()
    squares = {name: p.grad.double().square().sum().item() for name, p in model.named_parameters()}
    owners = ["blocks.0", "blocks.1", *(f"blocks.{i}.{n}_norm" for i in (0, 1) for n in ("attn", "mlp")), "final_norm"]
    want = {n: sum(v for key, v in squares.items() if key.startswith(f"{n}.")) ** 0.5 for n in owners}
    found = {key.split("/")[1]: value for key, value in row.items() if key.endswith("/grad_norm")}
    assert found == pytest.approx(want, rel=1e-4)


def test_resuming_keeps_each_probe_once(monkeypatch):
    words = [*TINY_GPT, "norm=dyt", "trainer.log_every=1", "trainer.eval_batches=1", "trainer.probe_every=3"]
    words += ["trainer.max_steps=8"]
    _, whole = train(*words, out="whole")
    back = stop_at(monkeypatch, 3)
    first, folder = train(*words, out="again")
    back()
    assert (first["status"], first["step"]) == ("interrupted", 4)
    second, same = train(*words, out="again")
    assert second["status"] == "finished" and same == folder
    probed = [row["step"] for row in rows_of(folder) if any(key.startswith("probe/") for key in row)]
    assert probed == [1, 3, 6, 8] and rows_of(folder) == rows_of(whole)


def test_of_a_norm_that_runs_twice_the_first_call_counts():
    """DINO's student sees the large views, then the small ones."""
    from dyt.training.loop import Trainer

    seen = []
    loaded = Trainer.__init__

    def hooked(self, config, model, *about, **more):
        loaded(self, config, model, *about, **more)
        norm = model.student.encoder.blocks[0].norm1
        norm.register_forward_hook(lambda _, args, __: seen.append(args[0].detach()) if not model.training else None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "__init__", hooked)
        short = ["trainer.max_steps=1", "trainer.eval_batches=1", "trainer.probe_every=1"]
        _, folder = train(*TINY_DINO, "norm=dyt", *short)
    (row,) = (r for r in rows_of(folder) if "probe/student.encoder.blocks.0.norm1/in_std" in r)
    tokens = {x.shape[1] for x in seen}
    assert len(tokens) == 2  # of large views and of small ones
    stds = [x.std().item() for x in seen if x.shape[1] == max(tokens)]
    others = [x.std().item() for x in seen if x.shape[1] == min(tokens)]
    found = row["probe/student.encoder.blocks.0.norm1/in_std"]
    near = lambda values: min(abs(v / found - 1) for v in values)  # noqa: E731
    assert near(stds) < 1e-3 < near(others)
