"""DynamicTanh and Derf as good citizens of torch: constructors, layouts, transforms, graphs that leave, sharding."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import dyt
from dyt import Derf, DynamicTanh, kernels

from .helpers import NO_COMPILER, ROOT, python

KERNELS = ["reference", "compiled", *([] if NO_COMPILER else ["native"])]
C = 6


@pytest.fixture(autouse=True)
def give_back():
    yield
    kernels.force("auto")


# -- constructors and starts -------------------------------------------------------------------------------------------


def test_the_official_constructors_are_understood():
    for m in (
        DynamicTanh(8, False),
        DynamicTanh(8, channels_last=False),
        DynamicTanh(normalized_shape=8, channels_last=False),
    ):
        assert m.alpha.item() == 0.5 and not m.channels_last
    m = DynamicTanh(8, True, 0.7)
    assert m.alpha.item() == pytest.approx(0.7) and m.channels_last
    assert DynamicTanh((8,), False, alpha_init_value=1).alpha.item() == 1 and DynamicTanh(torch.Size([8])).dim == 8
    m = Derf(8, 0.3, 0.1)
    assert (m.alpha.item(), m.shift.item()) == (pytest.approx(0.3), pytest.approx(0.1))
    assert Derf(normalized_shape=8, alpha_init_value=0.3, shift_init_value=0.1).shift.item() == pytest.approx(0.1)
    assert DynamicTanh(8, 0.25).alpha.item() == 0.25 and DynamicTanh(8, 0).alpha.item() == 0  # a number is alpha


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: DynamicTanh(8, alpha_init=False), "alpha_init=False: needs a number"),
        (lambda: DynamicTanh(8, 0.5, False), "too many values in a row; name the later ones"),
        (lambda: DynamicTanh(8, False, True), "alpha_init=True: needs a number"),
        (lambda: DynamicTanh(8, False, 0.5, 1), "too many values in a row"),
        (lambda: DynamicTanh(8, False, channels_last=True), "channels_last is given twice"),
        (lambda: DynamicTanh(8, 0.5, alpha_init_value=0.5), "alpha_init is given twice"),
        (lambda: DynamicTanh(8, channels_last=0), "channels_last=0: needs True or False"),
        (lambda: DynamicTanh((8, 8)), r"normalized_shape=\(8, 8\): DyT works on one axis"),
        (lambda: DynamicTanh(True), "at least one channel"),
        (lambda: DynamicTanh(8.0), "at least one channel"),
        (lambda: DynamicTanh(), "dim, the number of channels, is missing"),
        (lambda: Derf(8, "0.5"), "Derf: alpha_init='0.5': needs a number"),
    ],
)
def test_what_is_no_constructor_says_so_in_one_line(make, says):
    with pytest.raises(ValueError, match=says) as error:
        make()
    assert "\n" not in str(error.value)


MAKES = [
    lambda **k: DynamicTanh(C, 0.3, gamma_init=2.0, **k),
    lambda **k: DynamicTanh(C, 0.3, alpha="ratio", **k),
    lambda **k: DynamicTanh(C, 0.3, alpha="log", alpha_shape="channel", **k),
    lambda **k: DynamicTanh(C, 0.3, alpha="fixed", gamma_init="inverse_alpha", **k),
    lambda **k: DynamicTanh(C, alpha="absent", affine=False, **k),
    lambda **k: Derf(C, 0.3, shift_init=0.1, bias=False, **k),
]


@pytest.mark.parametrize("make", MAKES)
def test_reset_parameters_is_the_start_also_after_meta(make):
    start = make().state_dict()
    changed = make()
    for value in (*changed.parameters(), *changed.buffers()):
        value.data.add_(3.0)
    empty = make(device="meta").to_empty(device="cpu")
    for value in (*empty.parameters(), *empty.buffers()):
        value.data.fill_(float("nan"))
    for m in (changed, empty):
        m.reset_parameters()
        assert m.state_dict().keys() == start.keys()
        assert all(torch.equal(value, start[key]) for key, value in m.state_dict().items())


# -- shapes and layouts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", [*KERNELS, "inductor"])
@pytest.mark.parametrize(
    "options, shape, says",
    [
        ({}, (3, 1), "x of shape (3, 1) does not have this layer's 6 channels on its last axis"),
        ({"affine": False}, (3, 5), "x of shape (3, 5) does not have this layer's 6 channels on its last axis"),
        (
            {},
            (2, 6, 4, 4),
            "(2, 6, 4, 4) does not have this layer's 6 channels on its last axis; type channels_last=False",
        ),
        (
            {"channels_last": False},
            (2, 4, 6),
            "(2, 4, 6) does not have this layer's 6 channels on its axis 1; type channels_",
        ),
        ({"channels_last": False}, (6,), "x of shape (6,) does not have this layer's 6 channels on its axis 1"),
        ({}, (), "x of shape () does not have this layer's 6 channels on its last axis"),
    ],
)
def test_a_wrong_shape_is_the_same_line_whichever_kernel_runs(kernel, options, shape, says):
    layer = DynamicTanh(C, **options)
    if kernel == "inductor":
        layer = torch.compile(layer, backend="eager")
    else:
        kernels.force(kernel)
    for _ in range(2):  # the second call takes the short way
        with pytest.raises(ValueError) as error:
            layer(torch.randn(shape))
        assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_wrong_parameter_is_the_same_line_whichever_kernel_runs(kernel):
    kernels.force(kernel)
    with pytest.raises(ValueError, match="DyT: a parameter has 4 values for 6 channels"):
        kernels.dynamic(torch.randn(2, C), torch.ones(4), torch.ones(C), None, None, "tanh")


@pytest.mark.parametrize(
    "kernel", [pytest.param(kernel, marks=pytest.mark.slow if kernel == "compiled" else ()) for kernel in KERNELS]
)
@pytest.mark.parametrize(
    "shape, last", [((2, C, 4, 5), torch.channels_last), ((2, C, 3, 4, 5), torch.channels_last_3d)]
)
def test_the_memory_format_is_kept(kernel, shape, last):
    layer = DynamicTanh(C, channels_last=False)
    layer.weight.data = torch.rand(C)
    plain = torch.randn(shape)
    x = plain.to(memory_format=last).requires_grad_()
    want, grad = layer(plain), torch.randn(shape)
    kernels.force(kernel)
    y = layer(x)
    y.backward(grad)
    assert y.is_contiguous(memory_format=last) and not y.is_contiguous()
    assert x.grad.is_contiguous(memory_format=last)
    torch.testing.assert_close(y, want)
    layer.zero_grad()
    b = plain.clone().requires_grad_()
    out = layer(b)
    out.backward(grad)
    assert out.is_contiguous()
    torch.testing.assert_close(x.grad, b.grad)


@pytest.mark.skipif(NO_COMPILER, reason="no C++ compiler here")
def test_channels_last_is_no_slower_than_contiguous():
    """Forward, in turn and by medians: 1.03 was measured."""
    import statistics
    import time

    layer, x = DynamicTanh(64, channels_last=False), torch.randn(8, 64, 56, 56)
    took = {x: [], x.to(memory_format=torch.channels_last): []}
    with torch.no_grad():
        for _ in range(60):
            for tensor, times in took.items():
                start = time.perf_counter()
                layer(tensor)
                times.append(time.perf_counter() - start)
    plain, last = map(statistics.median, took.values())
    assert last < 1.6 * plain  # a loaded machine is allowed for


# -- transforms and tensors of other kinds -----------------------------------------------------------------------------


def test_forward_mode_derivatives():
    x, t = torch.randn(3, C), torch.randn(3, C)
    for make, slope in (
        (DynamicTanh, lambda z: 1 - torch.tanh(z) ** 2),
        (Derf, lambda z: 2 / torch.pi**0.5 * torch.exp(-z * z)),
    ):
        layer = make(C, 0.7)
        layer(x)  # the short way is open
        want = 0.7 * slope(0.7 * x) * t
        torch.testing.assert_close(torch.func.jvp(layer, (x,), (t,))[1], want)
        with forward_ad.dual_level():
            torch.testing.assert_close(forward_ad.unpack_dual(layer(forward_ad.make_dual(x, t))).tangent, want)
        torch.testing.assert_close(torch.vmap(layer)(x), layer(x))
        hessian = torch.func.hessian(lambda v, m=layer: m(v).sum())(x[0])
        assert hessian.isfinite().all() and hessian.diagonal().abs().min() > 0


def test_an_ensemble_of_layers_by_vmap():
    layers = [DynamicTanh(C, a) for a in (0.2, 0.5, 0.9)]
    parameters, buffers = torch.func.stack_module_state(layers)
    base, x = copy.deepcopy(layers[0]).to("meta"), torch.randn(3, 4, C)
    got = torch.vmap(lambda p, b, v: torch.func.functional_call(base, (p, b), (v,)))(parameters, buffers, x)
    torch.testing.assert_close(got, torch.stack([m(v) for m, v in zip(layers, x, strict=True)]))


def test_jagged_nested_tensors():
    layer, parts = DynamicTanh(C, 0.7), [torch.randn(3, C), torch.randn(5, C)]
    nested = torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)
    out = layer(nested)
    (out + nested).values().sum().backward()  # of the input's own raggedness: a residual stream adds up
    for got, part in zip(out.unbind(), parts, strict=True):
        torch.testing.assert_close(got, layer(part))
    plain = torch.cat(parts).requires_grad_()
    alpha = layer.alpha.grad.clone()
    layer.zero_grad()
    layer(plain).sum().backward()
    torch.testing.assert_close(alpha, layer.alpha.grad)
    torch.testing.assert_close(nested.grad.values(), plain.grad + 1)
    with pytest.raises(ValueError, match="this layer's 6 channels on its last axis"):
        layer(torch.nested.nested_tensor([torch.randn(3, 5)], layout=torch.jagged))
    with pytest.raises(ValueError, match="a nested tensor needs layout=torch.jagged"):
        layer(torch.nested.nested_tensor(parts))
    with pytest.raises(ValueError, match="its channels on the last axis and that axis regular"):
        layer(nested.detach().transpose(1, 2))


# -- graphs that leave this process ------------------------------------------------------------------------------------


def net() -> nn.Module:
    """Every kind of layer, both layouts."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, C, 1),
        DynamicTanh(C, 0.7, channels_last=False),
        DynamicTanh(C, alpha_shape="channel", channels_last=False),
        nn.Flatten(2),
        nn.Linear(16, C),
        Derf(C, shift_init=0.2),
        DynamicTanh(C, squash="isru", alpha="log"),
        DynamicTanh(C, squash="hardtanh", alpha="ratio", affine=False),
        DynamicTanh(C, squash="sigmoid", alpha="fixed", bias=False),
        DynamicTanh(C, alpha="absent"),
    )


IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
# Where this package is not installed: an import of it would fail.
WITHOUT = """
import sys
sys.modules["dyt"] = sys.modules["models"] = None
import torch
loaded = torch.export.load("net.pt2").module()
torch.save(loaded(torch.load("x.pt")), "y.pt")
assert not hasattr(torch.ops.dyt, "fused")
"""


def test_a_symbolic_trace_has_plain_operators():
    m = net()
    graph = torch.fx.symbolic_trace(m)
    torch.testing.assert_close(graph(IMAGES), m(IMAGES))
    assert "dyt" not in graph.code
    graph(IMAGES).sum().backward()


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_exported_program_loads_where_this_package_is_not(kernel, tmp_path):
    m = net()
    want = m(IMAGES)
    kernels.force(kernel)  # whatever is forced
    batch = torch.export.Dim("batch", min=2, max=64)
    for strict in (False, True):
        program = torch.export.export(m, (IMAGES,), dynamic_shapes=({0: batch},), strict=strict)
        assert not any("dyt" in str(node.target) for node in program.graph.nodes if node.op == "call_function")
    torch.export.save(program, tmp_path / "net.pt2")
    torch.save(IMAGES, tmp_path / "x.pt")
    if kernel != KERNELS[-1]:
        return
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), want)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
def test_onnx_runs_elsewhere(dynamo, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript" if dynamo else "onnx")
    m = net()
    want = m(IMAGES).detach().numpy()
    torch.onnx.export(m, (IMAGES,), str(tmp_path / "net.onnx"), dynamo=dynamo)
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    assert abs(got - want).max() < 1e-6


# -- sharding ----------------------------------------------------------------------------------------------------------

SHARDED = """
import copy, os, torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel, parallelize_module
from dyt import Derf, DynamicTanh

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
torch.manual_seed(0)
x = torch.randn(2, 4, 8)
for make in (DynamicTanh, Derf):
    plain = nn.Sequential(make(8, 0.7), nn.Linear(8, 8), make(8))
    plain(x).square().sum().backward()
    want = plain(x)

    split = copy.deepcopy(plain)
    split.zero_grad()
    parallelize_module(split, mesh, {"0": SequenceParallel(), "1": SequenceParallel(), "2": SequenceParallel()})
    out = split(distribute_tensor(x, mesh, [Shard(1)]))
    assert isinstance(out, DTensor) and out.placements == (Shard(1),), out.placements
    torch.testing.assert_close(out.full_tensor(), want)
    out.square().sum().backward()
    for a, b in zip(split.parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad.full_tensor(), b.grad, rtol=1e-4, atol=1e-5)

    whole = copy.deepcopy(plain)
    whole.zero_grad()
    fully_shard(whole, mesh=mesh)
    assert whole[0].alpha.shape == (1,) and isinstance(whole[0].alpha, DTensor)
    whole(x).square().sum().backward()
    for a, b in zip(whole.parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad.full_tensor(), b.grad, rtol=1e-4, atol=1e-5)
dist.destroy_process_group()
os._exit(0)  # a thread of gloo that drops its last tensor while Python 3.11 ends aborts the process: 6 times in 30
"""


@pytest.mark.slow
def test_sequence_parallelism_and_fsdp2_on_two_ranks(tmp_path):
    (tmp_path / "sharded.py").write_text(SHARDED)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(tmp_path / "sharded.py")]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = python(*torchrun, PYTHONPATH=path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def alone():
    """A process group of one."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("how", ["learned", "ratio", "log", "fixed"])
def test_mixed_precision_of_fsdp2_takes_every_alpha(alone, how):
    """It casts parameters, not buffers: alpha0 in float32 made the output so, and the next layer fail."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    model = nn.Sequential(nn.Linear(8, 8), dyt.DynamicTanh(8, alpha=how), nn.Linear(8, 8))
    fully_shard(model, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    out = model(torch.randn(2, 8))
    out.sum().backward()
    assert out.dtype == torch.bfloat16 and model[1].weight.grad is not None


def test_what_was_sharded_or_compiled_in_place_is_not_converted(alone):
    """A norm without parameters would get one that is in no group, and each process would train its own."""
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8, elementwise_affine=False))
    fully_shard(model)
    with pytest.raises(ValueError, match="the model went through fully_shard already; convert before that"):
        dyt.convert(model)
    model = nn.Sequential(nn.LayerNorm(8))
    model[0].compile()
    with pytest.raises(ValueError, match=r"0 went through compile\(\) already; convert before that"):
        dyt.convert(model)


