"""Which files of a folder an export wrote, so that the next one replaces those and touches no other."""

from pathlib import Path

from dyt.rundir.files import read_json, write_json

MARK = "export.json"  # names what an export wrote
BY = "scripts/export.py"
WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
# What exports wrote before they left a mark, by the recipe that each had: format=pt, and the others.
UNMARKED = {
    "config.yaml": (*WEIGHTS, "config.yaml", "tokenizer.json", "README.md"),
    "recipe.yaml": (
        *(*WEIGHTS, "recipe.yaml", "tokenizer_dyt.json", "config.json"),
        *("modeling_dyt.py", "norm_dyt.py", "README.md"),
    ),
}


def quoted(recipe: str) -> str:
    """The end of a model card: its run's config, as YAML."""
    return "## Recipe\n\n```yaml\n" + recipe.strip().replace("```", "'''") + "\n```\n"


def written(folder: Path) -> set[str]:
    """Names of the files in `folder` that an export wrote; none where it holds no export."""
    mark = read_json(folder / MARK)
    if isinstance(mark, dict) and mark.get("written_by") == BY and isinstance(mark.get("files"), list):
        return {MARK, *(name for name in mark["files"] if isinstance(name, str) and Path(name).name == name)}
    try:
        card = (folder / "README.md").read_text(errors="replace")
        for recipe, names in UNMARKED.items():
            if (folder / recipe).is_file() and card.endswith(quoted((folder / recipe).read_text(errors="replace"))):
                return {file.name for name in names for file in folder.glob(name)}
    except OSError:
        pass
    return set()


def make_room(folder: Path, names: list[str]) -> None:
    """Makes `folder` ready for files of these names: removes what an earlier export wrote, and notes the names.

    Raises:
        ValueError: no export wrote a file there of one of the names, or weights there; nothing is touched.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out={folder}: is a file; give a folder")
    ours = written(folder)
    there = {file.name for name in (MARK, *names, *WEIGHTS) for file in folder.glob(name)}
    if other := sorted(there - ours):
        raise ValueError(f"out={folder}: {other[0]} is there, which no export wrote; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(ours - {MARK}):  # perhaps of another format
        (folder / name).unlink(missing_ok=True)
    write_json(folder / MARK, {"written_by": BY, "files": sorted(names)})
