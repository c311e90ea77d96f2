"""Several processes give the curve of one, however the model lies over them. Real ones, over gloo."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dyt import DynamicTanh
from dyt.data.order import pieces_of
from dyt.rundir import checkpoint
from dyt.rundir.files import sha256_of

from .helpers import (
    ROOT,
    TINY_CLASSIFIER,
    TINY_DINO,
    TINY_DIT,
    TINY_DT,
    TINY_GPT,
    TINY_HYENA,
    TINY_MAE,
    TINY_VIT,
    TINY_WAV2VEC2,
    pictures_at,
    python,
    rows_of,
    train,
)
from .ranks import Ranks, curve, fault

GPT = [
    *TINY_GPT,
    "model.embed_scale=learnable",
    "data.batch_size=8",
    "data.eval_batch_size=4",
    "data.train_tokens=20000",
]
VIT = [*TINY_VIT, "data.batch_size=8", "data.eval_batch_size=50"]
SHORT = ["trainer.max_steps=50", "trainer.log_every=1", "trainer.eval_every=25", "trainer.eval_batches=3"]
SHORT += ["logger.mode=disabled", "trainer.keep=1", "trainer.kernel=reference", "optim.clip_grad=1.0"]
LAYOUTS = {
    "ddp": ["trainer.strategy=ddp"],
    "fsdp": ["trainer.strategy=fsdp"],
    "tp": ["trainer.tp=2"],
}
SLOW = pytest.mark.slow
CASES = [("dyt", "double", 1e-9), ("layernorm", "double", 1e-9), ("dyt", "fp32", 1e-3)]
CASES += [pytest.param("layernorm", "fp32", 1e-3, marks=SLOW)]
PLACES = [("gpt", "ddp"), ("gpt", "fsdp"), ("gpt", "tp"), ("vit", "ddp"), ("vit", "fsdp")]


@pytest.fixture(scope="module")
def two():
    with Ranks(2) as ranks:
        yield ranks


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The curve of one process, computed once for each config."""
    known = {}

    def of(*words):
        if words not in known:
            _, folder = train(*words, out=str(tmp_path_factory.mktemp("alone")))
            known[words] = folder
        return known[words]

    return of


def worst(a, b, key="train/loss") -> float:
    """The largest relative difference of two runs' curves."""
    a, b = curve(a, key), curve(b, key)
    assert a.keys() == b.keys() and a
    return max(abs(a[step] - b[step]) / abs(a[step]) for step in a)


@pytest.mark.parametrize("norm, precision, close", CASES)
@pytest.mark.parametrize("family, layout", PLACES)
def test_two_processes_give_the_curve_of_one_over_50_steps(family, layout, norm, precision, close, two, alone):
    words = [*(GPT if family == "gpt" else VIT), *SHORT, f"norm={norm}", f"trainer.precision={precision}"]
    one = alone(*words)
    both = two.trained(*words, *LAYOUTS[layout])
    assert both.name == one.name
    assert worst(one, both) < close
    assert worst(one, both, "grad_norm") < 10 * close
    assert worst(one, both, "val/loss") < close


@pytest.mark.parametrize("way", ["ddp", pytest.param("fsdp", marks=SLOW)])
def test_unreadable_pictures_are_left_out_and_counted_alike_in_any_pieces_and_processes(way, two, tmp_path):
    """Of 16 pictures 3 are broken, and the first batch of validation as a whole."""
    root = pictures_at(tmp_path / "set", "train/a", "train/b", "val/a", "val/b", count=8)
    for name in ("train/b/1", "train/b/5", "train/b/6", "val/a/0", "val/a/1", "val/a/2"):
        (root / f"{name}.png").write_bytes(b"no picture")
    words = [*TINY_VIT, "norm=dyt", "data=imagefolder", f"data.path={root}", "data.img_size=16", "data.patch_size=8"]
    words += ["data.on_error=skip", "data.batch_size=4", "data.eval_batch_size=3", "trainer.max_epochs=2"]
    words += [*SHORT[1:2], *SHORT[4:], "trainer.precision=double", "data.workers=0"]
    found = [Path(train(*words, out="one")[1]), Path(train(*words, "trainer.micro_batch=1", out="pieces")[1])]
    found.append(two.trained(*words, "trainer.micro_batch=1", *LAYOUTS[way]))
    for folder in found:
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["skipped"] == 6 and summary["config_hash"] == found[0].name.split("-")[-1]
        for key in ("train/loss", "grad_norm", "val/loss"):
            assert worst(found[0], folder, key) < 1e-9


