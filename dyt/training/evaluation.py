"""What a model is worth on a split: metrics over all its samples, and what a task measures once of a finished model."""

import torch
from torch import nn

from dyt.tasks import Place, sums_over
from dyt.training.distributed import World


@torch.no_grad()
def evaluate(model: nn.Module, task, data, split: str, world: World, autocast, limit: int | None = None) -> dict:
    """Metrics of `model` on a split, named ``<split>/<metric>``, weighted exactly over all processes.

    Raises:
        ValueError: nothing there counts, as where all bases are unknown.
    """
    model.eval()
    size, rank, ranks = data.data["eval_batch_size"], world.data_rank, world.data_size
    batches = (
        task.prepare(*world.moved(batch), Place((split,), (i * ranks + rank) * size))
        for i, batch in enumerate(data.eval_batches(split, rank, ranks, limit))
    )
    if world.sharded:
        spare = next(iter(data.eval_batches(split)), None)  # None where nothing is there, and nobody has more
        spare = spare and task.prepare(*world.moved(spare), Place((split,), 0))
        batches = world.in_step(batches, lambda: task.measure(model, *spare))
    with autocast:
        sums = sums_over(model, batches, task.measure)
    if sums is None:  # more processes than batches
        sums = torch.zeros(len(task.names) + 1, dtype=torch.float64, device=world.device)
    *values, count = world.add(sums).tolist()
    if not count:
        of = f"{limit} batches of {split}" if limit else split
        raise ValueError(f"{of}: hold nothing to measure; set trainer.eval_batches higher, or use other data")
    return {f"{split}/{name}": value / count for name, value in zip(task.names, values, strict=True)}


@torch.no_grad()
def at_end(model: nn.Module, task, data, split: str, world: World, autocast) -> tuple[dict, object]:
    """What a task measures once of a finished model, named ``<split>/<metric>``, and its picture or None."""
    model.eval()
    with autocast:
        row, picture = task.at_end(model, data, split, world.device)
    return {f"{split}/{name}": value for name, value in row.items()}, picture
