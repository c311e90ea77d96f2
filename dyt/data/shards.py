"""Token ids on disk: shards with an index, and nanoGPT's train.bin. Where they are, and whether whole. No torch.

A folder of shards is made by scripts/prepare_data.py:

    index.json              tokenizer, dtype, and of each split its shards with tokens, documents and sha256
    train-00000.bin         ids, uint16 or uint32, little-endian, one after the other
    train-00000.ends        where each document ends in that shard, in tokens, uint64
    tokenizer.json          where the tokenizer is one
"""

import hashlib
import json
from pathlib import Path

FORMAT = "dyt-tokens-1"
INDEX, PROGRESS, TOKENIZER = "index.json", "progress.json", "tokenizer.json"
NANOGPT = ("train", "val", "test")
LLM_C = (20240520).to_bytes(4, "little")  # the first bytes of llm.c's .bin, which has a header
BLOCK = 1 << 22


def sha256_of(file: Path) -> str:
    """Hex sha256 of a file's content."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_of(data: dict, name: str | None = None) -> Path:
    """The folder of ``data.path``, or of the set `name` of ``data.mix`` below it.

    Raises:
        ValueError, FileNotFoundError: no path is given, or nothing is there.
    """
    if not data["path"] and name is None:
        raise ValueError("data=shards needs data.path=<folder made by scripts/prepare_data.py, or with a train.bin>")
    path = Path(data["path"] or ".").expanduser() / Path(name or ".").expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{_key(data, name)}: no such folder")
    return path.parent if path.is_file() else path


def _key(data: dict, name: str | None) -> str:
    return f"data.path={data['path']}" if name is None else f"data.mix: {Path(data['path'] or '.') / name}"


def read_index(data: dict, name: str | None = None) -> dict | None:
    """The index of a folder of shards, its files there and as long as it says; None of nanoGPT's, which has none.

    Raises:
        ValueError, FileNotFoundError: no such folder, or a shard that is missing or cut off, by name.
    """
    folder, key = folder_of(data, name), _key(data, name)
    try:
        index = json.loads((folder / INDEX).read_text())
        width = {"uint16": 2, "uint32": 4}[index["dtype"]]
        wanted = [
            (shard["file"], shard["tokens"] * width) for split in index["splits"].values() for shard in split["shards"]
        ]
        if index["format"] != FORMAT:
            raise ValueError(index["format"])
    except FileNotFoundError as error:
        if (folder / "train.bin").is_file():
            return None
        if (folder / PROGRESS).is_file():
            raise ValueError(f"{key}: is not finished; the prepare_data.py that began it goes on") from error
        raise ValueError(f"{key}: holds neither {INDEX} nor train.bin; scripts/prepare_data.py makes one") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{key}: its {INDEX} is damaged or of another program ({error})") from error
    for file, size in wanted:
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{key}: the shard {file} is missing; copy it there, or make the folder anew")
        if (have := (folder / file).stat().st_size) != size:
            raise ValueError(f"{key}: the shard {file} has {have:,} bytes, and its index says {size:,}; copy it anew")
    return index


def files_of(data: dict, name: str | None = None) -> tuple[str, dict[str, list[Path]]]:
    """(what identifies a folder of shards, ``{split: its files}``); of nanoGPT's folder nothing is known yet: ``""``.

    Raises:
        ValueError, FileNotFoundError: as of `read_index`; or a .bin that is no row of uint16.
    """
    folder, index = folder_of(data, name), read_index(data, name)
    if index is not None:
        about = {key: index[key] for key in ("format", "dtype", "tokenizer", "splits")}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        return digest, {s: [folder / shard["file"] for shard in of["shards"]] for s, of in index["splits"].items()}
    found = {split: [file] for split in NANOGPT if (file := folder / f"{split}.bin").is_file()}
    for (file,) in found.values():
        with open(file, "rb") as stream:
            head = stream.read(4)
        if file.stat().st_size % 2 or head == LLM_C:
            kind = "has llm.c's header, which is not read" if head == LLM_C else "is no row of uint16"
            raise ValueError(f"{_key(data, name)}: {file.name} {kind}; make it with nanoGPT, or with prepare_data.py")
    return "", found


def refuse_damaged(folder: Path, index: dict) -> None:
    """Reads every shard and compares its sha256 with the index.

    Raises:
        ValueError: one differs, by name.
    """
    for split in index["splits"].values():
        for shard in split["shards"]:
            if sha256_of(folder / shard["file"]) != shard["sha256"]:
                raise ValueError(
                    f"data.path={folder}: the content of {shard['file']} is not what was written (sha256 differs); "
                    "copy it anew, or make the folder anew"
                )