FAMILIES = {
    "dit": TINY_DIT,
    "mae": TINY_MAE,
    "mixup": [*TINY_VIT, "data.mixup=0.8", "data.cutmix=1.0"],
    "dt": [*TINY_DT, "model.dropout=0"],
    "wav2vec2": [*TINY_WAV2VEC2, "model.wav2vec2.probe=0"],  # whose share of hits jumps where rounding does
    "hyena": TINY_HYENA,
    "sequences": TINY_CLASSIFIER,
    "dino": TINY_DINO,
    "muon": [*TINY_GPT, "optim.kind=muon"],
    "sgd": [*TINY_GPT, "optim.kind=sgd"],
}
SIX = ["trainer.max_steps=6", "trainer.eval_every=3", "trainer.eval_batches=3", "trainer.log_every=2"]
SIX += ["data.batch_size=16", "trainer.accumulate=2", "logger.mode=disabled"]


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_give_the_curve_of_one_in_every_family(family, layout, two, alone):
    """What is measured at the end too; sharded, with blocks whose activations are computed twice."""
    words = [*FAMILIES[family], *SIX]
    one = alone(*words)
    both = two.trained(*words, *LAYOUTS[layout], f"trainer.checkpointing={'block' if layout == 'fsdp' else 'none'}")
    assert json.loads((both / "summary.json").read_text())["processes"] == 2
    for x, y in zip(rows_of(one), rows_of(both), strict=True):
        assert x.keys() == y.keys()
        for key in x:
            room = 0.0041 if "top1" in key else 1e-6  # of 500 pictures two may change sides by rounding
            assert x[key] == pytest.approx(y[key], rel=1e-4, abs=room), (key, x["step"])


@pytest.fixture(scope="module")
def four():
    with Ranks(4) as ranks:
        yield ranks


ALL_ON = [*GPT, *SHORT, "trainer.ema_decay=0.9", "trainer.precision=double", "norm=dyt", "model.positions=rope"]
ALL_ON += [
    "model.mlp=swiglu",
    "model.bias=true",
    "trainer.max_steps=30",
    "trainer.save_every=10",
    "trainer.eval_every=10",
]


@pytest.mark.parametrize(
    "places, layout",
    [
        ("both one both", ["trainer.strategy=fsdp"]),
        ("one both one", ["trainer.tp=2"]),
        pytest.param("both one both", ["trainer.tp=2"], marks=SLOW),
        pytest.param("one both one", ["trainer.strategy=fsdp"], marks=SLOW),
    ],
)
def test_stopped_twice_it_goes_on_on_another_number_of_processes(places, layout, two, alone):
    """Moving average and optimizer come along. A signal to one process stops both."""
    one = alone(*ALL_ON)
    for number, where in enumerate(places.split()):
        wrong = ("stop", 10 * (number + 1)) if number < 2 else None
        if where == "both":
            answers = two.run(*ALL_ON, *layout, wrong=wrong)
        else:
            with fault(*wrong) if wrong else contextlib.nullcontext():
                summary, place = train(*ALL_ON)
            answers = [(summary["status"], str(place))]
        assert {status for status, _ in answers} == {"interrupted" if wrong else "finished"}, answers
        place = Path(answers[0][1])
        assert (place / "checkpoints" / f"step-{10 * (number + 1):09d}.{'parts' if where == 'both' else 'pt'}").exists()
    assert worst(one, place) < 1e-9 and worst(one, place, "val/loss") < 1e-9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_loss_that_is_not_finite_in_one_process_is_a_divergence_in_all(layout, two):
    answers = two.run(*GPT, *SHORT, "norm=dyt", "trainer.save_every=2", *LAYOUTS[layout], wrong=("nan", 5))
    assert {status for status, _ in answers} == {"diverged"}
    folder = Path(answers[0][1])
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["step"] == 5 and failure["layers"]["blocks.0.attn_norm"]["alpha"] == pytest.approx(0.5, abs=0.01)
    state, about = checkpoint.newest(folder / "checkpoints")
    assert about["step"] == 4 and all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
