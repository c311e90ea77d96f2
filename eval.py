"""Evaluate a run: ``python eval.py run=<run directory> [ckpt=best|last] [split=val|test] [data.path=...]``.

Prints the metrics and writes eval.json into the run's directory, where it can. For a language model
``sample=200 prompt="..."`` prints generated text instead; of a diffusion model ``steps=100 guidance=2 samples=500`` are
the sampler's, and pictures go to eval.png. The config comes from the run. Values are taken as typed, so a prompt may
hold ``=``, commas and quotes. Nothing in the run directory is executed.
"""

import json
import logging
import math
import sys
from pathlib import Path

log = logging.getLogger(__name__)
KEYS = {
    "run": None,
    "ckpt": "best",
    "split": "val",
    "data.path": None,
    "device": "auto",
    "sample": None,
    "prompt": None,
    "temperature": "0.8",
    "top_k": None,
    "seed": "0",
    "steps": None,
    "guidance": None,
    "samples": None,
}
WRITER = ("temperature", "top_k", "seed")  # of text that is written, with sample= or prompt=
MEASURES = ("split", "data.path", "steps", "guidance", "samples")  # of a measurement
SAMPLER = {"steps": "sample_steps", "guidance": "guidance", "samples": "samples"}  # their keys in model.diffusion


def parse(words: list[str]) -> dict:
    """``key=value`` words over the defaults, values as raw text.

    Raises:
        ValueError: an unknown key, a wrong value, or no run; one line with the choices.
    """
    from dyt.config.arguments import closest

    given = dict(KEYS)
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in KEYS:
            raise ValueError(f"{word}: {closest(key, KEYS)}type key=value; keys: {', '.join(KEYS)}")
        if not value and key not in ("run", "prompt"):
            raise ValueError(f"{key}=: is empty, as where a shell variable is not set; give a value or leave it out")
        given[key] = value
    if not given["run"]:
        raise ValueError("run=<run directory> is missing; train.py prints it as its last line")
    for key, choices in (("ckpt", ("best", "last")), ("split", ("val", "test")), ("device", ("auto", "cpu", "cuda"))):
        if given[key] not in choices:
            raise ValueError(f"{key}={given[key]}: choose from {', '.join(choices)}")
    numbers = (("sample", int, 1), ("top_k", int, 1), ("seed", int, 0), ("temperature", float, 0))
    for key, kind, least in (*numbers, ("steps", int, 1), ("guidance", float, 0), ("samples", int, 4)):
        if given[key] is not None:
            try:
                given[key] = kind(given[key])
            except ValueError:
                given[key] = str(given[key])
            if isinstance(given[key], str) or not least <= given[key] < math.inf:
                raise ValueError(f"{key}={given[key]}: needs a number of at least {least}")
    writes = given["sample"] is not None or given["prompt"] is not None
    for word in words:
        key = word.partition("=")[0]
        if writes and key in MEASURES:
            raise ValueError(f"{word}: is of a measurement, and sample= and prompt= write text; leave it out")
        if not writes and key in WRITER:
            raise ValueError(f"{word}: is of text that is written; add sample=200, or leave it out")
    return given


def weights_of(run: Path, ckpt: str) -> tuple[dict, int]:
    """(weights, step) of the best or the newest checkpoint that verifies.

    Raises:
        ValueError: there is none.
    """
    from dyt.rundir import checkpoint

    found = checkpoint.newest(run / "checkpoints", "best" if ckpt == "best" else "step")
    if found is None:
        raise ValueError(f"run={run}: no {ckpt} checkpoint that verifies; train longer, or try the other of best, last")
    state, about = found
    return state.get("ema") or state["model"], about["step"]


