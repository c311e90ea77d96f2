"""Batches on their device, one ahead."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def ahead(batches: Iterable[tuple[Tensor, ...]], device: torch.device) -> Iterator[tuple[Tensor, ...]]:
    """`batches` on `device`. On a GPU the next one travels on a stream of its own while this one is computed.

    What is asked for is the same in the same order, so that nothing else changes.
    """
    if device.type != "cuda":
        yield from batches
        return
    batches, stream, now = iter(batches), torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def fetch() -> tuple[Tensor, ...] | None:
        found = next(batches, None)
        with torch.cuda.stream(stream):  # from pinned memory, which stays until the copy is done
            return None if found is None else tuple(t.to(device, non_blocking=True) for t in found)

    coming = fetch()
    while coming is not None:
        now.wait_stream(stream)
        for t in coming:
            t.record_stream(now)  # made on one stream, used on another
        here, coming = coming, fetch()
        yield here
