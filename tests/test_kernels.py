"""Which kernel is taken, how it is built, and that it fits into torch and into a run."""

import math
import os
import subprocess
import sys

import pytest
import torch

from dyt import Derf, DynamicTanh, kernels
from dyt.training import cpu

from .helpers import NO_COMPILER, ROOT, TINY_GPT, TINY_VIT, one_line, python, rows_of, train

# Only where there is no compiler: a source that no longer compiles must fail, not skip.
NATIVE = pytest.mark.skipif(NO_COMPILER, reason="no C++ compiler here")


@pytest.fixture(autouse=True)
def give_back():
    yield
    kernels.force("auto")


@NATIVE
@pytest.mark.parametrize("make", [DynamicTanh, Derf])
def test_compiled_whole_graph(make):
    m, x = make(16), torch.randn(3, 16, requires_grad=True)
    compiled = torch.compile(m, fullgraph=True)
    torch.testing.assert_close(compiled(x), m(x))
    wanted = [x, *m.parameters()]
    for got, want in zip(
        torch.autograd.grad(compiled(x).sum(), wanted), torch.autograd.grad(m(x).sum(), wanted), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_torch_func_and_autocast():
    m, x = DynamicTanh(4), torch.randn(3, 4)
    per_row = torch.func.vmap(torch.func.grad(lambda r: m(r).sum()))(x)
    torch.testing.assert_close(per_row, m.alpha * (1 - torch.tanh(m.alpha * x) ** 2))
    with torch.autocast("cpu", torch.bfloat16):
        out = m(torch.nn.Linear(4, 4)(x))
    assert out.dtype == torch.float32  # bfloat16 x, float32 parameters: as PyTorch promotes


@NATIVE
@pytest.mark.parametrize("family", [TINY_GPT, TINY_VIT], ids=["gpt", "vit"])
def test_curves_agree_with_the_reference(family):
    words = [*family, "trainer.max_steps=200", "trainer.eval_every=100", "trainer.eval_batches=1", "data.batch_size=16"]
    _, ours = train(*words, "trainer.kernel=native", out="a")
    _, plain = train(*words, "trainer.kernel=reference", out="b")
    for a, b in zip(rows_of(ours), rows_of(plain), strict=True):
        for key in a.keys() & {"train/loss", "val/loss"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4), (key, a["step"])


@NATIVE
def test_a_compiled_graph_goes_with_the_kernel_it_was_made_for():
    """Runs of one process may ask for several: the second one once ran the first one's graph."""
    made, calls = [], []

    def backend(graph, _):
        made.append(any("dyt" in str(node.target) for node in graph.graph.nodes))
        return lambda *inputs: (calls.append(made[-1]), graph.forward(*inputs))[1]

    layer, x = DynamicTanh(4), torch.randn(3, 4)
    compiled = torch.compile(layer, backend=backend)
    for kernel in ("reference", "native", "native", "reference"):
        kernels.force(kernel)
        torch.testing.assert_close(compiled(x), layer(x))
    assert made == [False, True, False] and calls == [False, True, True, False]


def test_a_run_without_threads_has_its_callers_after_one_with_others():
    torch.set_num_threads(2)
    got = []
    for asked in (1, 3, None, None, 3):
        cpu.prepare(asked)
        got.append(torch.get_num_threads())
    torch.set_num_threads(4)  # by the caller, between two runs
    for asked in (1, None):
        cpu.prepare(asked)
        got.append(torch.get_num_threads())
    assert got == [1, 3, 2, 2, 3, 1, 4]
    torch.set_num_threads(1)
    words = [*TINY_GPT[:-1], "trainer.max_steps=1", "trainer.eval_batches=1"]
    assert train(*words, "trainer.threads=3")[0]["provenance"]["threads"] == 3
    assert train(*words)[0]["provenance"]["threads"] == 1


# -- building ------------------------------------------------------------------------------------------------------

SAY = """
import logging; logging.basicConfig()
import torch, dyt
m = dyt.DynamicTanh(4)
print(m(torch.ones(1, 4))[0, 0].item())
m(torch.ones(1, 4))
"""


def fresh(tmp_path, **environment):
    env = {**os.environ, "DYT_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, env=env, timeout=300)


@pytest.mark.parametrize("why", ["no compiler", "broken compiler", "folder cannot be written"])
def test_without_a_build_plain_pytorch_takes_over_with_one_line(why, tmp_path):
    environment = {}
    if why == "no compiler":
        environment["CXX"] = "no-such-compiler"
    elif why == "broken compiler":
        environment["CXX"] = "false"
    else:
        (tmp_path / "cache").write_text("a file stands here")
    done = fresh(tmp_path, **environment)
    assert done.returncode == 0 and float(done.stdout) == pytest.approx(math.tanh(0.5), abs=1e-6)
    assert done.stderr.count("plain PyTorch takes its place") == 1
    forced = fresh(tmp_path, **environment, DYT_KERNEL="reference")
    assert forced.returncode == 0 and not forced.stderr.strip()


@pytest.mark.slow
@NATIVE
def test_the_environment_forces_one_or_says_why_not(tmp_path):
    done = fresh(tmp_path, DYT_CACHE_DIR=os.environ.get("DYT_CACHE_DIR", ""), DYT_KERNEL="native")
    assert done.returncode == 0 and float(done.stdout) == pytest.approx(math.tanh(0.5), abs=1e-6)
    for kernel, says in (("native", "no compiler 'no-such-compiler'"), ("fast", "choose from auto, reference")):
        done = fresh(tmp_path, CXX="no-such-compiler", DYT_KERNEL=kernel)
        assert done.returncode == 1 and f"ValueError: DYT_KERNEL={kernel}: {says}" in done.stderr
        run = python(
            "train.py",
            "trainer.max_steps=1",
            f"out_root={tmp_path}",
            DYT_KERNEL=kernel,
            CXX="no-such-compiler",
            DYT_CACHE_DIR=str(tmp_path),
        )
        assert run.returncode == 1 and f"DYT_KERNEL={kernel}: {says}" in one_line(run)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_triton_is_refused_where_it_cannot_run():
    pytest.importorskip("triton")
    with pytest.raises(ValueError, match="trainer.kernel=triton: torch sees no GPU here; type trainer.kernel=auto"):
        kernels.force("triton")


def test_names():
    with pytest.raises(ValueError, match="trainer.kernel=fast: choose from auto, reference, compiled, native, triton"):
        kernels.force("fast")


# -- Triton --------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
@pytest.mark.slow
@pytest.mark.parametrize("where", ["interpreter", "gpu"])
def test_triton_is_within_the_same_promise(where):
    """In a process of its own: the interpreter must be chosen before Triton is imported."""
    pytest.importorskip("triton")
    if where == "gpu" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    env = {**os.environ, "DYT_TEST_KERNEL": "triton", "TRITON_INTERPRET": str(int(where == "interpreter"))}
    files = [str(ROOT / "tests" / name) for name in ("test_kernel_promise.py", "triton_checks.py")]
    words = [sys.executable, "-m", "pytest", *files, "-p", "no:cacheprovider"]
    done = subprocess.run(words, capture_output=True, text=True, env=env, timeout=580, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout and "failed" not in done.stdout
