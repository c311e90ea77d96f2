"""Which run a config is: its hash, its directory, and what differs from another's."""

import copy
import functools
import hashlib
import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Keys that change where or how fast a run goes, not its numbers: two runs that differ only here are one run.
NOT_HASHED = (
    "experiment tag study out_root resume init_from logger model.name norm.name data.name data.path data.hub "
    "data.hub_config data.revision data.cache_dir data.mix data.verify data.workers data.timeout trainer.device "
    "trainer.save_every trainer.keep trainer.save_patience trainer.micro_batch trainer.strategy trainer.tp "
    "trainer.checkpointing trainer.dry_run hardware"
).split()
# A key added later goes here with the value under which old runs behave as before, so that their hashes stay.
NEUTRAL: dict[str, Any] = {
    "trainer.kernel": "auto",
    "data.on_error": "raise",
    "optim.kind": "adamw",
    "optim.decay_gain": False,
    "optim.clip_each": False,
    "model.frozen": False,
    "model.residual_init": "gpt2",
    "model.encoder_init": "timm",
    "model.project_std": 0.02,
}


@dataclass(frozen=True)
class Plan:
    """One run, decided: its plain config, its hash, its directory."""

    config: dict
    hash: str
    dir: Path
    data_sha256: str
    init_sha256: str | None
    base: "Plan | None" = None  # the run that ``init_from`` names by its words


def flatten(config: dict, prefix: str = "") -> dict:
    """Nested dicts as ``{"optim.lr": 0.001, ...}``."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def counted(config: dict, data_sha256: str, init_sha256: str | None = None) -> dict:
    """The flat settings that change a run's numbers. Null counts as absent: null means "inherit" or "off"."""
    flat = {
        key: int(value) if isinstance(value, float) and value.is_integer() else value
        for key, value in flatten(config).items()
        if value is not None
        and not any(key == skip or key.startswith(skip + ".") for skip in NOT_HASHED)
        and not (key in NEUTRAL and NEUTRAL[key] == value)
    }
    flat["data.sha256"] = data_sha256
    if init_sha256:
        flat["init_sha256"] = init_sha256
    return flat


