"""What a composed config must hold beyond its types. Each refusal is one line that names the key."""

import json
from collections.abc import Callable

from dyt.config.arguments import closest, lookup
from dyt.config.identity import flatten
from dyt.config.ranges import BELOW_1, refuse_numbers, within

CHOICES = {  # of a key that takes a word; the first is meant where an old config lacks the key
    "optim.kind": ("adamw", "muon", "sgd"),
    "trainer.precision": ("fp32", "bf16", "double"),
    "trainer.strategy": ("auto", "single", "ddp", "fsdp", "hsdp"),
    "trainer.checkpointing": ("none", "block", "selective"),
    "trainer.device": ("auto", "cpu", "cuda"),
    "trainer.kernel": ("auto", "reference", "compiled", "native", "triton"),
    "hardware.kind": ("auto", "cpu", "rtx4090", "a100", "h100", "h200", "b200"),
    "logger.kind": ("wandb", "tensorboard"),
    "logger.mode": ("auto", "online", "offline", "disabled"),
    "resume": ("auto", "fresh"),
    "data.on_error": ("raise", "skip"),
    "convert": ("naive", "reset", "calibrated"),  # or null
}
CONVERTED = ("dyt", "derf")  # kinds of norm that `convert` makes
RANGES = {  # of a key that takes a number: least and largest, both allowed
    "trainer.max_steps": (1, None),
    "trainer.eval_every": (1, None),
    "trainer.eval_batches": (1, None),
    "trainer.log_every": (1, None),
    "trainer.save_every": (1, None),
    "trainer.probe_every": (1, None),
    "trainer.keep": (1, None),
    "trainer.accumulate": (1, None),
    "trainer.micro_batch": (1, None),
    "trainer.tp": (1, 4096),
    "trainer.threads": (1, 1024),
    "data.batch_size": (1, None),
    "data.eval_batch_size": (1, None),
    "data.workers": (0, 256),
    "data.timeout": (0, None),
    "data.seconds": (1e-3, None),
    "data.min_seconds": (1e-3, None),
    "data.sample_rate": (100, 1 << 20),
    "data.pcm_rate": (100, 1 << 20),
    "data.train_tokens": (2, None),
    "data.episodes": (2, None),
    "data.eval_tokens": (2, None),
    "data.length": (1, 1 << 20),
    "data.pieces": (1, None),
    "data.reverse_complement": (0, 1),
    "data.vocab": (1, 1 << 26),
    "data.img_size": (1, 1 << 16),
    "data.patch_size": (1, 1 << 16),
    "data.val_fraction": (0, 1),
    "data.crop_padding": (0, 1 << 16),
    "data.crop_pct": (0.01, 1),
    "data.hflip": (0, 1),
    "data.color_jitter": (0, None),
    "data.random_erase": (0, 1),
    "data.mixup": (0, None),
    "data.cutmix": (0, None),
    "trainer.max_epochs": (1e-9, None),
    "trainer.save_patience": (0, None),
    "trainer.ema_decay": (0, BELOW_1),  # 1 would keep the first weights for ever
    "trainer.label_smoothing": (0, 1),
    "optim.lr": (0, None),
    "optim.min_lr": (0, None),
    "optim.warmup_steps": (0, None),
    "optim.weight_decay": (0, None),
    "optim.clip_grad": (1e-12, None),
    "hardware.devices": (1, 1 << 20),
    "hardware.utilisation": (1e-9, 1),
    "hardware.price": (0, None),
    "seed": (0, 2**31 - 1),
}
# Keys of data that take a whole number.
WHOLE = (
    "batch_size",
    "eval_batch_size",
    "workers",
    "img_size",
    "patch_size",
    "train_tokens",
    "eval_tokens",
    "length",
    "pieces",
    "vocab",
    "episodes",
    "crop_padding",
    "sample_rate",
    "pcm_rate",
)  # of data
# Keys of data that take a text, or null.
TEXTS = "path cache_dir hub hub_config revision text_key image_key audio_key label_key speaker_key encoding".split()