# -- what decays -------------------------------------------------------------------------------------------------------


def test_param_groups_leave_out_what_must_not_decay():
    model = nn.Sequential(nn.Linear(C, C), Derf(C), DynamicTanh(C, alpha_shape="channel"), nn.Embedding(3, C))
    model[0].bias.requires_grad_(False)
    decayed, plain = dyt.param_groups(model, 0.3)
    assert decayed["weight_decay"] == 0.3 and plain["weight_decay"] == 0.0
    assert {id(p) for p in decayed["params"]} == {id(model[0].weight), id(model[3].weight)}
    assert len(plain["params"]) == 4 + 3
    groups = dyt.param_groups(model, 0.3, decay_gain=True)
    assert len(groups[0]["params"]) == 4
    with pytest.raises(ValueError, match="weight_decay=-1: must be at least 0"):
        dyt.param_groups(model, -1)
    with pytest.raises(ValueError, match="Sequential has no parameter that is trained"):
        dyt.param_groups(model.requires_grad_(False), 0.1)


def test_a_parameter_that_zero_3_has_emptied_still_decays():
    from dyt.training.optim import decays

    p = nn.Parameter(torch.empty(0))
    p.ds_shape = torch.Size([4, 4])
    assert decays(p) and not decays(nn.Parameter(torch.empty(4)))


