"""Devices and what they hold, compute and cost; and the memory that is free on this machine."""

import contextlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch

GIB = 2**30
GROUP = Path("/sys/fs/cgroup")
# What allocators take over the tensors: glibc's heap, which keeps what is freed, was seen to take 1.3 times a gpt_mini
# step's; on a GPU it is an assumption.
GAPS = {"cpu": 1.25, "cuda": 1.05}


@dataclass(frozen=True)
class Device:
    """One device.

    Args:
        name: as a person writes it.
        memory: bytes.
        bf16: FLOPs a second at its peak, dense, bfloat16 with autocast.
        fp32: likewise in float32, without TF32, as torch computes by default.
        price: of an hour, in dollars: an assumption, about what clouds ask for on demand; ``hardware.price`` sets it.
    """

    name: str
    memory: int
    bf16: float
    fp32: float
    price: float


# NVIDIA's data sheets, dense: A100 SXM 80 GB, H100 SXM, H200 SXM, B200, GeForce RTX 4090.
DEVICES = {
    "rtx4090": Device("RTX 4090", 24 * GIB, 165e12, 82.6e12, 0.5),
    "a100": Device("A100", 80 * GIB, 312e12, 19.5e12, 1.5),
    "h100": Device("H100", 80 * GIB, 989e12, 67e12, 2.5),
    "h200": Device("H200", 141 * GIB, 989e12, 67e12, 3.0),
    "b200": Device("B200", 180 * GIB, 2250e12, 75e12, 5.0),
}
CPU_HOUR = 0.04  # dollars an hour of a core


def device_of(kind: str) -> Device:
    """The device of ``hardware.kind``; auto: a GPU where torch sees one, else this machine's CPU, measured.

    Raises:
        ValueError: torch sees a GPU whose peak is not known here.
    """
    if kind in DEVICES:
        return DEVICES[kind]
    if kind == "auto" and torch.cuda.is_available():
        name, total = torch.cuda.get_device_name(), torch.cuda.get_device_properties(0).total_memory
        words = re.split(r"[^a-z0-9]+", name.lower().replace("rtx ", "rtx"))
        known = next((d for k, d in DEVICES.items() if k in words), None)
        if known is None:
            raise ValueError(f"hardware.kind=auto: the peak of {name} is not known; type one of {', '.join(DEVICES)}")
        return Device(name, total, known.bf16, known.fp32, known.price)
    threads = torch.get_num_threads()
    rates = [_rate(dtype) for dtype in (torch.bfloat16, torch.float32)]
    return Device(f"CPU, {threads} threads", total_memory(), *rates, CPU_HOUR * threads)


def _rate(dtype: torch.dtype, size: int = 512) -> float:
    """FLOPs a second of a matrix product on this machine's CPU, all its threads.

    One thread is measured, by its own time: others may be at work, and threads that wait for each other count as busy.
    """
    threads = torch.get_num_threads()
    a = torch.ones(size, size, dtype=dtype)
    times = []
    torch.set_num_threads(1)
    try:
        for _ in range(8):
            began = time.thread_time()
            a @ a
            times.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return threads * 2 * size**3 / min(times)


def free_memory(device: torch.device, processes: int = 1) -> int | None:
    """Bytes that this process may still take on `device`; None where the system does not say.

    Args:
        device: a GPU, whose driver knows, or the CPU.
        processes: that share this machine's memory.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [_line("/proc/meminfo", "MemAvailable:"), _of_group()]
    known = [value for value in found if value is not None]
    return min(known) // processes if known else None


def total_memory() -> int:
    """Bytes of this machine, or of the container that this process is in."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        return min(machine, int((GROUP / "memory.max").read_text()))  # "max" is no number: no limit
    return machine


def _line(file: str, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(file).read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    return None


def _of_group() -> int | None:
    """What a container's limit (cgroup, version 2) leaves."""
    with contextlib.suppress(OSError, ValueError):
        limit = (GROUP / "memory.max").read_text().strip()
        used = int((GROUP / "memory.current").read_text())
        cached = next(
            int(line.split()[1])
            for line in (GROUP / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )
        return None if limit == "max" else int(limit) - used + cached
    return None