def check(config: dict, schemas: dict[str, type]) -> None:
    """Raises for what types cannot say; `schemas` are the dataclasses of the root (key ``""``) and of each group.

    Raises:
        ValueError: one line with the key and what it takes.
    """
    for group, schema in schemas.items():
        names = [*schema.__dataclass_fields__, *([] if group else ["experiment"])]
        for key in config[group] if group else config:
            if key not in names:
                name = f"{group}.{key}" if group else key
                raise ValueError(f"{name}: unknown key; {closest(key, names)}keys: {', '.join(names)}")
    trainer, optim, data = config["trainer"], config["optim"], config["data"]
    sites = config["norm"].get("sites") or {}
    at_sites = {f"norm.sites.{s}": v or {} for s, v in sites.items()} if isinstance(sites, dict) else {}
    for key, value in {"norm.sites": sites, **at_sites}.items():
        if not isinstance(value, dict):
            raise ValueError(f"{key}={value}: has keys of its own, e.g. norm.sites.attn.alpha_init=0.8")
    for key, choices in CHOICES.items():
        value = lookup(config, key, choices[0])
        if value not in choices and not (key == "convert" and value is None):
            raise ValueError(f"{key}={value}: {closest(value, choices)}choose from {', '.join(choices)}")
    _refuse_sharded(config)
    twice = config["model"]["task"] == "dino" and trainer.get("precision") == "bf16"
    if twice and trainer.get("checkpointing") == "selective":  # casts of weights are in the first pass alone
        raise ValueError(
            "trainer.checkpointing=selective: DINO's blocks run twice in a step, which it cannot tell apart in bf16; "
            "type trainer.checkpointing=block"
        )
    if data.get("on_error") == "skip" and (data.get("mixup") or data.get("cutmix")):
        raise ValueError("data.on_error=skip: mixup and cutmix need whole batches; set both to 0, or mend the pictures")
    if trainer["max_steps"] is None and trainer["max_epochs"] is None:
        raise ValueError("trainer.max_steps and trainer.max_epochs are both null; set one, e.g. trainer.max_steps=1000")
    for key in WHOLE:
        value = data.get(key, 1)
        if key in ("train_tokens", "eval_tokens", "pieces", "vocab", "episodes", "pcm_rate") and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"data.{key}={value}: needs a whole number")
    if (mix := data.get("mix")) is not None:
        shares = list(mix.values()) if isinstance(mix, dict) else []
        if not shares or not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in shares):
            raise ValueError(
                f"data.mix={mix}: needs a share above 0 for each set, e.g. 'data.mix={{web: 0.7, code: 0.3}}'"
            )
        if data["source"] != "shards":
            raise ValueError(f"data.mix: data={data['name']} is one set; type data=shards")
    for key in ("out_root", "model.name", "norm.name", "data.name"):
        if not lookup(config, key) or not isinstance(lookup(config, key), str):
            raise ValueError(f"{key}={lookup(config, key)}: needs a word")
    for key in TEXTS:
        if data.get(key) is not None and not isinstance(data[key], str):
            raise ValueError(f"data.{key}={data[key]}: needs a text; quote it, e.g. 'data.{key}=\"{data[key]}\"'")
    for key, (low, high) in RANGES.items():
        if (value := lookup(config, key)) is not None:
            within(key, value, low, high)
    if len(optim["betas"]) != 2 or not all(0 <= b < 1 for b in optim["betas"]):
        raise ValueError(f"optim.betas={optim['betas']}: needs two numbers from 0 to below 1, e.g. [0.9,0.95]")
    project = config["logger"]["project"]
    if len(project) > 128 or set(project) & set("/\\#?%:"):
        raise ValueError(
            f"logger.project={project}: W&B takes at most 128 characters, and it may not contain any of / \\ # ? % :"
        )
    refuse_numbers(flatten(config), data["task"])