def test_a_process_that_is_killed_ends_the_other_and_the_run_goes_on(layout, two, alone):
    words = [*GPT, *SHORT, "norm=dyt", "trainer.save_every=4", "trainer.max_steps=12", *LAYOUTS[layout]]
    began = time.monotonic()
    with Ranks(2) as doomed:
        status, place = doomed.run(*words, wrong=("kill", 7))[0]
    assert time.monotonic() - began < 60
    summary = json.loads((Path(place) / "summary.json").read_text())
    assert status == summary["status"] == "failed" and "another process of this run ended" in summary["why"]
    assert worst(alone(*words[:-1]), two.trained(*words)) < 1e-3


@pytest.mark.parametrize(
    "words, told",
    [
        (["data.batch_size=9"], "data.batch_size=9 must be divisible by trainer.accumulate x processes = 1 x 2"),
        (["trainer.strategy=single"], "these are 2 processes"),
        (["trainer.strategy=hsdp"], "needs several machines"),
        (["trainer.tp=3"], "trainer.tp=3: does not divide the 2 processes"),
        (["trainer.tp=2", "model.heads=1"], "trainer.tp=2: does not divide model.heads=1"),
        (["trainer.tp=2", "model.dropout=0.1"], "trainer.tp=2: does not go with model.dropout=0.1"),
        (["trainer.tp=2", "optim.kind=muon"], "Muon needs whole matrices"),
    ],
)
def test_what_does_not_fit_is_refused_in_every_process(words, told, two):
    for status, why in two.run(*GPT, *SHORT, *words):
        assert status == "refused" and told in why


@pytest.mark.parametrize("words", [["trainer.strategy=fsdp"], ["trainer.strategy=ddp"], ["trainer.tp=2"]])
def test_a_strategy_needs_processes(words):
    with pytest.raises(ValueError, match="started alone; start it with torchrun --nproc-per-node 2 train.py"):
        train(*GPT, *SHORT, *words)


def weights(folder: Path, kind: str = "step") -> dict:
    return checkpoint.newest(folder / "checkpoints", kind)[0]["model"]


def equal(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


AT_REST = ["norm=dyt", "optim.lr=0", "trainer.max_steps=1"]


@pytest.mark.parametrize("family", ["gpt", pytest.param("vit", marks=SLOW)])
def test_a_sharded_model_starts_with_the_weights_of_one_process_to_the_bit(family, two, alone):
    """One process has them first, the others build without values; with a rate of 0 the first step changes none."""
    words = [*(GPT if family == "gpt" else VIT), *SHORT, *AT_REST]
    start = weights(alone(*words))
    for layout in ("fsdp", "tp") if family == "gpt" else ("fsdp",):
        there = two.trained(*words, *LAYOUTS[layout], out=layout)
        assert equal(start, weights(there)) and equal(start, weights(there, "best")), layout


@pytest.mark.parametrize("family", ["gpt", pytest.param("vit", marks=SLOW)])
def test_checkpointed_activations_change_no_bit(family, alone, two):
    words = [*(GPT if family == "gpt" else VIT), *SHORT, "norm=dyt", "trainer.max_steps=4", "model.dropout=0.1"]
    one = alone(*words)
    for kind in ("block", "selective"):
        _, folder = train(*words, f"trainer.checkpointing={kind}", out=kind)
        assert curve(folder) == curve(one) and equal(weights(folder), weights(one))
    words = [*words, "trainer.strategy=fsdp", "trainer.ema_decay=0.5"]
    kept, twice = (
        two.trained(*words, f"trainer.checkpointing={kind}", out=f"fsdp-{kind}") for kind in ("none", "block")
    )
    assert curve(kept) == curve(twice) and equal(weights(kept), weights(twice))


STATE = {  # what a forward pass moves beside the weights' gradients: it must move once
    "statistics": [*GPT, "norm=runningrms", "norm.sites.mlp.kind=batchnorm"],
    "sigma_reparam": [*VIT, "norm=none", "model.method=sigma_reparam"],
    "batchnorm": [*VIT, "norm=batchnorm"],
}


@pytest.mark.parametrize("state", ["statistics", "sigma_reparam"])
def test_state_moves_once_where_activations_are_computed_twice(state, alone):
    words = [*STATE[state], *SHORT, "trainer.max_steps=3", "trainer.eval_batches=1", "optim.warmup_steps=0"]
    words += ["optim.lr=1e-2", "optim.clip_grad=null"]
    one = alone(*words)
    for kind in ("block", "selective"):
        _, folder = train(*words, f"trainer.checkpointing={kind}", out=kind)
        assert curve(folder) == curve(one) and curve(folder, "val/loss") == curve(one, "val/loss"), kind
        assert equal(weights(folder), weights(one)), kind


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["ddp", "fsdp"])
@pytest.mark.parametrize("state", STATE)
def test_state_moves_once_in_two_processes_too(state, layout, two):
    words = [*STATE[state], *SHORT, *LAYOUTS[layout], "trainer.max_steps=3", "optim.lr=1e-2", "optim.warmup_steps=0"]
    words += ["trainer.ema_decay=0.5", "trainer.accumulate=2"]
    kept, *twice = (
        two.trained(*words, f"trainer.checkpointing={kind}", out=kind) for kind in ("none", "block", "selective")
    )
    for folder in twice:
        assert curve(folder) == curve(kept) and equal(weights(folder), weights(kept))


