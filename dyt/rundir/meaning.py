"""What a run says: its config, its metrics' names, what its weights' inputs and outputs mean. No torch."""

import json
from pathlib import Path

import yaml

from dyt.rundir.files import read_json

NEEDED = (("model", "task"), ("model", "name"), ("data", "task"), ("data", "name"), ("norm", "kind"), ("norm", "name"))
RISING = ("top", "precision", "recall", "return")  # how the names of metrics begin of which more is better


def rises(metric: str) -> bool:
    """Whether more is better: by the name's last part, as in ``val/top1``."""
    return metric.split("/")[-1].startswith(RISING)


def unit_of(task: str) -> str:
    """What training on data of this task is counted in."""
    return {"image": "images", "audio": "recordings"}.get(task, "tokens")


def read_config(run: Path) -> dict:
    """The config of a run directory.

    Raises:
        ValueError: it is not one, or damaged.
    """
    if not (run / "config.yaml").is_file():
        raise ValueError(f"run={run}: not a run directory (no config.yaml); train.py prints it as its last line")
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
        for part, key in NEEDED:
            if not isinstance(config[part][key], str):
                raise TypeError(f"{part}.{key} is no text")
        config["trainer"]["precision"], config["data"]["path"]
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        text = " ".join(str(error).split())[:120]
        raise ValueError(
            f"run={run}: its config.yaml is damaged or of another program ({type(error).__name__}: {text})"
        ) from error
    return config


def meaning(source: Path) -> dict:
    """``{"kind", "chars", "classes"}`` of a run directory or an exported safetensors file, as far as it says."""
    if source.is_dir():
        tokenizer, classes = read_json(source / "tokenizer.json"), (read_json(source / "run.json") or {}).get("classes")
    else:
        written = _metadata(source)
        tokenizer, classes = (_loaded(written.get(key)) for key in ("tokenizer", "classes"))
    return told(tokenizer, classes)


def told(tokenizer, classes) -> dict:
    """The same of what a tokenizer.json holds and of classes, whatever is there."""
    tokenizer = tokenizer if isinstance(tokenizer, dict) else {}
    kind, chars = tokenizer.get("kind"), tokenizer.get("chars")
    named = isinstance(classes, list) and all(isinstance(c, str) for c in classes)
    return {
        "kind": kind if isinstance(kind, str) else None,
        "chars": chars if kind == "char" and isinstance(chars, str) else None,
        "classes": classes if named and classes else None,
    }


def _loaded(text):
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return None


def _metadata(file: Path) -> dict:
    """A safetensors file's ``__metadata__``: eight bytes of length, then JSON."""
    try:
        with open(file, "rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            found = json.loads(stream.read(min(size, 100 << 20)))["__metadata__"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}
