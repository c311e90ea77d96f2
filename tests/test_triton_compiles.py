"""The Triton kernels compile for GPUs that are not here: the interpreter forgives what the compiler refuses."""

import pytest

pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, compile  # noqa: E402

from dyt.kernels import gpu  # noqa: E402

TENSORS = ("x", "y", "g", "dx", "alpha", "weight", "bias", "shift")
SIZES = ("rows", "cols", "channels", "steps")


def ptx(kernel, compute_capability: int, dtype: str, absent=(), squash=0, wide=True, alpha_each=False) -> str:
    """As a launch with these arguments would have it made: a missing tensor is a constant None."""
    acc = "fp64" if dtype == "fp64" else "fp32"
    constants = {"squash": squash, "wide": wide, "alpha_each": alpha_each, "R": 2, "C": 1024}
    constants |= {f"has_{p}": p not in absent for p in ("alpha", "weight", "bias", "shift")} | dict.fromkeys(absent)
    constants["acc"] = tl.float64 if acc == "fp64" else tl.float32
    names = [n for n in kernel.arg_names if n not in constants]
    types = {n: "i32" if n in SIZES else f"*{dtype}" if n in TENSORS else f"*{acc}" for n in names}
    place = kernel.arg_names.index
    made = ASTSource(
        kernel,
        {n: types.get(n, "constexpr") for n in kernel.arg_names},
        {(place(n),): v for n, v in constants.items() if n in kernel.arg_names},
        {(place(n),): [["tt.divisibility", 16]] for n in names if n != "steps"},
    )
    compiled = compile(made, target=GPUTarget("cuda", compute_capability, 32), options={"enable_fp_fusion": True})
    assert compiled.asm["cubin"]  # the assembler took it too
    return compiled.asm["ptx"]


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("kernel", [gpu._forward, gpu._backward], ids=["forward", "backward"])
@pytest.mark.parametrize("compute_capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_reads_and_writes_sixteen_bytes_at_a_time(kernel, compute_capability, dtype):
    code = ptx(kernel, compute_capability, dtype, absent=["shift"])
    assert "ld.global.v4.b32" in code and "st.global.v4.b32" in code


@pytest.mark.parametrize("kernel", [gpu._forward, gpu._backward], ids=["forward", "backward"])
@pytest.mark.parametrize("absent", [(), ("alpha", "weight", "bias", "shift")], ids=["all", "none"])
@pytest.mark.parametrize("squash", range(6))
def test_every_squash_layout_and_set_of_parameters(kernel, absent, squash):
    ptx(kernel, 90, "fp32", absent, squash, wide=squash % 2 == 0, alpha_each=not absent)


@pytest.mark.parametrize("kernel", [gpu._forward, gpu._backward], ids=["forward", "backward"])
def test_double(kernel):
    assert "f64" in ptx(kernel, 90, "fp64")
