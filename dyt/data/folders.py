"""What lies below a folder: which files are data, which split each is of, and which class. No torch, no datasets.

A name is a split only where the whole set of names says so: ``train-journeys.txt`` beside other journeys is a text like
them, and a folder ``train`` beside ``car`` and ``bus`` is a class.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)
SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
SPLITS |= {"training": "train", "testing": "test"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
ENDINGS = set(".gz .bz2 .xz .zst .tar .txt .text .md .json .jsonl .ndjson .csv .tsv .parquet .tokens .raw".split())


def files_below(root: Path, cache: Path) -> list[Path]:
    """Every file below `root`, links followed; without hidden ones, readmes, runs of ours and the data cache.

    Raises:
        OSError: a folder cannot be read. ValueError: a link leads nowhere.
    """
    found = sorted(_walk(root, root, cache.resolve(), ()))
    about = ("readme", "license")
    return [f for f in found if f.suffix.lower() in IMAGES or not f.name.lower().startswith(about)]


def _walk(root: Path, folder: Path, cache: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above or real == str(cache):  # a link to a folder around it
        return
    if (folder / "run.json").is_file() and (folder / "config.yaml").is_file():
        return
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        if entry.is_dir():
            yield from _walk(root, folder / entry.name, cache, (*above, real))
        elif entry.is_file():
            yield folder / entry.name
        elif entry.is_symlink():
            name = (folder / entry.name).relative_to(root)
            raise ValueError(f"data.path={root}: {name} is a link to nothing; fetch what it stands for, or remove it")


def split_word(word: str) -> str | None:
    """The split that a word names: ``train``, and ``train1``, ``trainset`` too."""
    found = re.fullmatch(rf"({'|'.join(SPLITS)})(set)?\d*", word.lower())
    return SPLITS[found[1]] if found else None


def refuse_near_splits(root: Path, tops: list[str], how: str = "call them train, val and test") -> None:
    """For names that would be classes, such as ``seg_train`` and ``seg_test``.

    Raises:
        ValueError: each of them has the word of a split, and they are of several.
    """
    kinds = [{split_word(word) for word in re.split(r"[-_.\s]+", top)} - {None} for top in tops]
    if all(len(kind) == 1 for kind in kinds) and len(set().union(*kinds)) > 1:
        raise ValueError(f"data.path={root}: {' and '.join(tops[:3])} look like the splits of one set; {how}, or "
                         "rename them where they are classes")  # fmt: skip


# -- the hub -----------------------------------------------------------------------------------------------------------


def splits_of_hub(names: list[str], key: str) -> dict[str, str]:
    """``{name: train, val or test}`` of a hub set's splits; others are not read, but one alone is for training.

    Raises:
        ValueError: there is no training split, or two of them are one to us. `key` begins the line.
    """
    found = {name: SPLITS[name.lower()] for name in names if name.lower() in SPLITS}
    how = "save its rows as files called train.*, validation.* and test.*, and name their folder"
    if not found and len(names) == 1:
        return {names[0]: "train"}
    if "train" not in found.values():
        raise ValueError(f"{key}: has {', '.join(names)}, but no train; {how}")
    if twice := [name for name in found if list(found.values()).count(found[name]) > 1]:
        raise ValueError(f"{key}: {' and '.join(twice)} are both {found[twice[0]]}; {how} with one of them")
    return found


# -- texts and tables --------------------------------------------------------------------------------------------------


def by_split(root: Path, files: list[Path]) -> dict[str, list[Path]]:
    """Files by split; all are training where their names name no splits.

    Raises:
        ValueError: some names do and some do not, or there is no training split.
    """
    about = {f: _split_of(f.relative_to(root)) for f in files}
    kinds = {split for split, _, _ in about.values() if split}
    strict = any(alone for _, alone, _ in about.values())
    unnamed = [f for f, (split, _, _) in about.items() if split is None]
    if not kinds or (not strict and len(kinds) == 1):
        return {"train": files}
    if unnamed:
        raise ValueError(
            f"data.path={root}: {unnamed[0].relative_to(root)} is named for no split beside "
            f"{', '.join(sorted(kinds))}; move it away, or call it train-1, train-2 ..."
        )
    if "train" not in kinds:
        raise ValueError(
            f"data.path={root}: found {', '.join(sorted(kinds))} but no train; name the files train.*, validation.* "
            "and test.*"
        )
    rests = {rest for _, _, rest in about.values()}
    if len(rests) > 1:
        one, two = (
            next(f for f, (_, _, r) in about.items() if r == rest).relative_to(root) for rest in sorted(rests)[:2]
        )
        raise ValueError(
            f"data.path={root}: cannot tell whether {one} and {two} are splits of one set; name the files train.*, "
            "validation.* and test.*, or point at one file"
        )
    found: dict[str, list[Path]] = {}
    for file, (split, _, _) in about.items():
        found.setdefault(split, []).append(file)
    return found


def _split_of(file: Path) -> tuple[str | None, bool, tuple[str, ...]]:
    """(split, whether the name says nothing else, what it says else) of a file or of the nearest folder around it."""
    for folder in reversed(file.parts[:-1]):
        if folder.lower() in SPLITS:
            return SPLITS[folder.lower()], True, ()
    name = file.name.lower()
    while (ending := Path(name).suffix) in ENDINGS:
        name = name.removesuffix(ending)
    words = [w for w in re.split(r"[-_.\s]+", name) if w and not re.fullmatch(r"\d+|of|[0-9a-f]{16}", w)]
    splits = [split for w in words if (split := split_word(w))]
    rest = tuple(w for w in words if not split_word(w))
    return (splits[0], not rest, rest) if len(splits) == 1 else (None, False, ())


# -- pictures ----------------------------------------------------------------------------------------------------------


def classes_below(root: Path, files: list[Path]) -> dict[str, list[tuple[Path, str]]]:
    """(picture, class) by split, of ``<class>/...`` or ``{train,val,test}/<class>/...``: the class is the first folder.

    Raises:
        ValueError: a picture in no class folder, folders of different depth, a class without pictures, an odd split.
    """
    images = [f.relative_to(root) for f in files if f.suffix.lower() in IMAGES]
    tops = sorted({f.parts[0] for f in images if len(f.parts) > 1})
    splits = [t for t in tops if t.lower() in SPLITS]
    deep = [t for t in splits if any(f.parts[0] == t and len(f.parts) > 2 for f in images)]
    named = bool(deep)
    if named and (others := [t for t in tops if t not in splits]):
        raise ValueError(f"data.path={root}: {others[0]} is no split (train, val, test) beside {', '.join(splits)}; "
                         "move it away, or move the splits into a folder of their own")  # fmt: skip
    if not named and splits != tops:
        refuse_near_splits(root, tops)
    if named and len({SPLITS[t.lower()] for t in splits}) < len(splits):
        raise ValueError(f"data.path={root}: {', '.join(splits)}: two of them name one split; leave one")
    flat = [f for f in images if named and len(f.parts) == 2 and SPLITS.get(f.parts[0].lower()) == "test"]
    if flat:
        log.warning("data.path=%s: test has %d images in no class folder: left out", root, len(flat))
        images = sorted(set(images) - set(flat))
    loose = [f for f in images if len(f.parts) < (3 if named else 2)] or (
        images if splits == tops and not named else []
    )
    if loose:
        table = next((f.name for f in files if f.parent == root and f.name.startswith("metadata.")), None)
        why = f" (labels in {table} are not read)" if table else ""
        raise ValueError(f"data.path={root}: {loose[0]} lies in no class folder{why}; move it into one")
    usual = Counter(len(f.parts) for f in images).most_common(1)[0][0]
    if odd := [f for f in images if len(f.parts) != usual]:
        example = next(f for f in images if len(f.parts) == usual)
        raise ValueError(f"data.path={root}: {odd[0]} is not as deep as {example} and most others; move it, so that "
                         "each class is one folder of the same depth")  # fmt: skip
    found: dict[str, list[tuple[Path, str]]] = {}
    for file in images:
        split = SPLITS[file.parts[0].lower()] if named else "train"
        found.setdefault(split, []).append((root / file, file.parts[1 if named else 0]))
    if "train" not in found:
        raise ValueError(f"data.path={root}: found {', '.join(sorted(found))} but no train")
    place = root / next(t for t in splits if SPLITS[t.lower()] == "train") if named else root
    _refuse_empty_class(place, files, {name for _, name in found["train"]})
    return found


def _refuse_empty_class(place: Path, files: list[Path], classes: set[str]) -> None:
    with_files = {f.relative_to(place).parts[0] for f in files if f.is_relative_to(place) and f.parent != place}
    for folder in sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))):
        if folder.name not in classes and (folder.name in with_files or not any(folder.iterdir())):
            raise ValueError(
                f"data.path={place}: the folder {folder.name} has no picture ({' '.join(sorted(IMAGES))}); "
                "remove it, or put the pictures of that class there"
            )


# -- recordings --------------------------------------------------------------------------------------------------------


def recordings_below(root: Path, files: list[Path]) -> dict[str, list[tuple[Path, str | None]]]:
    """(recording, label) by split, of ``[{train,val,test}/]<label>/...``; label None where no folder is one.

    Raises:
        ValueError: some lie in a folder and some do not, or a split's folder lies beside others.
    """
    parts = {f: f.relative_to(root).parts for f in files}
    tops = sorted({p[0] for p in parts.values() if len(p) > 1})
    splits = [t for t in tops if t.lower() in SPLITS]
    named = splits == tops and any(SPLITS[t.lower()] == "train" for t in splits)
    if splits and not named:
        raise ValueError(
            f"data.path={root}: {splits[0]} is a split beside {', '.join(t for t in tops if t not in splits) or 'none'}"
            "; name all folders train, val and test, or none"
        )
    if not named:
        refuse_near_splits(root, tops)
    loose = [f for f, p in parts.items() if len(p) < (3 if named else 2)]
    if loose and (len(loose) < len(files) or (named and any(len(parts[f]) == 1 for f in loose))):
        raise ValueError(f"data.path={root}: {loose[0].relative_to(root)} lies in no folder that is its label, and "
                         "others do; move it into one")  # fmt: skip
    found: dict[str, list[tuple[Path, str | None]]] = {}
    for file, p in parts.items():
        split = SPLITS[p[0].lower()] if named else "train"
        found.setdefault(split, []).append((file, None if loose else p[1 if named else 0]))
    return found
