"""Builds and loads native.cpp: once per machine, compiler flags and torch version, kept in the cache folder."""

import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("native.cpp")
HEADER = Path(__file__).with_name("squash.h")
WAIT_S = 600  # the longest a build is waited for


def flags() -> list[str]:
    """The compiler's flags for this processor's vectors, as ATen's headers want them."""
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512":
        chosen = ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mfma", "-mf16c"]
    elif capability == "AVX2":
        chosen = ["-mavx2", "-mfma", "-mf16c"]
    else:
        return ["-DCPU_CAPABILITY=DEFAULT"]
    return [*chosen, f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}"]


def _command(compiler: str, to: Path) -> list[str]:
    from torch.utils.cpp_extension import include_paths, library_paths

    return [
        compiler,
        *("-std=c++20", "-O3", "-fPIC", "-shared", "-fopenmp", *flags()),
        *(f"-I{path}" for path in include_paths()),
        str(SOURCE),
        *("-o", str(to)),
        *(f"-L{path}" for path in library_paths()),
        *("-lc10", "-ltorch_cpu", "-ltorch"),
    ]


def library() -> Path:
    """Where this machine's build belongs: named by source, flags, compiler and torch."""
    compiler = os.environ.get("CXX", "c++")
    key = hashlib.sha256(SOURCE.read_bytes() + HEADER.read_bytes())
    key.update(repr((flags(), compiler, torch.__version__)).encode())
    cache_dir = Path(os.environ.get("DYT_CACHE_DIR") or "~/.cache/dyt").expanduser()
    return cache_dir / "kernels" / f"dyt-{key.hexdigest()[:16]}.so"


def build(to: Path) -> None:
    """Compiles to `to`. Of two processes that build at once, one compiles and the other waits for it.

    Raises:
        OSError: no compiler, a folder that cannot be written, or a compiler that fails; the text says which.
    """
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise OSError(f"no compiler {compiler!r} on the path (CXX names another)")
    to.parent.mkdir(parents=True, exist_ok=True)
    with open(to.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the system if its holder dies
        if to.exists():
            return
        log.warning("compiling the fused DyT kernel for this machine (half a minute, once) to %s", to)
        part = to.with_suffix(f".{os.getpid()}.part")
        try:
            done = subprocess.run(_command(compiler, part), capture_output=True, text=True, timeout=WAIT_S)
            if done.returncode:
                first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[:200])
                raise OSError(f"{compiler} failed: {first}")
            part.replace(to)
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{compiler} took over {WAIT_S} s") from error
        finally:
            part.unlink(missing_ok=True)


@cache
def load() -> str | None:
    """Loads the operators ``torch.ops.dyt.fused``; None when they are there, else why not, in words."""
    try:
        to = library()
        if not to.exists():
            build(to)
        torch.ops.load_library(str(to))
    except (OSError, RuntimeError) as error:
        return " ".join(str(error).split())[:300]
    return None
