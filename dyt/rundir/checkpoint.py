"""Checkpoints: written whole or not at all, verified before use, loaded without running code.

A checkpoint is ``<kind>-<step>.pt`` and, written last, its manifest ``<kind>-<step>.json`` with sha256. Kind ``step``
holds all that exact continuation needs; ``best`` holds weights only. No random state is kept: every step seeds itself
(dyt/data/order.py).
"""

import logging
import pickle
from pathlib import Path

import torch

from dyt.rundir.files import manifests, replace_file, sha256_of, verified, write_json

log = logging.getLogger(__name__)


def save(folder: Path, kind: str, step: int, state: dict, keep: int, **about) -> None:
    """Writes a checkpoint and removes all but the newest `keep` of its kind.

    `state` holds tensors and plain Python only, so that ``weights_only=True`` loads it; `about` goes to the manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{kind}-{step:09d}"
    file = folder / f"{name}.pt"
    replace_file(file, lambda stream: torch.save(state, stream))
    write_json(folder / f"{name}.json", {"file": file.name, "sha256": sha256_of(file), "step": step, **about})
    for manifest in manifests(folder, kind)[keep:]:
        remove(manifest)


def remove(manifest: Path) -> None:
    """Removes a checkpoint, manifest first: a file without one is never loaded."""
    manifest.unlink(missing_ok=True)
    manifest.with_suffix(".pt").unlink(missing_ok=True)


def newest(folder: Path, kind: str = "step", device="cpu") -> tuple[dict, dict] | None:
    """(state, manifest) of the newest checkpoint that verifies, or None; a damaged one is named and passed over."""
    for manifest in manifests(folder, kind):
        found = verified(manifest)
        if isinstance(found, str):
            log.warning("checkpoint passed over: %s", found)
            continue
        file, content = found
        try:
            state = torch.load(file, map_location=device, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError):
            log.warning("checkpoint passed over: %s: not plain tensors and numbers, so not loaded", file)
            continue
        if isinstance(state, dict) and _weights(state.get("model")) and isinstance(content["step"], int):
            return state, content
        log.warning("checkpoint passed over: %s: it holds no model", file)
    return None


def _weights(found) -> bool:
    return isinstance(found, dict) and all(isinstance(value, torch.Tensor) for value in found.values())


def load_weights(model: torch.nn.Module, weights: dict, source: str) -> None:
    """Copies weights into `model`.

    Raises:
        ValueError: they are of another model; the line names the first keys or shapes that differ.
    """
    ours = model.state_dict()
    wrong = [
        f"{k} {tuple(weights[k].shape)} there, {tuple(ours[k].shape)} here"
        for k in ours
        if k in weights and weights[k].shape != ours[k].shape
    ]
    if not wrong:  # a layer may know a parameter by another name: DyT takes alpha however it was learned
        missing, unknown = model.load_state_dict(weights, strict=False)
        wrong = [f"{k} missing" for k in missing] + [f"{k} unknown" for k in unknown]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{source}: weights of another model or norm ({'; '.join(wrong[:3])}{more})")


def encoder_of(weights: dict, ours: dict) -> dict:
    """A masked autoencoder's weights as those of a classifier: its encoder's, and `ours` of the head.

    Weights without an encoder come back as they are, and so do those for a model that has one too.
    """
    inside = {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}
    if not inside or any(k.startswith("encoder.") for k in ours):
        return weights
    return inside | {k: v for k, v in ours.items() if k.startswith("head.")}


def read_weights(source: str) -> dict:
    """The weights of a run directory's newest checkpoint, or of a safetensors file."""
    path = Path(source).expanduser()
    if path.is_file():
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{source}: not a readable safetensors file ({error})") from error
    found = newest(path / "checkpoints")
    if found is None:
        raise ValueError(f"{source}: no checkpoint there that verifies")
    return found[0].get("ema") or found[0]["model"]  # what eval.py measures
