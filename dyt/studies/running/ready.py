"""What would fail every run of a study, found before the first one: a missing GPU, data, package or folder."""

import importlib.util
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dyt.studies.running.pool import Task


def refuse_unready(tasks: Iterable[Task], scale: str, results: Path) -> None:
    """Raises for what the machine lacks for `tasks`; writes nothing but the cache of data.

    Raises:
        ValueError, OSError: one line with the word to type.
    """
    tasks = list(tasks)
    if not tasks:
        return
    configs = [task.config for task in tasks]
    _refuse_missing_gpu({config["trainer"]["device"] for config in configs}, scale)
    for folder, word in [(Path(c["out_root"]).expanduser(), f"out_root={c['out_root']}") for c in configs[:1]] + [
        (results, f"--results {results}")
    ]:
        _refuse_unwritable(folder, word)
    if any(c["logger"]["kind"] == "tensorboard" for c in configs) and not importlib.util.find_spec("tensorboard"):
        raise ValueError("logger=tensorboard: the package is missing; type pip install tensorboard")
    from dyt.data import open_data

    seen = set()
    for config in configs:
        key = json.dumps([config["data"], config["model"].get("context")], sort_keys=True)
        if key not in seen:
            seen.add(key)
            open_data(config["data"], config["model"].get("context"))


def _refuse_missing_gpu(devices: set[str], scale: str) -> None:
    if "cuda" not in devices and (scale not in ("gpu", "paper") or devices == {"cpu"}):
        return
    import torch

    if not torch.cuda.is_available():
        if "cuda" in devices:
            raise ValueError(
                "device=cuda: torch sees no GPU here; leave trainer.device out, or type trainer.device=cpu"
            )
        raise ValueError(
            f"--scale {scale} is for a GPU and torch sees none here; type --scale small, or trainer.device=cpu to run "
            "it on this processor all the same (--dry-run says how long)"
        )


def _refuse_unwritable(folder: Path, word: str) -> None:
    there = next((f for f in (folder, *folder.absolute().parents) if f.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x" * 4096)
            file.flush()
    except OSError as error:
        raise ValueError(f"{word}: cannot write there ({error.strerror}); set another folder") from error