@pytest.mark.slow
@pytest.mark.parametrize("state", ["statistics", "sigma_reparam"])
def test_state_moves_once_in_a_compiled_model_up_to_rounding(state):
    words = [*STATE[state], *SHORT, "trainer.max_steps=6", "trainer.eval_batches=1", "optim.warmup_steps=0"]
    words += ["trainer.compile=true", "optim.lr=1e-2", "optim.clip_grad=null"]
    kept, twice = (train(*words, f"trainer.checkpointing={kind}", out=kind)[1] for kind in ("none", "block"))
    assert worst(kept, twice) < 1e-5 and worst(kept, twice, "val/loss") < 1e-5


@pytest.mark.parametrize("kind, less, more_products", [("none", False, 0), ("selective", False, 0), ("block", True, 1)])
def test_block_keeps_its_input_alone_and_selective_computes_no_matrix_product_twice(kind, less, more_products):
    from torch.utils._python_dispatch import TorchDispatchMode

    from dyt.efficiency.timing import saved_bytes
    from dyt.training.blocks import change_forward

    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            Products.count += op is torch.ops.aten.addmm.default
            return op(*args, **(kwargs or {}))

    block = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64))
    change_forward(block, kind, compiled=False)
    x = torch.randn(32, 64, requires_grad=True)
    with Products():
        block(x).sum().backward()
    assert Products.count == 2 + more_products  # the last one's result is not needed again
    if kind != "selective":  # whose tensors are not kept where this looks
        assert (saved_bytes(lambda: block(x).sum(), list(block.parameters())) <= 32 * 64 * 4) == less


@pytest.mark.parametrize("layout", ["fsdp", "tp"])
def test_the_probe_sees_the_same_in_a_sharded_model(layout, two, alone):
    words = [*GPT, *SHORT, "norm=dyt", "norm.alpha=ratio", "trainer.precision=double", "trainer.max_steps=2"]
    words += ["trainer.probe_every=1"]
    one, there = alone(*words), two.trained(*words, *LAYOUTS[layout])
    a, b = (rows_of(folder)[-1] for folder in (one, there))
    assert sum(key.startswith("probe/") for key in a) > 20 and a.keys() == b.keys()
    assert all(a[key] == pytest.approx(b[key], rel=1e-6) for key in a)


def test_micro_batch_says_how_much_is_computed_at_once(two, alone):
    """8 samples, 2 processes, 2 at once: two pieces each; alone, four."""
    words = [*GPT, *SHORT, "norm=dyt", "trainer.max_steps=3", "trainer.precision=double"]
    one = alone(*words)
    assert worst(one, two.trained(*words, "trainer.micro_batch=2")) < 1e-9
    assert worst(one, train(*words, "trainer.micro_batch=3", out="alone")[1]) < 1e-9
    assert [pieces_of(8, 2, 2), pieces_of(8, 1, 3), pieces_of(8, 2, 100), pieces_of(8, 2, None)] == [2, 4, 1, None]


