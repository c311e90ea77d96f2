"""Trained models for others: exported folders, what loads them, and their model cards."""

import json
from pathlib import Path

from torch import nn

TASKS = ("text", "image", "diffusion", "mae", "dino", "wav2vec2", "decision", "bases", "sequence")


def spec_of(weights: dict, task: str, reads: str | None = None) -> dict:
    """What a model must know of its data to be built, read from its weights: vocabulary, or channels and classes.

    Args:
        reads: the kind of data of somebody's own task, as its model says; None: text, as for their batches.

    Raises:
        ValueError: they are no such model's.
    """
    task = task if task in TASKS else reads or "text"
    if task == "text":
        if "embed.weight" not in weights:
            raise ValueError("these weights are no text model's: there is no embed.weight")
        return {"vocab_size": len(weights["embed.weight"])}
    if task == "decision":
        named = {"states": "embed_state.weight", "actions": "embed_action.weight"}
        return {key: weights[name].shape[1] for key, name in named.items()} | {
            "steps": len(weights["embed_time.weight"])
        }
    if task in ("bases", "sequence"):
        letters = len(next(v for k, v in weights.items() if k.endswith("embed.weight")))
        return {"vocab_size": letters, **({"classes": len(weights["head.weight"])} if task == "sequence" else {})}
    first = next((v for v in weights.values() if v.dim() == 4), None)
    if task == "diffusion":
        return {"channels": first.shape[1], "classes": len(weights["label.weight"]) - 1}
    if task in ("mae", "dino"):
        return {"channels": first.shape[1]}
    if task == "wav2vec2":
        return {}
    last = next((v for v in reversed(weights.values()) if v.dim() == 2), None)
    if first is None or last is None:
        raise ValueError("these weights are no image model's")
    return {"channels": first.shape[1], "classes": last.shape[0]}


def rebuilt(config: dict, weights: dict, spec: dict, where: str) -> tuple[nn.Module, list]:
    """The model of a run's config with `weights`, for inference, and its norms with their sites.

    Raises:
        ValueError: config and weights do not fit; the line begins with `where`.
    """
    from dyt.data.spec import Spec
    from dyt.rundir.checkpoint import load_weights
    from models import build_model

    task = config["model"]["task"]
    try:
        model, factory = build_model(config["model"], config["norm"], Spec(task, "", {}, **spec))
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        text = " ".join(str(error).split())[:120]
        raise ValueError(f"{where}: its config is damaged ({type(error).__name__}: {text})") from error
    load_weights(model, weights, where)
    return model.eval(), factory.made


def load(folder: str | Path) -> nn.Module:
    """The model of a folder that ``scripts/export.py`` wrote with format=pt, ready for inference.

    Raises:
        ValueError, OSError: no such folder, or damaged; one line.
    """
    from safetensors import SafetensorError, safe_open

    from dyt.rundir.files import read_json
    from dyt.rundir.meaning import read_config

    folder = Path(folder).expanduser()
    config = read_config(folder)
    index = read_json(folder / "model.safetensors.index.json") or {}
    names = sorted(set(index.get("weight_map", {}).values())) or ["model.safetensors"]
    weights, spec = {}, None
    try:
        for name in names:
            with safe_open(folder / Path(name).name, "pt") as file:
                weights |= {key: file.get_tensor(key) for key in file.keys()}
                spec = file.metadata().get("spec")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{folder}: its model.safetensors is missing or damaged ({error})") from error
    if spec is None:
        raise ValueError(f"{folder}: was not written by export.py with format=pt; type format=pt to write it anew")
    return rebuilt(config, weights, json.loads(spec), str(folder))[0]
