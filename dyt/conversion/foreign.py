"""Weights of other libraries' DyT and Derf, renamed to ours and back: ``model.load_state_dict(load_foreign(state))``.

    here         official    Liger-Kernel   x-transformers                 Equinox (Equimo)
    alpha (1,)   alpha (1,)  alpha (1,)     pre_tanh_scale (), Derf alpha  alpha (C,): alpha_shape="channel" here
    weight (C,)  weight      gamma          gamma                          weight
    bias (C,)    bias        beta           beta                           bias
    shift (1,)   shift       -              s ()

x-transformers stores weights less an offset where it was told to (``unit_offset``; its Encoder and Decoder do so unless
told not to): nothing in a checkpoint shows it, so its reader must be told too.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

LIBRARIES = ("official", "liger", "x-transformers", "equinox")
ROLES = {  # name in some library -> name here
    **{"alpha": "alpha", "pre_tanh_scale": "alpha", "log_alpha": "alpha", "alpha_ratio": "alpha", "alpha0": "alpha"},
    **{"weight": "weight", "gamma": "weight", "scale": "weight"},
    **{"bias": "bias", "beta": "bias", "shift": "shift", "s": "shift"},
}


def _layers(state: Mapping) -> dict[str, dict[str, Tensor]]:
    """Of each module that is a DyT or Derf by its keys, its prefix and its own part of `state`."""
    parts: dict[str, dict] = {}
    for key, value in state.items():
        prefix, dot, name = key.rpartition(".")
        parts.setdefault(prefix + dot, {})[name] = value
    return {prefix: part for prefix, part in parts.items() if _is_dyt(part)}


def _is_dyt(part: dict) -> bool:
    """Whether these keys are one DyT's: a slope, a gamma of one axis, and nothing that no DyT has."""
    if not all(name in ROLES and hasattr(value, "shape") for name, value in part.items()):
        return False
    roles = {ROLES[name] for name in part}
    sizes = {len(value.shape) for name, value in part.items() if ROLES[name] in ("weight", "bias")}
    return {"alpha", "weight"} <= roles and sizes == {1}


def _one_of_each(prefix: str, part: dict, command: str) -> dict[str, str]:
    """By role, the name that stands for it here.

    Raises:
        ValueError: two names for one role, or a size that no DyT has.
    """
    found: dict[str, str] = {}
    where = prefix.rstrip(".") or "the layer"
    for name in part:
        if name not in ("alpha0", "alpha_ratio") and ROLES[name] in found:
            raise ValueError(
                f"{command}: {where} has both {found[ROLES[name]]} and {name}; which one is meant is unclear"
            )
        found[ROLES[name]] = name
    channels = len(part[found["weight"]])
    for role, sizes in (("alpha", (1, channels)), ("bias", (channels,)), ("shift", (1,))):
        value = torch.as_tensor(part[found[role]]) if role in found else None
        if value is not None and value.numel() not in sizes:
            raise ValueError(f"{command}: {where}.{found[role]} has {value.numel()} values for {channels} channels")
    return found


def _copied(state: Mapping) -> dict:
    """A copy with torch's own notes, which `load_state_dict` reads."""
    out = type(state)() if isinstance(state, dict) else {}
    out.update(state)
    if hasattr(state, "_metadata"):
        out._metadata = state._metadata
    return out