def config_hash(config: dict, data_sha256: str, init_sha256: str | None = None) -> str:
    """Ten hex digits that change when, and only when, a setting does that changes the numbers."""
    text = json.dumps(counted(config, data_sha256, init_sha256), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def plan(config: dict, overrides: list[str] = ()) -> Plan:
    """Names the run: ``<out_root>/<experiment>/<model>-<norm>-<data>-<overrides>-s<seed>-<hash>``.

    The hash alone identifies: where a directory with it exists, however its overrides were typed, that one is meant.

    Raises:
        ValueError, OSError: the data or the ``init_from`` weights are not there.
    """
    from dyt.data.sources import locate
    from dyt.rundir.files import weights_sha256

    dry = config["trainer"]["dry_run"]  # which needs no data
    data_sha256 = "" if dry else locate(config["data"]).sha256
    named = base_config(config)
    base = plan(*named) if named else None
    if base is not None:
        init_sha256 = by_run(base.hash)
    else:
        init_sha256 = weights_sha256(config["init_from"]) if config["init_from"] else None
    digest = config_hash(config, data_sha256, init_sha256)
    words = [config["model"]["name"], config["norm"]["name"], config["data"]["name"]]
    for override in sorted(overrides):
        key, _, value = override.lstrip("+~").partition("=")
        skip = key in ("seed", "model", "norm", "data", "experiment") or any(
            key == s or key.startswith(s + ".") for s in NOT_HASHED
        )
        if not skip and not key.startswith("hydra"):
            words.append(f"{key}-{value}")
    name = _name(words)
    directory = Path(config["out_root"]).expanduser() / config["experiment"] / f"{name}-s{config['seed']}-{digest}"
    directory = existing(config, digest, directory) or directory
    return Plan(config, digest, directory, data_sha256, init_sha256, base)


def by_run(digest: str) -> str:
    """What stands for the weights of a run that ``init_from`` names by its words: its settings decide them."""
    return f"run {digest}"


def base_config(config: dict) -> tuple[dict, list[str]] | None:
    """Config and words of the run that ``init_from`` names by words: of this seed.

    It is of this data and model too, unless the words name others, a masked autoencoder for one; pictures and patches
    are then as large as here.

    Raises:
        ValueError: a word that would be of no effect, as this run's setting is taken.
    """
    named = config["init_from"]
    if not named or "=" not in named or os.path.exists(Path(named).expanduser()):  # long words are no OSError there
        return None
    words = shlex.split(named)
    asked = _base(f"model={config['model']['name']}", f"data={config['data']['name']}", *words)
    made = copy.deepcopy(asked)
    for key in ("model", "data", "seed", "out_root", "logger", "deterministic", "tag"):
        if key == "data" and any(word.startswith("data=") for word in words):  # a chromosome, for one
            made["data"] |= _found_as_here(config["data"], made["data"], words)
        elif key == "model" and any(word.startswith("model=") for word in words):
            sizes = {"img_size", "patch_size"} & made["model"].keys() & config["model"].keys()  # a GPT has none
            made["model"] |= {k: config["model"][k] for k in sizes}
        else:
            made[key] = config[key]
            if key == "data" and made["model"]["task"] in ("mae", "dino", "diffusion"):  # this run's labels are mixed
                made["data"] = config["data"] | {"mixup": 0.0, "cutmix": 0.0}
    alike = "threads device kernel precision strategy tp checkpointing micro_batch dry_run"
    for key in alike.split():
        made["trainer"][key] = config["trainer"][key]
    typed, taken = flatten(asked), flatten(made)
    for word in words:
        key = word.lstrip("+~").partition("=")[0]
        if key in typed and typed[key] != taken.get(key):
            group = key.partition(".")[0]
            there = f", or type {group}={config[group]['name']} there before it" if group in ("model", "data") else ""
            raise ValueError(
                f"init_from: {word}: the run that it names has {key}={json.dumps(taken.get(key))}, as this one; "
                f"leave it out{there}"
            )
    return made, words


def _found_as_here(ours: dict, theirs: dict, words: list[str]) -> dict:
    """Settings that say where data are: of another set the cache's alone, of this set all that the words do not set."""
    if theirs["name"] != ours["name"]:
        return {"cache_dir": ours["cache_dir"]}
    keys = [word.lstrip("+~") for word in words]
    typed = {re.split("[.=]", key)[1] for key in keys if key.startswith("data.")}
    where = {key.removeprefix("data.") for key in NOT_HASHED if key.startswith("data.")} - typed
    return {key: copy.deepcopy(ours[key]) for key in where & ours.keys() & theirs.keys()}


@functools.lru_cache(maxsize=64)
def _base(*words: str) -> dict:
    """Composed once for all runs of a study that start from the same one."""
    from dyt.config import compose

    return compose.load(list(words))


def existing(config: dict, digest: str, usual: Path) -> Path | None:
    """The directory of a config hash beside `usual`, whatever words made it; a copy or a renamed one is another."""
    from dyt.rundir.files import read_json

    if usual.is_dir():
        return usual
    begins = _name([config[part]["name"] for part in ("model", "norm", "data")])
    for folder in sorted(usual.parent.glob(f"*-{digest}")) if usual.parent.is_dir() else []:
        name = (read_json(folder / "run.json") or {}).get("name")
        if folder.name == name or (name is None and folder.name.startswith(begins)):
            return folder
    return None


def _name(words: list[str]) -> str:
    """Words as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words))[:110].strip("-._")


def difference(ours: dict, theirs: dict) -> str:
    """``optim.lr 0.001 -> 0.002, ...``: the counted settings in which `theirs` differs from `ours`."""
    keys = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    return ", ".join(f"{k} {theirs.get(k)} there, {ours.get(k)} here" for k in keys) or "nothing that counts"
