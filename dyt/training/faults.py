"""What ended a run: one line that says what to do, and for a divergence a file with what was seen just before."""

import contextlib
import multiprocessing
from pathlib import Path

import torch
from torch import distributed

from dyt.rundir.files import finite, write_json

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport", "NCCL")


def explain(error: BaseException, config: dict) -> str | None:
    """One line for running out of memory, a lost or hanging loader, and data that cannot be read; else None."""
    text = str(error)
    if isinstance(error, distributed.DistError) or (distributed.is_initialized() and any(w in text for w in LOST)):
        return "another process of this run ended; the same command goes on from the last checkpoint"
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        trainer, size = config["trainer"], config["data"]["batch_size"]
        ranks = distributed.get_world_size() // trainer["tp"] if distributed.is_initialized() else 1
        piece = trainer["micro_batch"] or size // (ranks * trainer["accumulate"])  # samples at once in a process
        half = min(piece, size // ranks) // 2
        least = 2 if config["data"].get("mixup") or config["data"].get("cutmix") else 1  # they mix in pairs
        same = "gives the same curve but for dropout and BatchNorm, which are of a piece"
        helps = [f"trainer.micro_batch={half} needs less and {same}"] if half >= least else []
        helps += [] if trainer["precision"] == "bf16" else ["trainer.precision=bf16 needs less"]
        helps.append(f"an evaluation needs less with data.eval_batch_size below {config['data']['eval_batch_size']}")
        helps.append(f"a smaller model or data.batch_size (now {size}) changes the numbers")
        return f"out of memory ({' '.join(text.split())[:120]}); {'; '.join(helps)}"
    if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
        return (
            f"a data loader process ended ({' '.join(text.split())[:160]}), often because memory ran out; the same "
            f"command goes on, with data.workers={max(0, config['data']['workers'] // 2)} it needs less"
        )
    if "DataLoader timed out" in text:
        for child in multiprocessing.active_children():
            child.kill()  # a hanging one does not hear a polite request, and Python would wait for it at its end
        return (
            f"no data for {config['data']['timeout']:g} s (data.timeout): a loader process hangs, or the disk does; "
            "the same command goes on"
        )
    if isinstance(error, ValueError):  # of a loader process: its own traceback ends with the line
        return (text.strip().splitlines() or ["ValueError without words"])[-1].removeprefix("ValueError: ")
    return None


def say(text: str, file=None) -> None:
    """Prints a line; a terminal that went away, or a full disk behind a redirected output, never ends a run."""
    with contextlib.suppress(OSError):
        print(text, file=file, flush=True)


def write_failure(path: Path | None, loop, probe, error) -> None:
    """What is known of a divergence: the last steps, and each norm's input, alpha and saturation just before it.

    The weights are those before the step that would have spoilt them, or those that a validation loss was measured
    with. Numbers that are not finite are null. A process that only takes part, since the model is sharded, has no path.

    Args:
        error: the loop's `Diverged`: why, and in which step.
    """
    with torch.no_grad():
        row, _ = probe.layers(loop.autocast)
    if path is None:
        return
    layers: dict[str, dict] = {}
    for key, value in row.items():
        _, layer, name = key.split("/")
        layers.setdefault(layer, {})[name] = value
    failure = {"why": str(error), "step": error.step, "steps": list(loop.recent), "layers": layers}
    write_json(path, finite(failure))
