"""Files that are whole or not there: atomic writes, and manifests with sha256. No torch."""

import hashlib
import json
import math
import os
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def replace_file(path: Path, write) -> None:
    """Calls ``write(stream)`` on a temporary file beside `path`, flushes it to disk, and renames it into place.

    On any error the temporary file is removed and what stood at `path` stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_parts(folder: Path) -> None:
    """Removes what `replace_file` left below `folder` in processes that were killed."""
    for part in folder.rglob(".*.part"):
        pid = part.name.split(".")[-2]
        if not (pid.isdigit() and Path(f"/proc/{pid}").exists()):
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Atomically."""
    replace_file(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, value) -> None:
    """Atomically, indented."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def finite(value):
    """`value` with null for every number that JSON has not."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict | None:
    """The file's content, or None where it is missing or torn."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def manifests(folder: Path, kind: str) -> list[Path]:
    """Manifests of checkpoints of a kind (``step`` or ``best``), newest first."""
    return sorted(folder.glob(f"{kind}-*.json"), reverse=True)


def verified(manifest: Path) -> tuple[Path, dict] | str:
    """The manifest's file and content, or what is wrong with it in words."""
    content = read_json(manifest)
    if content is None or not {"file", "step"} <= content.keys() or not {"sha256", "files"} & content.keys():
        return f"{manifest}: not a readable manifest"
    place = manifest.parent / Path(content["file"]).name
    sums = {place: content.get("sha256")}
    if "files" in content:  # of all processes: a folder
        sums = {place / Path(name).name: wanted for name, wanted in content["files"].items()}
    for file, wanted in sums.items():
        if not file.is_file():
            return f"{file}: missing"
        if sha256_of(file) != wanted:
            return f"{file}: its content is not what was saved (sha256 differs)"
    return place, content


def weights_sha256(init_from: str) -> str:
    """Identifies the weights that ``init_from`` names: a run directory or a safetensors file.

    Raises:
        FileNotFoundError: it is neither.
    """
    path = Path(init_from).expanduser()
    if path.is_dir():
        config = (read_json(path / "run.json") or {}).get("config_hash")
        for manifest in manifests(path / "checkpoints", "step"):
            if content := read_json(manifest):  # config and step decide the weights; the file holds timings too
                told = f"{config}@{content.get('step')}"
                if config is None:  # nobody says which config: the files themselves
                    told = json.dumps([content.get("sha256"), content.get("files")], sort_keys=True)
                return hashlib.sha256(told.encode()).hexdigest()
    elif path.is_file() and path.suffix == ".safetensors":
        return sha256_of(path)
    raise FileNotFoundError(f"init_from={init_from}: neither a run directory with a checkpoint nor a .safetensors file")