@pytest.mark.slow
def test_hugging_faces_trainer_with_the_mixin(tmp_path):
    """Its own rule decays alpha and gamma of a converted GPT-2, and with the mixin it does not."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=8, n_positions=8, vocab_size=11)
    model = dyt.convert(transformers.GPT2LMHeadModel(config), alpha_init=0.5)
    norms = {
        n for n, p in model.named_parameters() if isinstance(model.get_submodule(n.rpartition(".")[0]), DynamicTanh)
    }
    assert len(norms) == 5 * 3

    class Trainer(dyt.TrainerMixin, transformers.Trainer):
        pass

    how = transformers.TrainingArguments(str(tmp_path), weight_decay=0.3, report_to=[], use_cpu=True, max_steps=2)
    rows = [{"input_ids": torch.arange(6) % 11, "labels": torch.arange(6) % 11}] * 4
    decayed = {}
    for kind in (transformers.Trainer, Trainer):
        trainer = kind(model=model, args=how, train_dataset=rows)
        optimizer = trainer.create_optimizer()
        taken = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
        decayed[kind] = {n for n, p in model.named_parameters() if id(p) in taken}
    wrong = {n for n in norms if n.endswith(("alpha", "weight"))}
    assert wrong <= decayed[transformers.Trainer]
    assert decayed[Trainer] == decayed[transformers.Trainer] - norms
    assert "transformer.h.0.attn.c_attn.weight" in decayed[Trainer]
    trainer.train()
