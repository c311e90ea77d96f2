"""WebDataset's tar shards as a table: where each picture lies, so that any process reads any of them at once.

A sample is the members that share a name up to its first dot: ``n01440764/10026.jpg`` with ``.cls`` (the class, a
number or a name) or ``.json`` (an object with the label's key).
"""

import json
import tarfile
from pathlib import Path

from dyt.data.cache import kept
from dyt.data.folders import IMAGES
from dyt.data.labels import USUAL
from dyt.data.sources import Source, cache_dir, refuse_changed

PIECE = 10_000  # samples that are written at once


def indexed(data: dict, source: Source, split: str):
    """A split's samples as a ``datasets.Dataset`` of ``image`` {tar, offset, size} and ``label`` (text).

    Raises:
        ValueError: a tar that cannot be read, or a sample without label, by name.
    """
    import datasets

    tars = tuple(str(Path(file).absolute()) for file in source.files[split])  # what the index says they are called
    parts = (source.sha256, source.stamp, split, tars, data["label_key"], "v1")
    folder, _ = kept(cache_dir(data) / "tables", parts, lambda place: _index(data, source, split, place))
    return datasets.Dataset.from_file(str(folder / "index.arrow"))


def _index(data: dict, source: Source, split: str, folder: Path) -> dict:
    import pyarrow as pa

    place = pa.struct([("tar", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
    schema = pa.schema([("image", place), (data["label_key"] or "label", pa.string())])
    keys = [data["label_key"]] if data["label_key"] else list(USUAL["label_key"])
    found: list[tuple[dict, str]] = []
    with pa.OSFile(str(folder / "index.arrow"), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
        for file in source.files[split]:
            found += _samples(Path(file), keys, data)
            if len(found) >= PIECE or file == source.files[split][-1]:
                writer.write_batch(pa.record_batch([[i for i, _ in found], [c for _, c in found]], schema=schema))
                found = []
    refuse_changed(data, source)
    return {}


def _samples(file: Path, keys: list[str], data: dict) -> list[tuple[dict, str]]:
    samples: dict[str, dict] = {}
    try:
        with tarfile.open(file, "r:") as tar:
            for member in tar:
                if not member.isfile() or Path(member.name).name.startswith((".", "__")):
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                about = samples.setdefault(f"{folder}/{stem}", {})
                if f".{ending.lower()}" in IMAGES:
                    about["image"] = {"tar": str(file.absolute()), "offset": member.offset_data, "size": member.size}
                elif ending in ("cls", "json"):
                    about[ending] = tar.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError) as error:
        text = " ".join(str(error).split())[:120]
        raise ValueError(
            f"data.path={data['path']}: {file.name} is no plain tar ({text}); copy it anew, or unpack its .gz"
        ) from error
    found = []
    for name, about in samples.items():
        if "image" in about:
            label = _label(about, keys)
            if label is None and data["on_error"] != "skip":
                raise ValueError(
                    f"data.path={data['path']}: {name.lstrip('/')} in {file.name} has no label (a .cls, or {keys[0]} "
                    "in a .json); data.on_error=skip leaves such samples out"
                )
            found.append((about["image"], label))
    return found


def _label(about: dict, keys: list[str]) -> str | None:
    if "cls" in about:
        return about["cls"].decode(errors="replace").strip() or None
    try:
        read = json.loads(about.get("json", b"{}"))
        return next((str(read[key]) for key in keys if read.get(key) is not None), None)
    except (ValueError, AttributeError):
        return None
