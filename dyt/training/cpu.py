"""How a run, and a benchmark of what a run does, sets up its process on the CPU."""

import ctypes
import sys

import torch

_own: tuple[int, int] | None = None  # threads as torch or its caller had them, and those that a run took instead


def prepare(threads: int | None = None) -> None:
    """Flushes denormals to zero and keeps freed memory; call it before the first parallel operation.

    It runs on so many `threads`; None: as torch or its caller chose, also where an earlier run of this process took
    others.

    A dead layer's moments decay into denormals, on which a CPU is 60 times slower: a run at 247 tokens/s was seen.
    """
    global _own
    now = torch.get_num_threads()
    own = _own[0] if _own and _own[1] == now else now  # else its caller has set them since
    if (threads or own) != now:
        torch.set_num_threads(threads or own)
    _own = (own, threads) if threads else None
    torch.set_flush_denormal(True)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Makes glibc keep what is freed instead of handing it back to the system; elsewhere does nothing.

    Else each step fills pages afresh: a gpt_nano step took 4 to 9% longer, and a copy of 64 MiB 16 ms instead of 4.
    """
    if sys.platform == "linux":
        try:
            mallopt = ctypes.CDLL("libc.so.6").mallopt
        except (OSError, AttributeError):  # another C library
            return
        mallopt(-4, 0)  # M_MMAP_MAX: no block of its own for a large tensor
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
