"""The model card of an exported run: recipe, data, metrics with their seeds, provenance, and what is not supported."""

import html
import json
from pathlib import Path

import yaml

from dyt.rundir.files import read_json
from dyt.sharing.folder import quoted


def seeds_beside(run: Path, config: dict) -> list[dict]:
    """Summaries of the runs beside `run`, itself among them, whose config differs in the seed alone; by seed."""
    found = {}
    for folder in sorted(run.absolute().parent.iterdir()):
        summary = read_json(folder / "summary.json")
        if not isinstance(summary, dict) or not (folder / "config.yaml").is_file():
            continue
        try:
            theirs = yaml.safe_load((folder / "config.yaml").read_text())
        except (yaml.YAMLError, UnicodeDecodeError, OSError):
            continue
        if isinstance(theirs, dict) and {**theirs, "seed": 0} == {**config, "seed": 0}:
            found[summary.get("seed")] = summary
    return [found[seed] for seed in sorted(found, key=str)]


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
