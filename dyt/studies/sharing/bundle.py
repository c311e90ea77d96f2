"""All results as a data set in the Hugging Face form: ``make bundle`` writes it, ``datasets.load_dataset`` reads it.

    build/bundle/README.md          the card: what is in it, how to load it, what it does not support
    build/bundle/data/*.parquet     rows, curves, claims, verdicts, provenance; one table each
    build/bundle/configs/           every config and study, as they stand at this commit
    build/bundle/SHA256SUMS         of every other file; ``sha256sum -c SHA256SUMS`` or `differs` checks it

Made of committed results alone, without a network; the same results at the same commit make the same bytes.
"""

import hashlib
import json
import re
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dyt.config.compose import CONFIGS
from dyt.rundir.files import write_text
from dyt.rundir.provenance import git
from dyt.studies.running import rows as csv
from dyt.studies.running.study import SCALES, Study, names, result_folder
from dyt.studies.showing.overview import present
from dyt.studies.showing.table import CLAIMS_FILE, claims

SUMS = "SHA256SUMS"
TEXT, WHOLE, REAL, TRUTH = pa.string(), pa.int64(), pa.float64(), pa.bool_()
ROW = {
    "study": TEXT, "scale": TEXT, "cell": TEXT, "derived": TEXT, "status": TEXT, "seed": WHOLE, "step": WHOLE,
    "max_steps": WHOLE, "metric": TEXT, "final": REAL, "best": REAL, "best_step": WHOLE, "train_loss": REAL,
    "parameters": WHOLE, "samples": WHOLE, "wall_s": REAL, "peak_memory_mib": REAL, "why": TEXT, "config_hash": TEXT,
    "data_sha256": TEXT, "run": TEXT, "hardware": TEXT, "threads": WHOLE, "torch": TEXT, "git_commit": TEXT,
    "git_dirty": TRUTH, "overrides": TEXT,
}  # fmt: skip
CURVE = {"study": TEXT, "scale": TEXT, "run": TEXT, "seed": WHOLE, "norm": TEXT, "step": WHOLE, "metric": TEXT,
         "value": REAL}  # fmt: skip
CLAIM = {
    "id": TEXT, "paper": TEXT, "table": TEXT, "task": TEXT, "model": TEXT, "dataset": TEXT, "metric": TEXT,
    "higher_is_better": TRUTH, "values": TEXT, "verified": TRUTH, "source": TEXT, "note": TEXT,
}  # fmt: skip
VERDICT = {
    "study": TEXT, "scale": TEXT, "says": TEXT, "kind": TEXT, "claims": pa.list_(TEXT), "papers_say": TEXT,
    "we_found": TEXT, "metric": TEXT, "mean": REAL, "low": REAL, "high": REAL, "seeds": WHOLE, "verdict": TEXT,
    "why": TEXT, "p": REAL, "p_holm": REAL, "matters": REAL, "searched": TEXT, "steps": TEXT, "seeds_needed": WHOLE,
    "rules": WHOLE,
}  # fmt: skip
ORIGIN = {"study": TEXT, "scale": TEXT, "hardware": TEXT, "threads": WHOLE, "torch": TEXT, "git_commit": TEXT,
          "git_dirty": TRUTH, "data_sha256": TEXT, "runs": WHOLE}  # fmt: skip
TABLES = {
    "rows": (ROW, "one row a run: its settings (`cell`, `overrides`), outcome, and where it was made"),
    "curves": (CURVE, "what each run logged, thinned; `run` is the row's `config_hash`"),
    "claims": (CLAIM, "the papers' numbers, each with its source; `values` is JSON"),
    "verdicts": (VERDICT, "what became of each claim, with interval, p, search and seeds"),
    "provenance": (ORIGIN, "commit, hardware, versions and data of the runs, counted"),
}


def tables(results: Path) -> dict[str, list[dict]]:
    """The rows of every table, from what is committed below `results`."""
    found: dict[str, list[dict]] = {name: [] for name in TABLES}
    for name in names():
        study = Study(name)
        for scale in (s for s in SCALES if s in study.scales):
            folder, place = result_folder(results, name, scale), {"study": name, "scale": scale}
            own = csv.read_runs(folder / "runs.csv", study)
            if not own:
                continue
            counted: dict[tuple, int] = {}
            for row in own:
                cell = {f: row[f] for f in study.factors if row.get(f)}
                derived = {d: row[d] for d in study.derived if row.get(d) is not None}
                typed = {k: row[k] for k in csv.COLUMNS if row[k] not in (None, "")}
                typed["git_dirty"] = {"True": True, "False": False}.get(row["git_dirty"])
                typed |= place | {"metric": study.metric, "cell": json.dumps(cell)}
                found["rows"].append(typed | {"derived": json.dumps(derived) if derived else None})
                key = tuple(typed.get(k) for k in ORIGIN if k != "runs")
                counted[key] = counted.get(key, 0) + 1
            keys = [k for k in ORIGIN if k != "runs"]
            found["provenance"] += [{**dict(zip(keys, key, strict=True)), "runs": n} for key, n in counted.items()]
            found["curves"] += [place | row for row in csv.read_curves(folder / "curves.parquet").to_dict("records")]
            found["verdicts"] += present(study, scale, results)
    for claim in claims().values():
        found["claims"].append(claim | {"paper": str(claim["paper"]), "values": json.dumps(claim["values"])})
    return found


