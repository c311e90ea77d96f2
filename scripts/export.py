"""A run's weights as safetensors with a model card, for somebody else to load.

    python scripts/export.py run=<run directory> [ckpt=best|last] [format=pt|timm|hf] [out=<folder>] [shard=5GB]

format=pt writes model.safetensors, config.yaml (of the run), tokenizer.json of a language model, and README.md, the
card. ``dyt.sharing.load(<folder>)`` builds the model; init_from=<folder>/model.safetensors trains on.

Weights of more than `shard` become several files and their index, model.safetensors.index.json, as transformers reads
it. A run of any number of processes is exported by one.

format=timm writes a ViT for ``timm.create_model("local-dir:<folder>")``, format=hf a GPT for ``from_pretrained`` of
transformers. Where the norm is not theirs, its code goes along (norm_dyt.py, modeling_dyt.py).

export.json names the files. An export over an earlier one replaces those; other files of such names it refuses.
"""

import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CHOICES = {"ckpt": ("best", "last"), "format": ("pt", "timm", "hf")}


def parse(words: list[str]) -> dict:
    """``key=value`` words, or ``--format timm`` as other programs have it, over the defaults.

    Raises:
        ValueError: an unknown key or value, or no run.
    """
    from dyt.config.arguments import closest

    keys = ("run", *CHOICES, "out", "shard")
    asked = {key: choices[0] for key, choices in CHOICES.items()}
    words = list(words)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and not equals and words:
            value = words.pop(0)
        if key not in keys or not value:
            line = "give run=<run directory> ckpt=best|last format=pt|timm|hf out=<folder> shard=5GB"
            raise ValueError(f"{word}: {closest(key, keys)}{line}")
        if key in CHOICES and value not in CHOICES[key]:
            raise ValueError(f"{key}={value}: choose from {', '.join(CHOICES[key])}")
        asked[key] = value
    if "run" not in asked:
        raise ValueError("run=<run directory> is missing")
    return asked


def main(words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    asked = parse(words)
    from dyt.rundir import checkpoint
    from dyt.rundir.files import read_json, replace_file, write_text
    from dyt.rundir.meaning import read_config
    from dyt.sharing import formats, rebuilt, spec_of
    from dyt.sharing.card import card, seeds_beside
    from dyt.sharing.folder import make_room

    run, to = Path(asked["run"]).expanduser(), asked["format"]
    config = read_config(run)
    found = checkpoint.newest(run / "checkpoints", "best" if asked["ckpt"] == "best" else "step")
    if found is None:
        raise ValueError(
            f"run={run}: no checkpoint there that verifies; try ckpt={'last' if asked['ckpt'] == 'best' else 'best'}"
        )
    from huggingface_hub import split_torch_state_dict_into_shards
    from safetensors.torch import save

    state, manifest = found
    weights = state.get("ema") or state["model"]
    summary, tokenizer = read_json(run / "summary.json") or {}, read_json(run / "tokenizer.json")
    classes = (read_json(run / "run.json") or {}).get("classes")
    try:
        spec = spec_of(weights, config["model"]["task"], config["model"].get("reads"))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"run={run}: its weights are not those of its config ({error})") from error
    model, made = rebuilt(config, weights, spec, f"run={run}")  # what cannot be loaded is not given to others

    out = Path(asked.get("out") or run / "export").expanduser()
    told, norm = None, None
    if to == "timm":
        weights, told, norm = formats.as_timm(model, made, config, spec)
    elif to == "hf":
        weights, told = formats.as_hf(model, made, config)
    loading = {
        "pt": formats.load_pt,
        "timm": lambda folder: formats.load_timm(folder, norm),
        "hf": lambda folder: formats.load_hf(folder, told),
    }[to](out.absolute())
    try:
        limits = formats.limits(to, config, model)
        about = card(config, summary, manifest["step"], seeds_beside(run, config), loading, limits)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ValueError(f"run={run}: its summary.json is damaged ({error}); move it away") from error

    written = {"format": "pt"}  # what transformers and others ask for
    written |= {"spec": json.dumps(spec)} if to == "pt" else {}
    written |= {"tokenizer": json.dumps(tokenizer)} if tokenizer else {}
    written |= {"classes": json.dumps(classes)} if classes else {}
    weights = {k: v.detach().clone().contiguous() for k, v in weights.items()}
    try:
        shards = split_torch_state_dict_into_shards(weights, max_shard_size=asked.get("shard", "5GB"))
    except ValueError as error:
        raise ValueError(f"shard={asked['shard']}: {error}; type a size as 5GB or 500MB") from error
    files = {}  # of small ones: their text
    if shards.is_sharded:
        index = {"metadata": shards.metadata, "weight_map": shards.tensor_to_filename}
        files["model.safetensors.index.json"] = json.dumps(index, indent=2) + "\n"
    if tokenizer:  # transformers reads a tokenizer.json of its own kind
        files["tokenizer.json" if to == "pt" else "tokenizer_dyt.json"] = json.dumps(tokenizer, indent=2) + "\n"
    if told:
        files["config.json"] = json.dumps(told, indent=2) + "\n"
    files |= {name: (formats.HERE / name).read_text() for name in formats.code(to, norm, told)}
    files["config.yaml" if to == "pt" else "recipe.yaml"] = yaml.safe_dump(config, sort_keys=False)
    files["README.md"] = about
    make_room(out, [*shards.filename_to_tensors, *files])
    for name, keys in shards.filename_to_tensors.items():
        part = {key: weights[key] for key in keys}
        replace_file(out / name, lambda stream, part=part: stream.write(save(part, metadata=written)))
    for name, text in files.items():
        write_text(out / name, text)
    print(out / ("model.safetensors.index.json" if shards.is_sharded else "model.safetensors"))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError) as problem:
        print(f"export.py: {' '.join(str(problem).split())}", file=sys.stderr)
        sys.exit(1)
