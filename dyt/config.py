"""From a command line to a run: compose the config, check it, hash it, and name the directory.

Nothing here imports torch: whether a run is already finished must be known in a second.
"""

import hashlib
import json
import math
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

from dyt.arguments import closest
from dyt.hydra_errors import one_line, refuse_null_groups

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SITES = ("attn", "mlp", "final", "embed", "qk", "stem", "down")
DEFAULT_EXPERIMENT = "default"

# Keys that change where or how fast a run goes, not its numbers: two runs that differ only here are one run.
NOT_HASHED = (
    "experiment study out_root resume init_from logger model.name norm.name data.name data.path data.hub "
    "data.hub_config data.revision data.cache_dir data.workers trainer.device trainer.save_every trainer.keep"
).split()
DATA_RANGES = (
    ("batch_size", 1, None),
    ("eval_batch_size", 1, None),
    ("workers", 0, 256),
    ("img_size", 1, None),
    ("patch_size", 1, None),
    ("val_fraction", 0, 1),
    ("crop_padding", 0, None),
    ("crop_pct", 0.01, 1),
    ("hflip", 0, 1),
    ("color_jitter", 0, None),
    ("random_erase", 0, 1),
    ("mixup", 0, None),
    ("cutmix", 0, None),
)
# A key added later goes here with the value under which old runs behave as before, so that their hashes stay.
NEUTRAL: dict[str, Any] = {"trainer.kernel": "auto"}


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
    """W&B. auto: online when a key is configured, else offline; it never asks."""

    mode: str = "auto"  # auto | online | offline | disabled
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
    study: str | None = None  # a tag


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
    for group in ("model", "norm", "data"):
        if choices.get(group) not in options(group):
            raise ValueError(f"{group}={choices.get(group)}: choose from {', '.join(options(group))}")
    check(config)
    return config


def check(config: dict) -> None:
    """What types cannot say.

    Raises:
        ValueError: one line with the key and what it takes.
    """
    known = set(Config.__dataclass_fields__) | {"experiment"}
    for key in config:
        if key not in known:
            raise ValueError(f"{key}: unknown key; {closest(key, known)}keys: {', '.join(sorted(known))}")
    for group, schema in (("trainer", TrainerConfig), ("optim", OptimConfig), ("logger", LoggerConfig)):
        for key in config[group]:
            if key not in (names := list(schema.__dataclass_fields__)):
                raise ValueError(f"{group}.{key}: unknown key; {closest(key, names)}keys: {', '.join(names)}")
    trainer, optim, data = config["trainer"], config["optim"], config["data"]
    for key, choices in (
        ("trainer.precision", ("fp32", "bf16")),
        ("trainer.device", ("auto", "cpu", "cuda")),
        ("trainer.kernel", ("auto", "reference", "compiled", "native", "triton")),
        ("logger.mode", ("auto", "online", "offline", "disabled")),
        ("resume", ("auto", "fresh")),
    ):
        value = lookup(config, key)
        if value not in choices:
            raise ValueError(f"{key}={value}: {closest(value, choices)}choose from {', '.join(choices)}")
    if trainer["max_steps"] is None and trainer["max_epochs"] is None:
        raise ValueError("trainer.max_steps and trainer.max_epochs are both null; set one, e.g. trainer.max_steps=1000")
    for key in ("batch_size", "eval_batch_size", "workers", "img_size", "patch_size"):
        value = data.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"data.{key}={value}: needs a whole number")
    for key in ("out_root", "model.name", "norm.name", "data.name"):
        if not lookup(config, key) or not isinstance(lookup(config, key), str):
            raise ValueError(f"{key}={lookup(config, key)}: needs a word")
    for key in ("path", "cache_dir", "hub", "text_key", "image_key", "label_key"):
        if data.get(key) is not None and not isinstance(data[key], str):
            raise ValueError(f"data.{key}={data[key]}: needs a text; quote it, e.g. 'data.{key}=\"{data[key]}\"'")
    at_least_one = (
        "max_steps",
        "eval_every",
        "eval_batches",
        "log_every",
        "save_every",
        "keep",
        "accumulate",
        "threads",
    )
    for key, value, low, high in (
        *((f"trainer.{k}", trainer[k], 1, 1024 if k == "threads" else None) for k in at_least_one),
        *((f"data.{k}", data.get(k), low, high) for k, low, high in DATA_RANGES),
        ("trainer.max_epochs", trainer["max_epochs"], 1e-9, None),
        ("trainer.ema_decay", trainer["ema_decay"], 0, 1),
        ("trainer.label_smoothing", trainer["label_smoothing"], 0, 1),
        ("optim.lr", optim["lr"], 0, None),
        ("optim.min_lr", optim["min_lr"], 0, None),
        ("optim.warmup_steps", optim["warmup_steps"], 0, None),
        ("optim.weight_decay", optim["weight_decay"], 0, None),
        ("optim.clip_grad", optim["clip_grad"], 1e-12, None),
        ("seed", config["seed"], 0, 2**31 - 1),
    ):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{key}={value}: needs a number")
        if not (low <= value < math.inf and (high is None or value <= high)):
            bounds = f"at least {low:g}" + ("" if high is None else f" and at most {high:g}")
            raise ValueError(f"{key}={value}: must be {bounds}")
    if len(optim["betas"]) != 2 or not all(0 <= b < 1 for b in optim["betas"]):
        raise ValueError(f"optim.betas={optim['betas']}: needs two numbers from 0 to below 1, e.g. [0.9,0.95]")


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


def lookup(config: dict, key: str, default=None):
    """``lookup(config, "optim.lr")``."""
    for part in key.split("."):
        if not isinstance(config, dict) or part not in config:
            return default
        config = config[part]
    return config


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
    from dyt.manifest import weights_sha256

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
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words))[:110].rstrip("-._")
    parent = Path(config["out_root"]) / config["experiment"]
    existing = sorted(parent.glob(f"*-{digest}")) if parent.is_dir() else []
    directory = existing[0] if existing else parent / f"{name}-s{config['seed']}-{digest}"
    return Plan(config, digest, directory, data_sha256, init_sha256)


def difference(ours: dict, theirs: dict) -> str:
    """``optim.lr 0.001 -> 0.002, ...``: the counted settings in which `theirs` differs from `ours`."""
    keys = sorted(k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k))
    return ", ".join(f"{k} {theirs.get(k)} there, {ours.get(k)} here" for k in keys) or "nothing that counts"
