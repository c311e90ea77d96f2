"""What a run is called beside others: its norm as a person writes it, and what else differs. ``DyT 0.2/5, lr 4e-3``.

Tables, the page, W&B and TensorBoard all take their names from here.
"""

import re
from collections import Counter
from collections.abc import Iterable

from dyt.config.identity import flatten

NAMES = {
    "layernorm": "LayerNorm", "rmsnorm": "RMSNorm", "batchnorm": "BatchNorm", "instancenorm": "InstanceNorm",
    "dyt": "DyT", "derf": "Derf", "none": "no norm", "fixup": "Fixup", "skipinit": "SkipInit",
    "sigma_reparam": "sigmaReparam", "l1norm": "L1 norm", "grouprms": "RMSNorm in groups of", "maxnorm": "max norm",
    "runningrms": "running RMS", "signedsqrt": "signed square root",
}  # fmt: skip
SHORT = {
    "optim.lr": "lr", "norm.alpha_init": "alpha0", "norm.gamma_init": "gamma0", "model.dim": "width",
    "model.depth": "depth", "model.embed_scale": "embed scale", "model.embed_std": "embed std",
    "trainer.max_steps": "steps", "data.batch_size": "batch", "optim.weight_decay": "decay",
    "norm.sites.attn.alpha_init": "attention alpha0",
}  # fmt: skip
# What a variant is made of, in a study; other factors (data, width, depth, ...) say where it was tried.
OF_A_VARIANT = ("norm", "lr", "alpha", "alpha0", "alpha0s", "attention", "other")
NOT_NAMED = ("seed", "tag", "resume", "experiment", "init_from", "model.name", "norm.name", "data.name", "norm.kind")


def name(level: str) -> str:
    """A norm as a person writes it: ``dyt-fed 0.2/5`` is ``DyT 0.2/5`` (in a GPT all but LayerNorm are fed anyway)."""
    first, fed, alpha0, rest = re.fullmatch(r"([a-z_\d]*)(-fed)?(-[\d.]+)?(.*)", level, re.DOTALL).groups()
    known = NAMES.get(first, first)
    before = "fed " if fed and first == "layernorm" else ""
    return before + known + (f" alpha0 {alpha0[1:]}" if alpha0 else "") + rest


def value(of) -> str:
    """A setting as it is typed: 0.004 is ``4e-3``, 1000 is ``1,000``, true is ``on``."""
    if isinstance(of, bool):
        return "on" if of else "off"
    try:
        number = float(of)
    except (TypeError, ValueError):
        return str(of)
    if number and abs(number) < 0.01:
        digits, _, power = f"{number:.6e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{int(number):,}" if number.is_integer() and abs(number) < 1e15 else f"{number:g}"


def of_cell(cell: dict[str, str], norm: str, varies: Iterable[str]) -> tuple[str, str]:
    """(variant, place) of a study's cell.

    Args:
        cell: factor -> level.
        norm: the config's norm, for a study in which it is no factor.
        varies: the factors that have more than one level in the study at this scale.
    """
    varies = set(varies)
    words = [name(cell.get("norm") or cell.get("start") or norm)]
    places = []
    for factor, level in cell.items():
        if factor in ("norm", "start") or not level or factor not in varies:
            continue
        number = re.fullmatch(r"[-\d.e/]+", level) is not None
        named = number or factor in ("alpha", "scalar", "std", "tokens", "zero_init")
        said = f"{factor.replace('_', ' ')} {value(level)}" if named else level
        (words if factor in OF_A_VARIANT else places).append(said)
    return ", ".join(words), ", ".join(places)


def of_config(flat: dict, differs: Iterable[str] = ()) -> str:
    """A run's name from its flat config and the keys in which it differs from those beside it."""
    differs = [key for key in differs if key not in NOT_NAMED and flat.get(key) is not None]
    norm, kind = str(flat.get("norm.name", "")), str(flat.get("norm.kind") or flat.get("norm.name", ""))
    first, alpha0, gamma0 = name(norm), flat.get("norm.alpha_init"), flat.get("norm.gamma_init")
    if kind in ("dyt", "derf") and (norm != kind or {"norm.alpha_init", "norm.gamma_init"} & set(differs)):
        first = name(kind)
        if isinstance(alpha0, int | float) and alpha0:
            gamma0 = 1 / alpha0 if gamma0 == "inverse_alpha" else 1 if gamma0 is None else gamma0
            first += f" {alpha0:g}/{gamma0:.3g}" if isinstance(gamma0, int | float) else ""
            differs = [key for key in differs if key not in ("norm.alpha_init", "norm.gamma_init")]
    words = [f"{SHORT.get(key, key.rpartition('.')[2].replace('_', ' '))} {value(flat[key])}" for key in differs]
    return ", ".join([first, *words])


def of_run(config: dict) -> str:
    """A run's name where nothing stands beside it: norm, what is unusual about it, learning rate."""
    flat = flatten(config)
    odd = [key for key, usual in (("norm.alpha", "learned"), ("norm.squash", "tanh")) if flat.get(key, usual) != usual]
    return of_config(flat, ["norm.alpha_init", *odd, "optim.lr"])


def differing(configs: list[dict]) -> list[str]:
    """Keys in which flat configs differ; a norm's own keys count within runs of that norm only."""
    if not configs:
        return []
    found = []
    for key in sorted(set().union(*configs)):
        groups: dict[str, set] = {}
        for flat in configs:
            groups.setdefault(str(flat.get("norm.name")) if key.startswith("norm.") else "", set()).add(
                str(flat.get(key))
            )
        if key not in NOT_NAMED and any(len(seen) > 1 for seen in groups.values()):
            found.append(key)
    return found


def usual(configs: list[dict], keys: Iterable[str]) -> dict[str, str]:
    """By key the value that more than half of the configs have, as text: what a name need not say."""
    found = {}
    for key in keys:
        value, count = Counter(str(flat.get(key)) for flat in configs).most_common(1)[0]
        if 2 * count > len(configs):
            found[key] = value
    return found
