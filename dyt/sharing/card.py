"""The model card of an exported run: recipe, data, metrics with their seeds, provenance, and what is not supported."""

import html
import json
from pathlib import Path

import yaml

from dyt.config.identity import by_run, counted
from dyt.rundir.files import read_json
from dyt.sharing.folder import quoted


def seeds_beside(run: Path, config: dict) -> list[dict]:
    """Summaries of the finished runs beside `run` that differ from it in the seed alone, and its own; by seed.

    Of a run that is not finished only its own: no number of others compares with it.
    """
    own = read_json(run / "summary.json")
    if own is None or own.get("status") != "finished":
        return [own] if own else []
    found, recipe = {own.get("seed"): own}, _recipe(run, config, own)
    for folder in sorted(run.absolute().parent.iterdir()):
        summary = read_json(folder / "summary.json") or {}
        if summary.get("status") != "finished" or ".replaced-" in folder.name:
            continue
        try:
            theirs = _recipe(folder, yaml.safe_load((folder / "config.yaml").read_text()), summary)
        except (yaml.YAMLError, UnicodeDecodeError, OSError, TypeError, AttributeError):  # damaged
            continue
        if theirs == recipe:
            found.setdefault(summary.get("seed"), summary)
    return [found[seed] for seed in sorted(found, key=str)]


def _recipe(folder: Path, config: dict, summary: dict) -> dict:
    """What makes a run the one it is, its data's content too, without the seed."""
    init = (read_json(folder / "run.json") or {}).get("init_sha256")
    if init and init.startswith(by_run("")):  # of this very seed; the words that name it are those of every seed
        init = config.get("init_from")
    return counted(config, summary.get("data_sha256"), init) | {"seed": None}


def _cell(value) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def _metrics(summary: dict, beside: list[dict]) -> list[str]:
    """A table; a missing number shows as missing."""
    lines = ["| metric | final | best | at step |", "| --- | ---: | ---: | ---: |"]
    for name, value in (summary.get("final") or {}).items():
        best = (summary.get("best") or {}).get(name) or {}
        lines.append(f"| {html.escape(name)} | {_cell(value)} | {_cell(best.get('value'))} | {best.get('step', '-')} |")
    if len(beside) > 1:
        names = list(summary.get("final") or {})
        lines += ["", "Final values of all seeds of this recipe:", ""]
        lines += ["| seed | " + " | ".join(map(html.escape, names)) + " |", "| ---: |" + " ---: |" * len(names)]
        for other in beside:
            cells = [_cell((other.get("final") or {}).get(name)) for name in names]
            lines.append(f"| {other.get('seed')} | " + " | ".join(cells) + " |")
    return lines


def card(config: dict, summary: dict, step: int, beside: list[dict], loading: list[str], limits: list[str]) -> str:
    """README.md of the folder. `loading` are the lines of Python that load it, `limits` what it does not support."""
    about = summary.get("provenance") or {}
    names = [config[part]["name"] for part in ("model", "norm", "data")]
    library = {"import timm": "timm", "from transformers": "transformers"}
    used = next((name for start, name in library.items() if any(line.startswith(start) for line in loading)), "dyt")
    lines = ["---", f"library_name: {used}", "license: mit", f"tags: {json.dumps(names[:2])}"]
    lines += ["---", "", f"# {html.escape('{} with {} on {}'.format(*names))}", ""]
    lines += [f"{summary.get('parameters', 0):,} parameters, weights of step {step:,}; status {summary.get('status')}."]
    lines += ["", "## Load", "", "```python", *loading, "```", "", "## Metrics", "", *_metrics(summary, beside), ""]
    lines += [f"Seed {summary.get('seed')}. Measured on the validation data, whose best value chose the best step.", ""]
    lines += ["## Not supported", "", *[f"- {limit}" for limit in limits], ""]
    lines += ["## Data and provenance", ""]
    lines += [
        f"Data {html.escape(names[2])}, sha256 {summary.get('data_sha256')}, config {summary.get('config_hash')}.",
        f"Commit {about.get('git_commit')}, {about.get('hardware')}, "
        f"torch {(about.get('versions') or {}).get('torch')}.",
    ]
    return "\n".join([*lines, "", quoted(yaml.safe_dump(config, sort_keys=False))])