MANY = {
    "hsdp": (["trainer.strategy=hsdp"], 2),
    "fsdp and tp": (["trainer.strategy=fsdp", "trainer.tp=2"], 4),
    "ddp and tp": (["trainer.tp=2"], 4),
}


@pytest.mark.parametrize(
    "layout", ["fsdp and tp", *(pytest.param(name, marks=SLOW) for name in ("hsdp", "ddp and tp"))]
)
def test_four_processes_give_the_curve_of_one_in_every_layout(layout, four, alone):
    words = [*ALL_ON, "trainer.max_steps=10"]
    how, machine = MANY[layout]
    there = four.trained(*words, *how, machine=machine)
    one = alone(*words)
    assert worst(one, there) < 1e-9 and worst(one, there, "grad_norm") < 1e-8 and worst(one, there, "val/loss") < 1e-9


def test_saved_on_two_it_goes_on_on_four_and_back(two, four, alone):
    layouts = {2: ["trainer.strategy=fsdp"], 4: ["trainer.strategy=fsdp", "trainer.tp=2"]}
    for number, ranks in enumerate((two, four, two)):
        wrong = ("stop", 10 * (number + 1)) if number < 2 else None
        answers = ranks.run(*ALL_ON, *layouts[ranks.size], wrong=wrong)
        assert {status for status, _ in answers} == {"interrupted" if wrong else "finished"}, answers
    assert worst(alone(*ALL_ON), Path(answers[0][1])) < 1e-9


def split_norms(rank: int, size: int) -> list[float]:
    """By norm, how far a norm over split channels is from the whole one: output, input's and weight's gradient."""
    import torch.distributed as dist

    from dyt.efficiency.scaling import Collectives
    from dyt.efficiency.split_norms import split_norm
    from dyt.training.distributed import join, leave

    join("cpu", "ddp")
    found, wide, own = [], 12, slice(rank * 12 // size, (rank + 1) * 12 // size)
    plain = {
        "layernorm": torch.nn.LayerNorm(wide),
        "rmsnorm": torch.nn.RMSNorm(wide, eps=1e-5),
        "dyt": DynamicTanh(wide),
    }
    for kind, norm in plain.items():
        generator = torch.Generator().manual_seed(1)
        x, grad = (torch.randn(3, 5, wide, generator=generator, dtype=torch.float64) for _ in range(2))
        part = split_norm(kind, wide // size, dist.group.WORLD, size).double()
        norm.double()
        whole, here = x.clone().requires_grad_(), x[..., own].clone().requires_grad_()
        norm(whole).backward(grad)
        with Collectives() as sent:
            y = part(here)
            y.backward(grad[..., own])
        pairs = [(y, norm(x)[..., own]), (here.grad, whole.grad[..., own]), (part.weight.grad, norm.weight.grad[own])]
        found.append((max((a - b).abs().max().item() for a, b in pairs), sum(n for n, _ in sent.seen.values())))
    leave()
    return found


def waited(rank: int, size: int) -> str:
    """What a process says that waits longer than its group's collectives may take; then the leading one leaves."""
    from datetime import timedelta

    import torch.distributed as dist

    from dyt.training.distributed import join, leave

    world = join("cpu", "ddp")
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=0.2), dist.group.WORLD)
    try:
        time.sleep(1.0 * world.leads)
        world.wait()
        if not world.leads:
            world.wait()
        return "together"
    except RuntimeError as error:
        return str(error)
    finally:
        leave()


def test_the_others_wait_for_what_one_process_does_alone_but_not_for_one_that_left(two):
    """What a task measures of a finished model may take an hour; gloo's own patience ends after half of it."""
    began = time.monotonic()
    first, other = two.call(waited)
    assert first == "together" and "closed by peer" in other and time.monotonic() - began < 30


def test_a_norm_over_split_channels_is_the_whole_one_and_dyt_sends_nothing(two):
    for answers in two.call(split_norms):
        assert all(off < 1e-12 for off, _ in answers)
        assert [sent for _, sent in answers] == [2, 2, 0]


