"""From a command line to a run: compose the config, check it, hash it, and name the directory.

Nothing here imports torch: whether a run is already finished must be known in a second.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dyt.config_check import check
from dyt.hydra_errors import one_line, refuse_null_groups

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SITES = ("attn", "mlp", "final", "embed", "qk", "stem", "down", "conv")
DEFAULT_EXPERIMENT = "default"

# Keys that change where or how fast a run goes, not its numbers: two runs that differ only here are one run.
NOT_HASHED = (
    "experiment tag study out_root resume init_from logger model.name norm.name data.name data.path data.hub "
    "data.hub_config data.revision data.cache_dir data.workers data.timeout trainer.device trainer.save_every "
    "trainer.keep trainer.save_patience"
).split()
# A key added later goes here with the value under which old runs behave as before, so that their hashes stay.
NEUTRAL: dict[str, Any] = {"trainer.kernel": "auto", "data.on_error": "raise"}


@dataclass
class OptimConfig:
    """AdamW with linear warm-up and cosine decay; 1-D parameters (alpha, gamma, beta, biases) get no weight decay."""

    lr: float = 1e-3
    min_lr: float = 0.0
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    weight_decay: float = 0.05
    warmup_steps: int = 0
    clip_grad: float | None = None  # largest gradient norm; null: no clipping


@dataclass
class TrainerConfig:
    """The loop. It counts optimizer steps; max_epochs is converted once, and max_steps wins over it."""

    max_steps: int | None = None
    max_epochs: float | None = None
    eval_every: int | None = None  # steps; null: once an epoch. The last step is always evaluated
    eval_batches: int | None = None  # null: the whole validation set
    log_every: int = 10
    save_every: int | None = None  # steps; null: at each evaluation
    probe_every: int | None = None  # steps; measures each norm's input, alpha and gradients (dyt/probe.py); null: never
    save_patience: float = 600.0  # seconds that training goes on while nothing can be written
    keep: int = 2  # newest checkpoints kept, beside the best
    accumulate: int = 1  # pieces a batch is computed in: less memory, the same curve
    precision: str = "fp32"  # fp32 | bf16 (autocast)
    compile: bool = False
    device: str = "auto"  # auto | cpu | cuda
    threads: int | None = None  # CPU threads; null: torch's choice
    ema_decay: float | None = None  # evaluates and exports the moving average of the weights
    label_smoothing: float = 0.0
    kernel: str = "auto"  # of DyT: auto | reference | compiled | native | triton (dyt/kernels)


@dataclass
class LoggerConfig:
    """W&B or TensorBoard. W&B's auto: online when a key is configured, else offline; it never asks."""

    kind: str = "wandb"  # wandb | tensorboard
    mode: str = "auto"  # auto | online | offline | disabled
    artifacts: bool = False  # the best checkpoint goes to W&B at the end, when online
    project: str = "dyt"
    entity: str | None = None


@dataclass
class Config:
    """The whole config; model, norm and data are open here and checked against what they are arguments of."""

    model: Any = None
    norm: Any = None
    data: Any = None
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    seed: int = 0
    out_root: str = "runs"
    deterministic: bool = False
    init_from: str | None = None  # a run directory or a safetensors file
    resume: str = "auto"  # auto | fresh
    tag: str | None = None  # groups runs in W&B; a study's runs have its name


def norm_arguments(name: str) -> dict:
    """The arguments of ``configs/norm/<name>.yaml`` with their values, its own defaults list followed."""
    raw = yaml.safe_load((CONFIGS / "norm" / f"{name}.yaml").read_text()) or {}
    arguments = {}
    for parent in raw.pop("defaults", []):
        arguments |= norm_arguments(parent) if isinstance(parent, str) and parent != "_self_" else {}
    return arguments | {k: v for k, v in raw.items() if k not in ("name", "kind")}


def register() -> None:
    """Puts the typed part of the config, and each norm's sites, where Hydra finds them."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for path in (CONFIGS / "norm").glob("*.yaml"):
        empty = dict.fromkeys(norm_arguments(path.stem))
        store.store(group="norm_sites", name=path.stem, node={"sites": {site: dict(empty) for site in SITES}})


register()


@dataclass(frozen=True)
class Plan:
    """One run, decided: its plain config, its hash, its directory."""

    config: dict
    hash: str
    dir: Path
    data_sha256: str
    init_sha256: str | None


def load(overrides: list[str]) -> dict:
    """Composes overrides as ``train.py`` does. Returns plain dicts; key ``experiment`` names the recipe.

    Raises:
        ValueError: an unknown option or key, or a wrong type: one line that says what to type instead.
    """
    GlobalHydra.instance().clear()
    refuse_null_groups(overrides, CONFIGS)
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = compose("train", overrides=overrides, return_hydra_config=True)
            return plain(cfg, cfg.hydra.runtime.choices)
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(one_line(error, overrides, CONFIGS)) from error


def plain(cfg, choices) -> dict:
    """A composed Hydra config as checked plain dicts."""
    choices = dict(choices)
    if cfg.model.task != cfg.data.task:  # before interpolations, which would fail with less to say
        fitting = ", ".join(n for n in options("data") if option_task(n) == cfg.model.task)
        raise ValueError(
            f"model={cfg.model.name} is for {cfg.model.task}s and data={cfg.data.name} is {cfg.data.task}s; "
            f"choose data from {fitting}"
        )
    config = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg, [k for k in cfg if k != "hydra"]), resolve=True, throw_on_missing=True
    )
    config["experiment"] = choices.get("experiment") or DEFAULT_EXPERIMENT
    for group in ("model", "norm", "data", "experiment"):
        if choices.get(group) not in options(group) and not (group == "experiment" and choices.get(group) is None):
            raise ValueError(f"{group}={choices.get(group)}: choose from {', '.join(options(group))}")
    check(config, {"": Config, "trainer": TrainerConfig, "optim": OptimConfig, "logger": LoggerConfig})
    return config


def options(group: str) -> list[str]:
    """The names that ``group=`` takes: the files of ``configs/<group>/``."""
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))


def option_task(name: str) -> str | None:
    """``image`` or ``text``: what ``data=<name>`` holds."""
    raw = yaml.safe_load((CONFIGS / "data" / f"{name}.yaml").read_text())
    for parent in raw.get("defaults", []):
        if isinstance(parent, str) and parent.startswith("base/"):
            return parent.removeprefix("base/").removesuffix("@_here_")
    return raw.get("task")


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

    data_sha256 = locate(config["data"]).sha256
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
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words))[:110].strip("-._")
    parent = Path(config["out_root"]) / config["experiment"]
    existing = sorted(parent.glob(f"*-{digest}")) if parent.is_dir() else []
    directory = existing[0] if existing else parent / f"{name}-s{config['seed']}-{digest}"
    return Plan(config, digest, directory, data_sha256, init_sha256)


def difference(ours: dict, theirs: dict) -> str:
    """``optim.lr 0.001 -> 0.002, ...``: the counted settings in which `theirs` differs from `ours`."""
    keys = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    return ", ".join(f"{k} {theirs.get(k)} there, {ours.get(k)} here" for k in keys) or "nothing that counts"
