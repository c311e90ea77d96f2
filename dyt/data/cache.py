"""What was read once is kept by content: a folder that is whole or not there."""

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

STALE_S = 86_400.0  # seconds after which nobody fills a part any more


def kept(place: Path, parts: tuple, make: Callable[[Path], dict]) -> tuple[Path, dict]:
    """The folder that `parts` name below `place`, and what its ``meta.json`` says; made where it is not whole.

    Args:
        make: fills an empty folder and returns what goes to ``meta.json``.

    Raises:
        OSError: the cache cannot be written; one line with the key to set.
    """
    folder = place / hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
    if (meta := _whole(folder)) is not None:
        return folder, meta
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"data.cache_dir={folder.parent}: {error.strerror}; set it to a folder you can write") from error
    for left in folder.parent.glob(f"{folder.name}.*"):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_S:
                shutil.rmtree(left)
    part = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:12]}")
    part.mkdir()
    try:
        meta = make(part)
        meta["bytes"] = {file.name: file.stat().st_size for file in part.iterdir()}
        (part / "meta.json").write_text(json.dumps(meta))
        if folder.exists() and _whole(folder) is None:
            shutil.rmtree(folder)
        try:
            part.rename(folder)
        except OSError:  # another process was first; its copy is the same
            if _whole(folder) is None:
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder, meta


def _whole(folder: Path) -> dict | None:
    try:
        meta = json.loads((folder / "meta.json").read_text())
        sound = all((folder / name).stat().st_size == size for name, size in meta["bytes"].items())
        return meta if sound else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