def test_exponents_and_the_simulation():
    from dyt.efficiency.scaling import exponent, simulate

    assert exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    small, large = simulate(8), simulate(1024)
    assert small["compute_s"] == large["compute_s"] == pytest.approx(6 * 6.74e9 * 8192 / 4e14)
    assert large["fsdp_exchange_s"] > small["fsdp_exchange_s"] and small["norms_dyt_s"] == 0 < small["norms_rmsnorm_s"]


def test_a_full_disk_of_one_process_leaves_the_last_checkpoint_whole_and_the_next_is_written(two, alone):
    words = [*GPT, *SHORT, "norm=dyt", "trainer.save_every=5", "trainer.max_steps=20", "trainer.eval_every=10"]
    words += ["trainer.precision=double"]
    answers = two.run(*words, "trainer.strategy=fsdp", wrong=("full", 2))
    assert {status for status, _ in answers} == {"finished"}
    folder = Path(answers[0][1])
    kept = sorted(p.name for p in (folder / "checkpoints").glob("*.json"))
    assert kept == ["best-000000020.json", "step-000000020.json"]
    assert equal_to(1e-9, weights(folder), weights(alone(*words)))


def equal_to(close: float, a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=close, atol=close) for k in a)


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_a_damaged_part_is_named_and_the_checkpoint_before_it_taken(harm, two, alone, caplog):
    words = [*GPT, *SHORT, "norm=dyt", "trainer.save_every=5", "trainer.max_steps=15", "trainer.keep=2"]
    folder = two.trained(*words, "trainer.strategy=fsdp")
    part = folder / "checkpoints/step-000000015.parts/__1_0.distcp"
    if harm == "missing":
        part.unlink()
    else:
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)
    _, about = checkpoint.newest(folder / "checkpoints")
    assert about["step"] == 10 and "__1_0.distcp" in caplog.text


def test_a_checkpoints_index_runs_no_code(two, caplog):
    """A pickle that would call a function, with a sum that fits."""
    words = [*GPT, *SHORT, "norm=dyt", "trainer.max_steps=1"]
    folder = two.trained(*words, "trainer.strategy=fsdp") / "checkpoints"
    index, manifest = folder / "step-000000001.parts/.metadata", folder / "step-000000001.json"
    index.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    about = json.loads(manifest.read_text())
    about["files"][".metadata"] = sha256_of(index)
    manifest.write_text(json.dumps(about))
    assert checkpoint.newest(folder) is None and "not loaded" in caplog.text and not Path("ran").exists()


def test_weights_of_another_model_are_refused_in_every_process(two):
    small = two.trained(*GPT, *SHORT, "norm=dyt", "trainer.max_steps=1", "trainer.strategy=fsdp", out="small")
    words = [*GPT, *SHORT, "norm=dyt", "model.dim=32", f"init_from={small}", "trainer.strategy=fsdp"]
    for status, why in two.run(*words):
        assert status == "refused" and "weights of another model or norm" in why


@pytest.mark.slow
def test_processes_convert_as_one_does_from_a_run_that_they_train_first(two, alone):
    """Two runs, one after the other, meet at one place; all calibrate on the same batches, or their weights part."""
    first = ["init_from='norm=layernorm trainer.max_steps=3'", "convert=calibrated", "trainer.max_steps=3"]
    words = [*GPT, *SHORT, "norm=dyt", *first, "optim.lr=1e-2", "trainer.eval_every=1", "trainer.precision=double"]
    one, both = alone(*words), two.trained(*words)
    for key in ("val/loss", "before/loss", "train/loss"):
        assert worst(one, both, key) < 1e-9, key