def check_conversion(config: dict, base: dict | None, defaults: Callable[[str], dict]) -> None:
    """What `convert` cannot make of the norms of `base`, the config of the run that it starts from: only DyT and Derf.

    Any other norm must be as it is there. `defaults` gives a kind's arguments.

    Raises:
        ValueError: one line with the key.
    """
    how = f"convert={config['convert']}"
    if base is None:
        raise ValueError(
            f"{how}: needs the run whose norms are converted, by its words, e.g. "
            "init_from='norm=layernorm trainer.max_steps=1000'"
        )
    _refuse_other_model(config["model"], base["model"], how)
    norm, sites = config["norm"], config["norm"].get("sites") or {}
    for site in (None, *sites):  # None: where no site says otherwise
        there = "" if site is None else f" at {site}"
        (kind, own), (theirs, their) = (_placed(part, site, defaults) for part in (norm, base["norm"]))
        if kind in CONVERTED:
            continue
        here = {k: v for k, v in (sites.get(site) or {}).items() if v is not None}
        if kind != theirs:
            key = f"norm.sites.{site}.kind={kind}" if "kind" in here else f"norm={norm['name']}"
            kept = dict.fromkeys(f"norm.sites.{site}.kind={k}" for k in (theirs, "dyt"))
            if site is None:
                kept = ("norm=dyt", f"norm=derf, and norm.sites.<site>.kind={theirs} where that is to stay")
            raise ValueError(
                f"{key}: {how} makes DyT or Derf, and the run of init_from has {theirs}{there}; "
                f"type {' or '.join(kept)}"
            )
        for name in sorted(own.keys() & their.keys()):
            if own[name] != their[name]:
                key = f"norm.sites.{site}.{name}" if here else f"norm.{name}"
                new = "+" if here and name not in sites[site] else ""
                raise ValueError(
                    f"{key}={_typed(own[name])}: {how} leaves {kind} as it was, and the run of init_from has "
                    f"{_typed(their[name])}{there}; type {new}{key}={_typed(their[name])}"
                )


def _placed(norm: dict, site: str | None, defaults: Callable[[str], dict]) -> tuple[str, dict]:
    """Kind and arguments of the norm at `site`, as in `dyt.norms.NormFactory`."""
    here = {k: v for k, v in ((norm.get("sites") or {}).get(site) or {}).items() if v is not None}
    kind, common = here.pop("kind", norm["kind"]), {k: v for k, v in norm.items() if k not in ("name", "kind", "sites")}
    if kind in CONVERTED or kind == norm["kind"]:
        return kind, common | here
    own = defaults(kind)
    return kind, own | {k: v for k, v in common.items() if k in own} | here


def _typed(value) -> str:
    """A value as in a command."""
    return value if isinstance(value, str) else json.dumps(value)


def _refuse_other_model(ours: dict, theirs: dict, how: str) -> None:
    if any(ours[key] != theirs[key] for key in ("family", "task")):
        raise ValueError(
            f"model={ours['name']}: {how} needs a run of the same model, and init_from names model={theirs['name']}"
        )
    for key in sorted(ours.keys() & theirs.keys() - {"name"}):
        pair = ours[key], theirs[key]  # a share of dropout, a standard deviation at the start may differ
        if pair[0] != pair[1] and not any(isinstance(value, float | dict) for value in pair):
            here, there = map(_typed, pair)
            raise ValueError(
                f"model.{key}={here}: {how} needs a run of the same model, and init_from's has {there}; "
                f"type model.{key}={there}, or put model.{key}={here} into init_from"
            )


def _refuse_sharded(config: dict) -> None:
    """What a model that is spread over processes cannot have.

    Raises:
        ValueError: one line with the key.
    """
    trainer, model = config["trainer"], config["model"]
    tp, strategy = trainer.get("tp", 1), trainer.get("strategy", "auto")
    if tp > 1:
        if model["family"] != "gpt":
            raise ValueError(f"trainer.tp={tp}: splits a GPT, not model={model['name']}; type trainer.strategy=fsdp")
        for key, value in (("model.qk_norm", False), ("model.dropout", 0), ("model.method", None)):
            if lookup(config, key, value) != value:
                raise ValueError(f"trainer.tp={tp}: does not go with {key}={lookup(config, key)}; type {key}={value}")
        if config["optim"].get("kind") == "muon":
            raise ValueError(f"trainer.tp={tp}: Muon needs whole matrices; type trainer.strategy=fsdp")
    if config.get("convert") and (tp > 1 or strategy in ("fsdp", "hsdp")):
        raise ValueError(f"convert={config['convert']}: needs the whole model in a process; type trainer.strategy=auto")