def load_foreign(state_dict: Mapping, *, unit_offset: bool | None = None, init_alpha: float = 1.0) -> dict:
    """`state_dict` with the names and shapes of `DynamicTanh` and `Derf`; it is not changed itself.

    Args:
        state_dict: of a whole model or one layer, from the official code, Liger-Kernel, x-transformers or Equinox
            (its arrays as tensors). All that is no DyT passes through untouched; so does what has our names already.
            Alpha of one a channel stays so, for layers with ``alpha_shape="channel"``.
        unit_offset: of x-transformers: whether its norms were built with ``unit_offset=True``, as its Encoder and
            Decoder do unless they get ``norm_add_unit_offset=False``.
        init_alpha: of x-transformers' DyT with unit_offset, which stores pre_tanh_scale less this: its
            ``dynamic_tanh_init_alpha``. (Its Derf stores alpha less 1.)

    Raises:
        ValueError: no DyT is in it, unit_offset is needed and missing, or a layer's keys can be read in two ways.
    """
    layers = _layers(state_dict)
    if not layers:
        names = ", ".join(list(state_dict)[:3])
        raise ValueError(f"load_foreign: no DyT or Derf is among these {len(state_dict)} keys ({names} ...)")
    out = _copied(state_dict)
    for prefix, part in layers.items():
        found = _one_of_each(prefix, part, "load_foreign")
        if {"log_alpha", "alpha_ratio", "alpha0"} & part.keys():
            continue  # of this package alone
        x_transformers = "pre_tanh_scale" in part or "s" in part
        if x_transformers and unit_offset is None:
            raise ValueError(
                f"load_foreign: {prefix}{'s' if 's' in part else 'pre_tanh_scale'} is x-transformers', which may store "
                "weights less an offset; type unit_offset=True (its Encoder's default) or unit_offset=False"
            )
        for name in part:
            del out[prefix + name]
        offset = x_transformers and unit_offset
        for role, name in found.items():
            value = torch.as_tensor(part[name])
            value = value.reshape(1) if value.dim() == 0 else value
            if offset and role in ("alpha", "weight"):
                value = value + (init_alpha if name == "pre_tanh_scale" else 1.0)
            out[prefix + role] = value
    return out


def _slope(part: dict) -> Tensor:
    """alpha as it acts, however it was learned."""
    if "log_alpha" in part:
        return part["log_alpha"].exp()
    return part["alpha0"] * part["alpha_ratio"] if "alpha_ratio" in part else part["alpha"]


def to_foreign(state_dict: Mapping, library: str, *, unit_offset: bool = False, init_alpha: float = 1.0) -> dict:
    """The way back: a state dict of ours under the names and shapes of `library`, which is not changed itself.

    Args:
        state_dict: of a model or layer with `DynamicTanh` (squash tanh) or `Derf`; alpha learned in any way but
            ``absent``, of which a state dict holds no trace. All else passes through.
        library: official, liger, x-transformers or equinox (one alpha a channel).
        unit_offset: as in `load_foreign`, for x-transformers.
        init_alpha: likewise.

    Raises:
        ValueError: an unknown library, no DyT, or a layer that the library has no place for (named).
    """
    if library not in LIBRARIES:
        raise ValueError(f"to_foreign: library={library!r}: choose from {', '.join(LIBRARIES)}")
    layers = _layers(state_dict)
    if not layers:
        raise ValueError("to_foreign: no DyT or Derf with gamma is in this state dict")
    out = _copied(state_dict)
    for prefix, part in layers.items():
        found, where = _one_of_each(prefix, part, "to_foreign"), prefix.rstrip(".") or "the layer"
        weight = part[found["weight"]]
        ours = {"alpha": _slope(part), "weight": weight}
        ours |= {role: part[found[role]] for role in ("shift", "bias") if role in found}
        if "shift" in ours and library in ("liger", "equinox"):
            raise ValueError(f"to_foreign: {where} is a Derf, which {library} does not have")
        if library == "equinox":
            ours["alpha"] = ours["alpha"].expand(len(weight)).clone()
        elif ours["alpha"].numel() > 1:
            raise ValueError(f"to_foreign: {where} has one alpha a channel, which only library='equinox' has")
        if library != "liger":
            ours.setdefault("bias", torch.zeros_like(weight))
        if library == "x-transformers":
            derf = "shift" in ours
            ours["alpha"] = ours["alpha"].reshape(()) - ((1.0 if derf else init_alpha) if unit_offset else 0.0)
            ours["weight"] = weight - (1.0 if unit_offset else 0.0)
            names = {"alpha": "alpha" if derf else "pre_tanh_scale", "weight": "gamma", "bias": "beta", "shift": "s"}
            ours |= {"shift": ours["shift"].reshape(())} if derf else {}
        else:
            names = {"weight": "gamma", "bias": "beta"} if library == "liger" else {}
        for name in part:
            del out[prefix + name]
        out.update({prefix + names.get(role, role): value for role, value in ours.items()})
    return out
