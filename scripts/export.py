"""A run's weights as safetensors with a model card, for somebody else to load.

    python scripts/export.py run=<run directory> [ckpt=best|last] [out=<folder>]

Writes model.safetensors, config.yaml (of the run) and README.md, the card. Load the weights elsewhere with
init_from=<folder>/model.safetensors.
"""

import html
import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def card(config: dict, summary: dict, step: int) -> str:
    """The model card: what it is, how it did, where it came from; a missing number shows as missing."""
    about = summary.get("provenance") or {}
    names = [config[part]["name"] for part in ("model", "norm", "data")]
    lines = ["---", "library_name: dyt", "license: mit", f"tags: {json.dumps(names[:2])}"]
    lines += ["---", "", f"# {html.escape('{} with {} on {}'.format(*names))}", ""]
    lines += [
        f"{summary.get('parameters', 0):,} parameters, weights of step {step:,}; status {summary.get('status')}.",
        "",
    ]
    lines += ["| metric | final | best | at step |", "| --- | ---: | ---: | ---: |"]
    for name, value in (summary.get("final") or {}).items():
        best = (summary.get("best") or {}).get(name) or {}
        cells = [f"{v:.4f}" if isinstance(v, float) else "-" for v in (value, best.get("value"))]
        lines.append(f"| {html.escape(name)} | {cells[0]} | {cells[1]} | {best.get('step', '-')} |")
    lines += [
        "",
        f"Seed {summary.get('seed')}, data sha256 {summary.get('data_sha256')}, config {summary.get('config_hash')}.",
    ]
    lines += [
        f"Commit {about.get('git_commit')}, {about.get('hardware')}, "
        f"torch {(about.get('versions') or {}).get('torch')}."
    ]
    lines += ["", "```yaml", yaml.safe_dump(config, sort_keys=False).strip().replace("```", "'''"), "```"]
    return "\n".join(lines) + "\n"


def main(words: list[str]) -> int:
    from dyt.config.arguments import closest
    from dyt.rundir import checkpoint
    from dyt.rundir.files import read_json, replace_file, write_text

    asked = {"ckpt": "best"}
    for word in words:
        key, _, value = word.partition("=")
        if key not in ("run", "ckpt", "out") or not value:
            raise ValueError(
                f"{word}: {closest(key, ('run', 'ckpt', 'out'))}give run=<run directory> ckpt=best|last out=<folder>"
            )
        asked[key] = value
    if "run" not in asked:
        raise ValueError("run=<run directory> is missing")
    if asked["ckpt"] not in ("best", "last"):
        raise ValueError(f"ckpt={asked['ckpt']}: choose from best, last")
    run = Path(asked["run"])
    try:
        config = yaml.safe_load((run / "config.yaml").read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"run={run}: no run directory (no readable config.yaml there)") from error
    found = checkpoint.newest(run / "checkpoints", "best" if asked["ckpt"] == "best" else "step")
    if found is None:
        raise ValueError(
            f"run={run}: no checkpoint there that verifies; try ckpt={'last' if asked['ckpt'] == 'best' else 'best'}"
        )
    from safetensors.torch import save

    state, manifest = found
    weights = {k: v.detach().clone().contiguous() for k, v in (state.get("ema") or state["model"]).items()}
    out = Path(asked.get("out") or run / "export")
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "model.safetensors", lambda stream: stream.write(save(weights)))
    write_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_text(out / "README.md", card(config, read_json(run / "summary.json") or {}, manifest["step"]))
    print(out / "model.safetensors")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError) as problem:
        print(f"export.py: {' '.join(str(problem).split())}", file=sys.stderr)
        sys.exit(1)