def evaluate_run(given: dict) -> tuple[dict, object]:
    """Metrics of a run on a split, as written to eval.json, and the task's picture or None."""
    import torch

    from dyt.run import assemble
    from dyt.rundir import checkpoint
    from dyt.rundir.files import read_json
    from dyt.rundir.meaning import meaning, read_config
    from dyt.training.distributed import join
    from dyt.training.evaluation import at_end, evaluate

    run = Path(given["run"]).expanduser()
    config, about = read_config(run), read_json(run / "run.json") or {}
    config["data"]["cache_dir"] = None  # a stranger's config does not choose where this process writes
    if given["data.path"]:
        config["data"]["path"] = given["data.path"]
    elif isinstance(about.get("data_path"), str):  # wherever it is evaluated, the same file
        config["data"]["path"] = about["data_path"]
    sampler = {ours: given[key] for key, ours in SAMPLER.items() if given[key] is not None}
    if sampler and config["model"]["task"] != "diffusion":
        raise ValueError(
            f"steps, guidance, samples: {config['model']['name']} is not a diffusion model; leave them out"
        )
    if sampler:
        config["model"]["diffusion"] |= sampler
    world = join(given["device"])
    try:
        data, model, _, task = assemble(config, world, 0, meaning(run))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"run={run}: its config.yaml is damaged ({type(error).__name__}: {error})") from error
    _tell_other_data(given, config, about.get("data_sha256"), data.spec.sha256)
    if given["split"] not in data.spec.sizes:
        raise ValueError(f"split=test: data={config['data']['name']} has no test split; choose split=val")
    weights, step = weights_of(run, given["ckpt"])
    checkpoint.load_weights(model, weights, f"run={run}")
    autocast = torch.autocast(world.device.type, dtype=torch.bfloat16, enabled=config["trainer"]["precision"] == "bf16")
    metrics = evaluate(model, task, data, given["split"], world, autocast)
    more, picture = at_end(model, task, data, given["split"], world, autocast)
    told = {"run": str(run), "ckpt": given["ckpt"], "step": step, "split": given["split"]}
    told |= {"data_sha256": data.spec.sha256, "run_data_sha256": about.get("data_sha256")}
    return told | metrics | more | sampler, picture


def keep(run: Path, result: dict, picture) -> None:
    """Writes eval.json and eval.png; a run's folder that cannot be written is a warning, for all is printed."""
    from dyt.rundir.files import replace_file, write_json

    try:
        write_json(run / "eval.json", result)
        if picture is not None:
            replace_file(run / "eval.png", lambda stream: picture.save(stream, "PNG"))
    except OSError as error:
        log.warning("run=%s: eval.json is not kept there (%s)", run, error.strerror or error)


def _tell_other_data(given: dict, config: dict, theirs, ours: str) -> None:
    """Says where this is not the data that the run learned from; refuses where nobody asked for other data.

    Raises:
        ValueError: the run's own path holds other content now.
    """
    if not isinstance(theirs, str) or theirs == ours:
        return
    differs = f"is not the data that the run learned from (sha256 {theirs[:12]} there, {ours[:12]} here)"
    path = config["data"]["path"]
    if path and not given["data.path"]:
        raise ValueError(f"data.path={path} {differs}; type data.path={path} to measure it all the same")
    log.warning("%s %s", f"data.path={path}" if path else f"data={config['data']['name']}", differs)


def sample_run(given: dict) -> str:
    """Text that a language model's run writes after the prompt."""
    from dyt.data import Spec
    from dyt.data.text import Tokenizer, continued
    from dyt.rundir import checkpoint
    from dyt.rundir.files import read_json
    from dyt.rundir.meaning import read_config
    from dyt.training.distributed import join
    from models import build_model

    run = Path(given["run"]).expanduser()
    config = read_config(run)
    if config["model"]["task"] != "text":
        raise ValueError(f"sample: {config['model']['name']} is not a language model")
    about = read_json(run / "tokenizer.json")
    if about is None:
        raise ValueError(f"run={run}: its tokenizer.json is missing or damaged")
    tokenizer = Tokenizer(**{"kind": None} | {k: about[k] for k in ("kind", "chars", "text", "size") if k in about})
    device = join(given["device"]).device
    try:
        model, _ = build_model(config["model"], config["norm"], Spec("text", "", {}, vocab_size=tokenizer.vocab_size))
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"run={run}: its config.yaml is damaged ({type(error).__name__}: {error})") from error
    checkpoint.load_weights(model, weights_of(run, given["ckpt"])[0], f"run={run}")
    how = {"temperature": given["temperature"], "top_k": given["top_k"]}
    return continued(
        model.to(device), tokenizer, given["prompt"] or "\n", given["sample"], given["seed"], device, **how
    )


def main(words: list[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if {"-h", "--help"} & set(words):
        print(__doc__ + "\nkeys: " + ", ".join(f"{k}={'' if v is None else v}" for k, v in KEYS.items()))
        return 0
    try:
        given = parse(words)
        if given["prompt"] is not None and given["sample"] is None:
            given["sample"] = 200
        if given["sample"] is not None:
            print(sample_run(given))
            return 0
        result, picture = evaluate_run(given)
        try:
            print(json.dumps(result, indent=2), flush=True)
        finally:
            keep(Path(given["run"]).expanduser(), result, picture)
        return 0
    except (ValueError, OSError) as error:
        text = str(error)
        if "Original Traceback" in text:  # of a loader process: it ends with the line
            text = text.strip().splitlines()[-1].partition(": ")[2]
        print(f"eval.py: {' '.join(text.split())}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
