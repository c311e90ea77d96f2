"""Checkpoints that all processes of a run write together, each its part, through torch.distributed.checkpoint.

``<kind>-<step>.parts/`` holds torch's files; its manifest, ``<kind>-<step>.json``, comes last and has the sha256 of
each of them and all that is no tensor. Any number of processes can read it, one as well. What is spread is told in
boxes: the whole shape of a tensor, and (place, values) of each part of it that is in this process.
"""

import pickle
import shutil
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import metadata as told
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, TensorWriteData, WriteItem, WriteItemType
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from dyt.rundir.files import sha256_of, write_json

Boxes = tuple[tuple[int, ...], list[tuple[tuple[int, ...], Tensor]]]


def save(folder: Path, kind: str, step: int, boxes: dict[str, Boxes], plain: dict, keep: int, group) -> None:
    """Writes a checkpoint with all processes of `group`, then removes all but the newest `keep` of its kind.

    Raises:
        OSError: in every process, where one of them could not write.
    """
    from dyt.rundir.checkpoint import remove_others

    place, leads = folder / f"{kind}-{step:09d}.parts", dist.get_rank(group) == 0
    manifest = place.with_suffix(".json")
    if leads:
        manifest.unlink(missing_ok=True)
        shutil.rmtree(place, ignore_errors=True)
    try:
        writer = dcp.FileSystemWriter(place, sync_files=True)
        dcp.save(boxes, storage_writer=writer, planner=_Saving(), process_group=group)
        own = [*place.glob(f"__{dist.get_rank(group)}_*"), *([place / ".metadata"] if leads else [])]
        sums = {file.name: sha256_of(file) for file in own}
    except CheckpointException as error:  # torch's, of all processes alike
        first = next(iter(error.failures.values()))[0]
        raise first if isinstance(first, OSError) else OSError(f"{type(first).__name__}: {first}") from None
    except OSError as error:
        sums = error
    held = [None] * dist.get_world_size(group)
    dist.all_gather_object(held, sums, group=group)
    why = next((x for x in held if isinstance(x, OSError)), None)
    if why is None and leads:
        try:
            files = {name: sum for part in held for name, sum in part.items()}
            about = {"file": place.name, "files": files, "step": step, "tensors": list(boxes), **plain}
            write_json(manifest, about)
            remove_others(folder, kind, step, keep)
        except OSError as error:
            why = error
    held = [why]
    dist.broadcast_object_list(held, group=group, group_src=0)
    if held[0] is not None:
        raise held[0]


class _Saving(dcp.DefaultSavePlanner):
    """Torch's planner, for boxes."""

    def __init__(self):
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> SavePlan:
        items = []
        for key, (shape, parts) in self.state_dict.items():
            for place, values in parts:
                chunk = told.ChunkStorageMetadata(torch.Size(place), values.shape)
                data = TensorWriteData(chunk, told.TensorProperties(dtype=values.dtype), torch.Size(shape))
                items.append(WriteItem(told.MetadataIndex(key, chunk.offsets), WriteItemType.SHARD, tensor_data=data))
        self.plan = SavePlan(items)
        return self.plan

    def lookup_object(self, index):
        return _at(self.state_dict, index)


class _Loading(dcp.DefaultLoadPlanner):
    def __init__(self):
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def create_local_plan(self) -> LoadPlan:
        items = []
        for key, (_, parts) in self.state_dict.items():
            chunks = [told.ChunkStorageMetadata(torch.Size(place), values.shape) for place, values in parts]
            items += create_read_items_for_chunk_list(key, self.metadata.state_dict_metadata[key], chunks)
        return LoadPlan(items)

    def lookup_tensor(self, index) -> Tensor:
        return _at(self.state_dict, index)


def _at(boxes: dict[str, Boxes], index) -> Tensor:
    return next(values for place, values in boxes[index.fqn][1] if torch.Size(place) == index.offset)


class _Unpickler(pickle.Unpickler):
    """Reads torch's index without running code: it may name what such an index is made of and nothing else."""

    def find_class(self, module: str, name: str):
        known = name.startswith(("_", *map(chr, range(65, 91)))) and module in (
            "torch.distributed.checkpoint.metadata",
            "torch.distributed.checkpoint.filesystem",
        )
        plain = module == "torch" and (name == "Size" or isinstance(getattr(torch, name, None), torch.dtype))
        if known or plain or (module, name) in (("torch.serialization", "_get_layout"), ("pathlib", "PosixPath")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a checkpoint")


class _Reader(dcp.FileSystemReader):
    def read_metadata(self, *args, **named):
        with open(Path(self.path) / ".metadata", "rb") as stream:
            return _Unpickler(stream).load()


class Parts:
    """A checkpoint of this kind, for reading.

    Args:
        place: its folder.
        about: its manifest.
    """

    def __init__(self, place: Path, about: dict):
        self.about, self.place = about, place
        found = _Reader(place).read_metadata().state_dict_metadata
        order = [key for key in about.get("tensors", ()) if key in found] or found  # the model's, which torch forgets
        self.shapes = {key: (tuple(found[key].size), found[key].properties.dtype) for key in order}

    def flat(self, names) -> "Parts":
        return self

    def read(self, boxes: dict[str, Boxes]) -> None:
        """Fills `boxes` with what was saved, whoever saved it."""
        with warnings.catch_warnings():  # torch warns that it reads in one process: so it is meant
            warnings.simplefilter("ignore", UserWarning)
            dcp.load(boxes, storage_reader=_Reader(self.place), planner=_Loading(), no_dist=True)

    @property
    def plain(self) -> dict:
        return self.about

    def state(self) -> dict:
        """Its weights, whole, on the CPU, and all that is no tensor: ``{"model": {name: tensor}, "ema": ..., ...}``."""
        weights = {key: about for key, about in self.shapes.items() if not key.startswith("optimizer/")}
        full = {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in weights.items()}
        self.read({key: (tuple(x.shape), [((0,) * x.ndim, x)]) for key, x in full.items()})
        state = {"ema": None, **{k: v for k, v in self.about.items() if k not in ("file", "files", "tensors")}}
        for key, value in full.items():
            kind, _, name = key.partition("/")
            state[kind] = (state.get(kind) or {}) | {name: value}
        return state
