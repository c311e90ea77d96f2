"""Batches on their device, one ahead. A batch is a tensor, or a tuple of batches."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def each(batch, change: Callable[[Tensor], Tensor]):
    """`change` of every tensor of a batch, which is a tensor or a tuple of batches."""
    return tuple(each(part, change) for part in batch) if isinstance(batch, tuple | list) else change(batch)


def ahead(batches: Iterable[tuple], device: torch.device) -> Iterator[tuple]:
    """`batches` on `device`. On a GPU the next one travels on a stream of its own while this one is computed.

    What is asked for is the same in the same order, so that nothing else changes.
    """
    if device.type != "cuda":
        yield from batches
        return
    batches, stream, now = iter(batches), torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def fetch() -> tuple | None:
        found = next(batches, None)
        with torch.cuda.stream(stream):  # from pinned memory, which stays until the copy is done
            return None if found is None else each(found, lambda t: t.to(device, non_blocking=True))

    coming = fetch()
    while coming is not None:
        now.wait_stream(stream)
        each(coming, lambda t: t.record_stream(now))  # made on one stream, used on another
        here, coming = coming, fetch()
        yield here
