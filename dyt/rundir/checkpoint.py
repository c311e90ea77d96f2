"""Checkpoints: written whole or not at all, verified before use, loaded without running code.

A checkpoint is ``<kind>-<step>.pt`` and, written last, its manifest ``<kind>-<step>.json`` with sha256. Kind ``step``
holds all that exact continuation needs; ``best`` holds weights only. No random state is kept: every step seeds itself
(dyt/data/order.py). What several processes hold together they write together (rundir/sharded.py); it is read here too.
"""

import logging
import pickle
import shutil
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
    file, manifest = folder / f"{name}.pt", folder / f"{name}.json"

    def write(stream) -> None:
        torch.save(state, stream)
        manifest.unlink(missing_ok=True)  # of one of the same step, which is about to be replaced

    replace_file(file, write)
    try:
        write_json(manifest, {"file": file.name, "sha256": sha256_of(file), "step": step, **about})
    except OSError:
        file.unlink(missing_ok=True)  # it would never be read, nor removed
        raise
    remove_others(folder, kind, step, keep)


def remove_others(folder: Path, kind: str, step: int, keep: int) -> None:
    """Removes all but the newest `keep` checkpoints of a kind, the one of `step` first.

    Those of later steps go too: they did not verify, or this run would have gone on from them. The best one up to the
    newest ``step`` checkpoint stays until the next: a run that is killed goes on from there, and later ones come anew.
    """
    found = manifests(folder, kind)
    mine = [manifest for manifest in found if manifest.stem <= f"{kind}-{step:09d}"]
    for manifest in {*found} - {*mine[:keep], *(_known(folder, mine, step) if kind == "best" else ())}:
        remove(manifest)
    if kind == "step":
        for manifest in manifests(folder, "best")[1:]:
            remove(manifest)


def _known(folder: Path, bests: list[Path], step: int) -> list[Path]:
    """Of the best ones, newest first, that which a run has that starts again where it now would; before its first
    ``step`` checkpoint the oldest, which it may have begun with.
    """
    saved = [m.stem.replace("step", "best") for m in manifests(folder, "step") if m.stem < f"step-{step:09d}"]
    return [m for m in bests if m.stem <= saved[0]][:1] if saved else bests[-1:]


def remove(manifest: Path) -> None:
    """Removes a checkpoint, manifest first: a file without one is never loaded."""
    manifest.unlink(missing_ok=True)
    manifest.with_suffix(".pt").unlink(missing_ok=True)
    shutil.rmtree(manifest.with_suffix(".parts"), ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Removes what has no manifest: a process was killed before it wrote one."""
    for place in (*folder.glob("*.parts"), *folder.glob("*.pt")):
        if not place.with_suffix(".json").exists():
            shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)


class Whole:
    """A checkpoint in one file, read: its `state`, and its manifest."""

    def __init__(self, state: dict, about: dict):
        self._state, self.about = state, about

    def state(self) -> dict:
        return self._state

    @property
    def plain(self) -> dict:
        """All that is no tensor, and more."""
        return self._state

    def flat(self, names: list[list[str]]) -> "Flat":
        """Its tensors by ``model/<name>``, ``ema/<name>`` and ``optimizer/<name>/<what>``, as sharded ones are told.

        `names` are those of each optimizer's parameters, in its order: a state dict numbers them.
        """
        found = {f"model/{k}": v for k, v in self._state["model"].items()}
        found |= {f"ema/{k}": v for k, v in (self._state.get("ema") or {}).items()}
        parts = self._state["optimizer"].get("parts", [self._state["optimizer"]])
        for own, part in zip(names, parts, strict=True):
            for number, state in part["state"].items():
                found |= {f"optimizer/{own[number]}/{k}": v for k, v in state.items() if isinstance(v, torch.Tensor)}
        return Flat(found)


class Flat:
    """Whole tensors by key, of which any part can be read."""

    def __init__(self, tensors: dict[str, torch.Tensor]):
        self.tensors = tensors
        self.shapes = {key: (tuple(x.shape), x.dtype) for key, x in tensors.items()}

    def read(self, boxes: dict) -> None:
        """Fills boxes, as `sharded.Parts` does."""
        for key, (_, parts) in boxes.items():
            for place, values in parts:
                run = tuple(slice(at, at + size) for at, size in zip(place, values.shape, strict=True))
                values.copy_(self.tensors[key][run])


def opened(place: Path, about: dict, device="cpu"):
    """The checkpoint at `place` as `Whole` or `sharded.Parts`; None, with a warning, where it is neither."""
    try:
        if place.is_dir():
            from dyt.rundir.sharded import Parts

            found = Parts(place, about)
            fits = any(key.startswith("model/") for key in found.shapes)
        else:
            state = torch.load(place, map_location=device, weights_only=True)
            found, fits = Whole(state, about), isinstance(state, dict) and _weights(state.get("model"))
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError):
        log.warning("checkpoint passed over: %s: not plain tensors and numbers, so not loaded", place)
        return None
    if fits and isinstance(about["step"], int):
        return found
    log.warning("checkpoint passed over: %s: it holds no model", place)
    return None


def newest_of(folder: Path, kind: str = "step", device="cpu"):
    """The newest checkpoint that verifies, as `opened` gives it, or None; a damaged one is named and passed over."""
    for manifest in manifests(folder, kind):
        found = verified(manifest)
        if isinstance(found, str):
            log.warning("checkpoint passed over: %s", found)
        elif (checkpoint := opened(*found, device)) is not None:
            return checkpoint
    return None


def newest(folder: Path, kind: str = "step", device="cpu") -> tuple[dict, dict] | None:
    """(state, manifest) of the newest checkpoint that verifies, whole whoever wrote it, or None."""
    found = newest_of(folder, kind, device)
    return found and (found.state(), found.about)


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
    if not wrong:
        refuse_untied(ours, weights, source)
        # A layer may know a parameter by another name: DyT takes alpha however it was learned.
        missing, unknown = model.load_state_dict(weights, strict=False)
        wrong = [f"{k} missing" for k in missing] + [f"{k} unknown" for k in unknown]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(f"{source}: weights of another model or norm ({'; '.join(wrong[:3])}{more})")


def refuse_untied(ours: dict, weights: dict, source: str) -> None:
    """Two unequal weights for what is one tensor of `ours`: the later one would overwrite the other.

    Raises:
        ValueError: there are such; the line names them.
    """
    first: dict[tuple, str] = {}
    for name, x in ours.items():
        x = x.to_local() if hasattr(x, "full_tensor") else x
        same = first.setdefault((x.untyped_storage()._cdata, x.storage_offset(), x.shape), name)
        if {same, name} <= weights.keys() and not _equal(weights[same], weights[name]):
            raise ValueError(
                f"{source}: weights of another model: {same} and {name} differ there and are one here; "
                "type model.tied=false"
            )


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Of tensors without values, whether they are one."""
    if a.is_meta or b.is_meta:
        return a.untyped_storage()._cdata == b.untyped_storage()._cdata
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)


def encoder_of(weights: dict, ours: dict) -> dict:
    """A masked autoencoder's weights, or DINO's, as those of a classifier: its encoder's, and `ours` of the head.

    Of DINO it is the teacher's. Weights without an encoder come back as they are, and so do those for a model that has
    one too.
    """
    begins = ("encoder.", "teacher.encoder.")
    inside = {k.split("encoder.", 1)[1]: v for k, v in weights.items() if k.startswith(begins)}
    if not inside or any(k.startswith(begins) for k in ours):
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