@pytest.mark.slow
def test_what_processes_wrote_is_exported_and_evaluated_by_one(two):
    folder = two.trained(*GPT, *SHORT, "norm=dyt", "trainer.max_steps=2", "trainer.strategy=fsdp")
    done = python("eval.py", f"run={folder}", "ckpt=last")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["val/loss"] == pytest.approx(curve(folder, "val/loss")[2], rel=0.01)  # of 3 batches
    exported = python(str(ROOT / "scripts/export.py"), f"run={folder}", "ckpt=last", "out=exported")
    assert exported.returncode == 0, exported.stderr
    from dyt.sharing import load

    assert equal(dict(load("exported").state_dict()), weights(folder))
    shards = python(str(ROOT / "scripts/export.py"), f"run={folder}", "ckpt=last", "out=parts", "shard=20KB")
    assert shards.returncode == 0 and len(list(Path("parts").glob("model-*.safetensors"))) > 1, shards.stderr
    assert equal(dict(load("parts").state_dict()), weights(folder))


@pytest.mark.parametrize(
    "words, close",
    [
        (["trainer.precision=bf16"], 0.02),
        pytest.param(["optim.kind=muon"], 0.02, marks=SLOW),
        pytest.param(["trainer.precision=bf16", "trainer.compile=true"], 0.02, marks=SLOW),
    ],
    ids=["bf16", "muon", "compiled"],
)
def test_fsdp_with_what_large_runs_use(words, close, two, alone):
    words = [*GPT, *SHORT, "norm=dyt", "trainer.max_steps=10", "optim.lr=1e-2", *words]
    there = two.trained(*words, "trainer.strategy=fsdp", "trainer.checkpointing=selective")
    assert worst(alone(*[w for w in words if w != "trainer.compile=true"]), there) < close


def alphas_shown(rank: int, size: int) -> list[dict]:
    """What the logger of a sharded run gets of alpha, at each validation."""
    from dyt.tracking.wandb import Wandb

    shown, log = [], Wandb.log
    Wandb.log = lambda self, row: shown.append(self.alphas()) if "val/loss" in row else None
    try:
        train(*GPT, *SHORT, "norm=dyt", "norm.alpha=ratio", "trainer.max_steps=4", "trainer.eval_every=2", FSDP)
    finally:
        Wandb.log = log
    return shown


FSDP = "trainer.strategy=fsdp"


def test_the_logger_sees_every_layers_alpha(two):
    first, other = two.call(alphas_shown)
    assert len(first) == 2 and other == []  # one process logs
    assert set(first[0]) == {f"alpha/{n}" for n in ("blocks.0.attn_norm", "blocks.0.mlp_norm", "blocks.1.attn_norm",
                                                    "blocks.1.mlp_norm", "final_norm")}  # fmt: skip
    assert all(value == pytest.approx(0.5, abs=0.01) for value in first[1].values()) and first[0] != first[1]


def filters_made(rank: int, size: int) -> set[str]:
    """Types of the weights that a sharded Hyena's filters are made with, in bfloat16."""
    from models.hyena import Filters

    seen, real = set(), Filters._values

    def values(self, place):
        seen.add(str(self.last.weight.dtype))
        return real(self, place)

    Filters._values = values
    try:
        train(*TINY_HYENA, *SHORT, "trainer.max_steps=2", "trainer.precision=bf16", FSDP)
    finally:
        Filters._values = real
    return seen


def test_a_sharded_hyenas_filters_keep_their_precision(two):
    """Rounded to bfloat16 the weights of their sines move them by 15%."""
    assert two.call(filters_made) == [{"torch.float32"}] * 2


@pytest.mark.slow
@pytest.mark.parametrize("words", [["data.batch_size=9"], ["trainer.strategy=nosuch"]], ids=["joined", "before"])
def test_what_is_wrong_is_said_once(words, tmp_path):
    """Two processes as srun starts them; before they join, the leading one speaks."""
    env = os.environ | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29611"}
    command = [sys.executable, str(ROOT / "train.py"), *GPT, *SHORT, *words]
    both = [
        subprocess.Popen(command, env=env | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in "01"
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [1, 1]
    assert sum(text.count("train.py: ") for text in said) == 1 and "Traceback" not in "".join(said)


@pytest.mark.slow
def test_a_process_that_hangs_does_not_keep_the_other_waiting():
    """As a machine that is gone: nothing closes a connection, and a sum over the processes would wait half an hour."""
    with Ranks(2) as doomed:
        assert doomed.ended(*GPT, *SHORT, "norm=dyt", "trainer.strategy=ddp", wrong=("hang", 5), seconds=60)
