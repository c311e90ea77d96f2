"""Put new layers where old norms are, keep what is needed to go back, and go back: ``revert(model)``."""

from typing import Any

import torch
from torch import Tensor, nn

from dyt.conversion.plan import check_unwrapped

ORIGINAL = "_dyt_original"  # on each new layer: a tuple of what stood there, no submodule, so not in the state_dict
CHANGED = "_dyt_changed"  # on a module whose attributes had to change: what they were
RECORD = "_dyt_conversion"  # on the converted module: its rows, plain data that a copy or a pickle takes along
_HOOKS = [k for k in vars(nn.Module()) if "hook" in k and ("forward" in k or "backward" in k)]


def swap(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Puts each new layer where its old one is, everywhere; nothing here can fail half way."""
    exchange(model, new)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and _changed(module, new):
            # torch's fast path reads norm1.weight and norm1.eps and computes LayerNorm; this sends it the slow way.
            _set(module, "activation_relu_or_gelu", 0)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and any(CHANGED in vars(m) for m in module.layers):
            _set(module, "use_nested_tensor", False)  # the slow way takes no nested tensor
    for old, layer in new.items():
        layer.__dict__[ORIGINAL] = (old, _reference(model, layer))


def _changed(module: nn.Module, new: dict[nn.Module, nn.Module]) -> bool:
    layers = set(new.values())
    return any(m in layers and type(m) is not nn.LayerNorm for m in module.children())


def _set(module: nn.Module, name: str, value) -> None:
    if hasattr(module, name):
        vars(module).setdefault(CHANGED, {}).setdefault(name, getattr(module, name))
        setattr(module, name, value)


def exchange(model: nn.Module, new: dict[nn.Module, nn.Module]) -> None:
    """Puts ``new[m]`` wherever `model` holds m: as a child, an attribute, or in an attribute's lists, tuples, dicts."""
    seen: set[int] = set()

    def put(value: Any) -> Any:
        if isinstance(value, nn.Module):
            return new.get(value, value)
        if type(value) is tuple:
            changed = tuple(map(put, value))
            return changed if any(a is not b for a, b in zip(changed, value, strict=True)) else value
        if not isinstance(value, list | dict) or id(value) in seen:
            return value
        seen.add(id(value))
        for key, held in list(value.items() if isinstance(value, dict) else enumerate(value)):
            if isinstance(held, nn.Module | list | tuple | dict) and key != ORIGINAL:
                if (changed := put(held)) is not held:
                    value[key] = changed
        return value

    for module in list(model.modules()):
        put(vars(module))


def _reference(model: nn.Module, layer: nn.Module) -> tuple[torch.device, torch.dtype] | None:
    name = next(n for n, m in model.named_modules() if m is layer)
    like = like_of(model, name, layer)
    return None if like is None else (like.device, like.dtype)


def revert(model: nn.Module) -> nn.Module:
    """Brings the old norms of a converted `model` back, as they were kept, and returns it.

    Where it was converted several times in a row, those of before the first. They follow the model to the device and
    dtype that it has now. A copy or a pickle of a converted model can be reverted too; a model that was built anew and
    only loaded a state dict cannot.

    Raises:
        ValueError: nothing was converted, the model is compiled or wrapped, or it was converted on the meta device and
            the norm cannot start anew.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"revert: needs a torch.nn.Module, not {model!r}")
    check_unwrapped(model, "revert")
    layers = converted(model)
    if not layers:
        raise ValueError(f"revert: {type(model).__name__} holds no layer that convert put there")
    for layer in layers:
        while kept := vars(vars(layer)[ORIGINAL][0]).get(ORIGINAL):  # what stood there was put there by convert too
            layer.__dict__[ORIGINAL] = kept
    while layers:  # a norm that comes back may hold such a layer further in
        take_back(model, layers)
        layers = converted(model)
    for module in model.modules():
        vars(module).pop(RECORD, None)
    return model


def converted(model: nn.Module) -> set[nn.Module]:
    """The layers of `model` that stand where old norms stood."""
    return {m for m in model.modules() if ORIGINAL in vars(m)}


def take_back(model: nn.Module, layers: set[nn.Module]) -> None:
    """Puts the old norms of these layers back; other layers that were converted stay.

    Raises:
        ValueError: as `revert`; nothing was changed then.
    """
    back = {m: vars(m)[ORIGINAL] for m in model.modules() if m in layers}
    names = {m: n for n, m in model.named_modules()}
    for layer, (old, _) in back.items():
        now = _reference(model, layer)
        empty = any(p.is_meta for p in old.parameters()) and now[0].type != "meta"
        if empty and not hasattr(old, "reset_parameters"):
            raise ValueError(f"revert: {names[layer]} was converted on the meta device, so its weights have no values")
    for layer, (old, then) in back.items():
        now = _reference(model, layer)
        if now != then:
            if any(p.is_meta for p in old.parameters()):
                old.to_empty(device=now[0])
                old.reset_parameters()
            old.to(device=now[0], dtype=now[1] if now[1] != then[1] else None)
        within = set(layer.modules())
        for part in old.modules():
            if part not in within:
                part.training = layer.training
        for key, hook in list(layer._forward_hooks.items()):
            if hook in (as_input, as_weight):
                del layer._forward_hooks[key]
        share_hooks(layer, old)
    exchange(model, {layer: old for layer, (old, _) in back.items()})
    for layer in back:
        del layer.__dict__[ORIGINAL]
    for module in model.modules():
        if CHANGED in vars(module) and not converted(module):
            for name, value in vars(module).pop(CHANGED).items():
                setattr(module, name, value)


def share_hooks(old: nn.Module, new: nn.Module) -> None:
    """Gives `new` the hooks of `old`: the same dicts, so that a handle still removes its hook."""
    for key in _HOOKS:
        if key in vars(old):
            new.__dict__[key] = vars(old)[key]


def like_of(model: nn.Module, name: str, module: nn.Module) -> nn.Parameter | None:
    """A parameter of the norm or, where it has none, of the nearest module around it."""
    while True:
        for p in module.parameters():
            if p.is_floating_point():
                return p
        if not name:
            return None
        name = name.rpartition(".")[0]
        module = model.get_submodule(name)


def holder(module: nn.Module, name: str) -> nn.Module | None:
    """What holds the parameter `name`: `module`, or a part of it, as where a LayerNorm stands in one for axis 1."""
    return next((m for m in module.modules() if m._parameters.get(name) is not None), None)


def as_input(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
    return out.to(args[0].dtype)


def as_weight(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
    return out.to(next(module.parameters()).dtype)
