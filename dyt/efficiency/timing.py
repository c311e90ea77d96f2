"""Times of calls that take turns, ratios with intervals, and memory."""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

BLOCK = 4  # timed calls of one contender before the next has its turn


def take_turns(calls: dict[str, Callable], rounds: int, device, launches: bool = True) -> dict[str, list[float]]:
    """Times of each call in ms: `rounds` blocks of ``BLOCK``, contenders alternating block by block.

    One untimed call before each block, so that another contender's leftovers in the allocator favour none. On a GPU
    `launches` False leaves out what Python takes to launch: the time of the kernels, as in a model that keeps it busy.
    """
    timed = _wall if torch.device(device).type == "cpu" else _wall_cuda if launches else _kernels
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    for i in range(rounds):
        for name in order if i % 2 else reversed(order):
            calls[name]()
            times[name] += [timed(calls[name]) for _ in range(BLOCK)]
    return times


def _wall(call: Callable) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def _wall_cuda(call: Callable) -> float:
    torch.cuda.synchronize()
    return _wall(lambda: (call(), torch.cuda.synchronize()))


def _kernels(call: Callable) -> float:
    """The GPU waits while all is put into its queue, then does it at a stretch; longer where the wait did not do."""
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for cycles in (4_000_000, 16_000_000, 64_000_000):  # from some 2 ms on
        torch.cuda._sleep(cycles)
        began.record()
        call()
        ended.record()
        in_time = not began.query()
        ended.synchronize()
        if in_time:
            break
    return began.elapsed_time(ended)


def spread(values: list[float]) -> dict:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


def difference(arm: list[float], base: list[float]) -> float:
    """Median over rounds of the blocks' differences: what two turns of one round share falls out."""
    return float(np.median(_blocks(arm) - _blocks(base)))


def ratio(arm: list[float], base: list[float], without: list[float] | None = None) -> dict:
    """Ratio of medians with its 95% interval by bootstrap over rounds; with `without`, of differences from it.

    Arguments are times as `take_turns` gives them. ``low`` and ``high`` are None where the base's side is not above
    zero in more than a fortieth of the draws.
    """
    rounds = len(arm) // BLOCK
    draws = np.random.default_rng(0).integers(rounds, size=(2000, rounds))
    draws[0] = np.arange(rounds)  # the measurement itself

    def medians(values):
        if without is not None:
            return np.median((_blocks(values) - _blocks(without))[draws], axis=1)
        return np.median(np.reshape(values, (rounds, BLOCK))[draws].reshape(len(draws), -1), axis=1)

    top, bottom = medians(arm), medians(base)
    there = bottom > 0
    found = {"median": round(float(top[0] / bottom[0]), 4) if there[0] else None, "low": None, "high": None}
    if there.mean() > 0.975 and there[0]:
        low, high = np.quantile(top[there] / bottom[there], [0.025, 0.975])
        found |= {"low": round(float(low), 4), "high": round(float(high), 4)}
    return found


def _blocks(times: list[float]) -> np.ndarray:
    return np.median(np.reshape(times, (-1, BLOCK)), axis=1)


def saved_bytes(forward: Callable[[], Tensor], parameters: list[Tensor]) -> int:
    """Bytes that autograd keeps for backward, parameters left out, each piece of memory once."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = forward()
    del out
    return sum(kept.values())


def peak_bytes(call: Callable[[], object], device) -> int:
    """Most bytes that `call` holds at once beyond what was there before."""
    call()
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profiled(profile_memory=True) as seen:
        call()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(0, *np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).tolist(), 0)


def profiled(**options) -> torch.profiler.profile:
    """torch's profiler on the CPU, without what it says of itself."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], **options)
