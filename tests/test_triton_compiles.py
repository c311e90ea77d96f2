"""The Triton kernels compile for GPUs that are not here: the interpreter forgives what the compiler refuses."""

import re

import pytest

pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource, compile  # noqa: E402

from dyt.kernels import gpu_kernels  # noqa: E402

TENSORS = ("x", "y", "g", "dx")
PARAMETERS = ("alpha", "weight", "bias", "shift")
SIZES = ("rows", "cols", "channels", "steps")


def ptx(kernel, dtype: str, compute_capability=90, absent=("shift",), ones=(), of_parameters=None, **constants) -> str:
    """As a launch with these arguments would make it: what is absent is a constant None, a size of 1 a constant."""
    acc = "fp64" if dtype == "fp64" else "fp32"
    constants = {"squash": 0, "wide": True, "alpha_each": False, "C": 1024} | constants
    constants |= {"R": 4 if kernel is gpu_kernels.forward else 2, "acc": tl.float64 if acc == "fp64" else tl.float32}
    constants |= {f"has_{p}": p not in absent for p in PARAMETERS} | dict.fromkeys(absent) | dict.fromkeys(ones, 1)
    names = [n for n in kernel.arg_names if n not in constants]
    types = dict.fromkeys(SIZES, "i32") | dict.fromkeys(TENSORS, f"*{dtype}")
    types |= dict.fromkeys(PARAMETERS, f"*{of_parameters or dtype}") | dict.fromkeys(("sums", "totals"), f"*{acc}")
    place = kernel.arg_names.index
    made = ASTSource(
        kernel,
        {n: types[n] if n in names else "constexpr" for n in kernel.arg_names},
        {(place(n),): v for n, v in constants.items() if n in kernel.arg_names},
        {(place(n),): [["tt.divisibility", 16]] for n in names if n != "steps"},
    )
    target = GPUTarget("cuda", compute_capability, 32)
    compiled = compile(made, target=target, options={"enable_fp_fusion": True})
    assert compiled.asm["cubin"]  # the assembler took it too
    return compiled.asm["ptx"]


@pytest.fixture(autouse=True)
def no_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


both = pytest.mark.parametrize("kernel", [gpu_kernels.forward, gpu_kernels.backward], ids=["forward", "backward"])


@both
@pytest.mark.parametrize("compute_capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_reads_and_writes_sixteen_bytes_at_a_time(kernel, compute_capability, dtype):
    code = ptx(kernel, dtype, compute_capability)
    narrow = {what: len(re.findall(rf"{what}\.global(?!\.v4\.b32)\.", code)) for what in ("ld", "st")}
    assert narrow["ld"] == 1  # alpha
    assert narrow["st"] == (kernel is gpu_kernels.backward)  # the sum that is alpha's gradient
    assert "ld.global.v4.b32" in code and "st.global.v4.b32" in code


@both
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
@pytest.mark.parametrize("squash", range(6))
def test_every_squash_and_layout(kernel, squash, wide):
    ptx(kernel, "fp32", absent=(), squash=squash, wide=wide)


@both
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
@pytest.mark.parametrize("alpha_each", [True, False])
@pytest.mark.parametrize("absent", [("shift",), ("bias", "shift"), ("weight", "bias", "shift")])
def test_every_set_of_parameters(kernel, absent, alpha_each, wide):
    ptx(kernel, "bf16", absent=absent, alpha_each=alpha_each, wide=wide)


@both
@pytest.mark.parametrize("wide", [True, False], ids=["wide", "tall"])
def test_other_cases(kernel, wide):
    assert "f64" in ptx(kernel, "fp64", wide=wide)
    ptx(kernel, "fp32", of_parameters="bf16", wide=wide)
    ptx(kernel, "fp32", absent=PARAMETERS, wide=wide)
    ptx(kernel, "fp32", C=1, wide=wide)
    for ones in (("steps",), ("rows",), ("cols",), ("channels",), ("cols", "channels")):
        ptx(kernel, "fp32", ones=[n for n in ones if n in kernel.arg_names], wide=wide)