def write(folder: Path, results: Path) -> None:
    """Writes the bundle anew.

    Raises:
        ValueError: `results` has no rows, or `folder` holds something that is no bundle.
    """
    found = tables(results)
    if not found["rows"]:
        raise ValueError(f"{results} has no rows; type python scripts/reproduce.py first")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder}: is a file; give a folder")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / SUMS).is_file() or "data/rows.parquet" not in _said(folder):
            raise ValueError(f"{folder} holds something that is no bundle; give another folder with --out")
        if more := sorted(_here(folder).keys() - _said(folder).keys()):
            raise ValueError(f"{folder} holds {more[0]}, which is no part of the bundle; move it, or give --out")
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place, so that one that is stopped leaves no half.
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
        whole = Path(beside) / folder.name
        _fill(whole, found)
        if folder.exists():
            shutil.rmtree(folder)
        whole.rename(folder)


def _fill(folder: Path, found: dict[str, list[dict]]) -> None:
    """Makes `folder`, with all that a bundle holds."""
    (folder / "data").mkdir(parents=True)
    for name, (columns, _) in TABLES.items():
        table = pa.Table.from_pylist([{c: row.get(c) for c in columns} for row in found[name]], pa.schema(columns))
        pq.write_table(table, folder / "data" / f"{name}.parquet", compression="zstd")
    for file in sorted(CONFIGS.rglob("*.yaml")):
        if "local" not in file.relative_to(CONFIGS).parts:  # a person's own
            (folder / "configs" / file.relative_to(CONFIGS)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / "configs" / file.relative_to(CONFIGS))
    shutil.copyfile(CLAIMS_FILE, folder / "claims.yaml")
    write_text(folder / "README.md", card({name: len(rows) for name, rows in found.items()}))
    lines = [f"{_sha256(file)}  {file.relative_to(folder).as_posix()}" for file in _files(folder)]
    write_text(folder / SUMS, "\n".join(lines) + "\n")


def _said(folder: Path) -> dict[str, str]:
    """Sums by file, as the bundle says them."""
    lines = (folder / SUMS).read_text(errors="replace").splitlines()
    return {name: sum for sum, _, name in (line.partition("  ") for line in lines)}


def _here(folder: Path) -> dict[str, Path]:
    return {file.relative_to(folder).as_posix(): file for file in _files(folder)}


def differs(folder: Path) -> list[str]:
    """A line for each file that is not as SHA256SUMS says, that is missing, or that it does not name.

    Raises:
        ValueError: no SHA256SUMS there.
    """
    if not (folder / SUMS).is_file():
        raise ValueError(f"{folder} has no {SUMS}; type make bundle")
    said, here = _said(folder), _here(folder)
    wrong = [f"{name} is missing" for name in said.keys() - here.keys()]
    wrong += [f"{name} is not named in {SUMS}" for name in here.keys() - said.keys()]
    wrong += [
        f"{name} was changed: its sha256 is not the one in {SUMS}"
        for name in said.keys() & here.keys()
        if _sha256(here[name]) != said[name]
    ]
    return sorted(wrong)


def _files(folder: Path) -> list[Path]:
    return sorted(f for f in folder.rglob("*") if f.is_file() and f != folder / SUMS)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def unsupported() -> list[tuple[str, str]]:
    """Each finding's heading in docs/findings.md, and what it says that it does not support."""
    text = (CONFIGS.parent / "docs" / "findings.md").read_text()
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        said = re.search(r"- \*\*What these results do not support\*\*: (.*?)(?=\n\n|\n- |\n<!--|\Z)", part, re.DOTALL)
        if said:
            plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", " ".join(said[1].split()))  # links lead out of the bundle
            found.append((part.splitlines()[0], plain))
    return found


def card(counts: dict[str, int]) -> str:
    """README.md: the YAML header that ``datasets`` reads, then words."""
    size = "1K<n<10K" if counts["rows"] >= 1000 else "n<1K"
    head = [
        "---",
        "license: mit",
        "pretty_name: DyT reproduction results",
        "tags:",
        "- normalization",
        "- dynamic-tanh",
    ]
    head += ["- reproducibility", "size_categories:", f"- {size}", "configs:"]
    for name in TABLES:
        head += [f"- config_name: {name}", f"  data_files: data/{name}.parquet"] + ["  default: true"] * (
            name == "rows"
        )
    commit = git("rev-parse", "HEAD")
    lines = [*head, "---", "", "# DyT reproduction results", ""]
    lines += [
        'Runs, curves and verdicts of a reproduction of "Transformers without Normalization" (Dynamic Tanh,',
        "arXiv 2503.10622) and of papers that followed it. Most are small models on CPUs; each row names its hardware.",
        f"Made at commit {commit or 'unknown (no git checkout)'}.",
        "",
        "```python",
        "from datasets import load_dataset",
        "",
        'rows = load_dataset("path/to/this/folder", "rows", split="train")',
        "```",
        "",
        "| table | rows | what it holds |",
        "| --- | ---: | --- |",
        *(f"| {name} | {counts[name]:,} | {what} |" for name, (_, what) in TABLES.items()),
        "",
        "`configs/` has the settings that `overrides` refer to: `python train.py <overrides>` makes a row anew.",
        f"`{SUMS}` has the sum of every file: `sha256sum -c {SUMS}`.",
        "",
        "## What these results do not support",
        "",
        *(f"- **{heading}**: {text}" for heading, text in unsupported()),
    ]
    return "\n".join(lines) + "\n"
