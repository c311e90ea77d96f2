"""A run's weights as safetensors with a model card, for somebody else to load.

    python scripts/export.py run=<run directory> [ckpt=best|last] [out=<folder>]

Writes model.safetensors, config.yaml (of the run), tokenizer.json of a language model, and README.md, the card. Load
the weights elsewhere with init_from=<folder>/model.safetensors: letters and classes then go by name.
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
    from dyt.rundir.files import read_json, replace_file, write_json, write_text
    from dyt.rundir.meaning import read_config

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
    run = Path(asked["run"]).expanduser()
    config = read_config(run)
    found = checkpoint.newest(run / "checkpoints", "best" if asked["ckpt"] == "best" else "step")
    if found is None:
        raise ValueError(
            f"run={run}: no checkpoint there that verifies; try ckpt={'last' if asked['ckpt'] == 'best' else 'best'}"
        )
    from safetensors.torch import save

    state, manifest = found
    weights = {k: v.detach().clone().contiguous() for k, v in (state.get("ema") or state["model"]).items()}
    try:
        about = card(config, read_json(run / "summary.json") or {}, manifest["step"])
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"run={run}: its summary.json is damaged ({error}); move it away") from error
    tokenizer, classes = read_json(run / "tokenizer.json"), (read_json(run / "run.json") or {}).get("classes")
    written = {"format": "pt"}  # what transformers and others ask for
    written |= {"tokenizer": json.dumps(tokenizer)} if tokenizer else {}
    written |= {"classes": json.dumps(classes)} if classes else {}
    out = Path(asked.get("out") or run / "export").expanduser()
    out.mkdir(parents=True, exist_ok=True)
    replace_file(out / "model.safetensors", lambda stream: stream.write(save(weights, metadata=written)))
    if tokenizer:
        write_json(out / "tokenizer.json", tokenizer)
    write_text(out / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    write_text(out / "README.md", about)
    print(out / "model.safetensors")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError) as problem:
        print(f"export.py: {' '.join(str(problem).split())}", file=sys.stderr)
        sys.exit(1)
