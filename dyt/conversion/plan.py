"""What is to become of every norm of a model, before anything is changed."""

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dyt.conversion.recognise import Norm, looks_like_norm, recognise
from dyt.conversion.sites import site_of as guessed_site
from dyt.norms.dynamic import DynamicTanh

Pattern = str | Iterable[str] | Callable[[str, nn.Module], bool]
_WHY = {  # for a kind that is left unless its policy says replace
    "batchnorm": "measures over the batch, and DyT does worse there (the paper, Table 16: ResNet-50 76.2 -> 68.9)",
    "groupnorm": "measures groups of channels over all positions; groupnorm='replace' swaps it all the same",
}
_OUTSIDE = {  # containers that hold on to the parameters as they are now
    "DistributedDataParallel": "DistributedDataParallel",
    "FullyShardedDataParallel": "FullyShardedDataParallel",
    "OptimizedModule": "torch.compile",
}


@dataclass
class Entry:
    """One norm, or what looks like one, and what becomes of it.

    `name` is its first name and `names` are all; `kind` is layernorm, rmsnorm, batchnorm, groupnorm, dyt or other;
    `axis` is that of the channels, -1 or 1, and `width` their number (None where it was not understood). `fate` is
    replace, keep or, after `convert`, replaced; `reason` says why it is kept.
    """

    name: str
    names: tuple[str, ...]
    module: nn.Module | None = field(repr=False)
    cls: str
    site: str
    kind: str
    width: int | None = None
    axis: int | None = None
    fate: str = "keep"
    reason: str = ""
    asked: bool = False  # kept because of only=, skip= or a policy
    norm: Norm | None = field(default=None, repr=False)
    became: str = ""  # the new layer, once replaced


def plan(
    model: nn.Module,
    *,
    only: Pattern | None = None,
    skip: Pattern | None = None,
    batchnorm: str = "keep",
    groupnorm: str = "keep",
    widths: dict[str, int] | None = None,
    site_of: Callable[[str], str] | None = None,
) -> list[Entry]:
    """Every norm of `model` and everything that looks like one, in the order of its modules; changes nothing.

    Args:
        only: names, as patterns like ``"blocks.*.norm1"``, or a function of (name, module). None: all.
        skip: likewise those that stay.
        batchnorm: ``keep``, ``replace`` or ``refuse``.
        groupnorm: likewise.
        widths: channels of norms that have no parameters and do not say their width, by name pattern.
        site_of: gives the site of a name; None goes by the usual names, see `dyt.conversion.sites`.

    Raises:
        ValueError: not a model, a pattern that matches no norm, a policy ``refuse`` that applies.
    """
    _check_model(model)
    policies = {"batchnorm": batchnorm, "groupnorm": groupnorm}
    for kind, policy in policies.items():
        if policy not in ("refuse", "keep", "replace"):
            raise ValueError(f"convert: {kind}={policy!r}: choose from refuse, keep, replace")
    names: dict[nn.Module, list[str]] = {}
    _name(model, "", (), names)
    entries = []
    claimed: set[nn.Module] = set()  # parts of what was recognised whole
    for module, called in names.items():
        if module in claimed or not called[0]:
            continue
        entry = _entry(model, module, called, policies, widths or {}, site_of)
        if entry:
            entries.append(entry)
            if entry.norm or isinstance(module, DynamicTanh) or not any(module.children()):
                claimed.update(module.modules())
    _refuse(entries, policies)
    _chosen(entries, only, skip)
    _keep_whole(names, entries)
    return entries


def _name(module: nn.Module, name: str, above: tuple, names: dict[nn.Module, list[str]]) -> None:
    """Every name of every module, in the order of ``named_modules``; a module may hold itself."""
    if module in above:
        return
    names.setdefault(module, []).append(name)
    for child, held in module._modules.items():
        if held is not None:
            _name(held, f"{name}.{child}".lstrip("."), (*above, module), names)


def _entry(model, module, called, policies, widths, site_of) -> Entry | None:
    name, cls = called[0], type(module).__name__
    if "parametrizations" in name.split("."):
        return None  # weight_norm and its like act on weights
    likely = looks_like_norm(name, module)
    if not likely and not _small(module):
        return None
    inside = any(looks_like_norm("", m) for n, m in module.named_modules() if n and "parametrizations" not in n)
    own = any(p is not None for p in module._parameters.values())
    if inside and not own:
        return None  # what is in it speaks for itself
    matrix = next((k for k, p in module.named_parameters() if not _per_channel(p)), None)
    if matrix and any(module.children()):
        if inside or not re.search(r"(?<!no)(layer|rms|group|batch|instance|ada\w*)_?norm", cls, re.I):
            return None
        found: Norm | str = f"holds more than a norm: {matrix}"
    else:
        width = next((w for p, w in widths.items() if matches(p, name, module)), None)
        found = recognise(module, width)
    if isinstance(found, str) and (inside or not likely):
        return None
    kind = found.kind if isinstance(found, Norm) else _kind(module, found)
    entry = Entry(name, tuple(called), module, cls, "other", kind)
    if isinstance(found, str):
        entry.reason = found
    else:
        entry.norm, entry.width, entry.axis = found, found.width, found.axis
        entry.fate = "replace"
    if kind in policies and policies[kind] != "replace":
        entry.fate, entry.reason = "keep", _WHY[kind]
    if entry.fate == "replace" or site_of is None:
        entry.site = site_of(name) if site_of else guessed_site(model, name)
    return entry


def _small(module: nn.Module) -> bool:
    """Few parameters of its own, one per channel: what a norm that has another name looks like."""
    own = [p for p in module._parameters.values() if p is not None]
    return 0 < len(own) <= 3 and all(_per_channel(p) for p in module.parameters())


def _per_channel(p: nn.Parameter) -> bool:
    return nn.parameter.is_lazy(p) or p.numel() == max(p.shape, default=1)


def _kind(module: nn.Module, why: str) -> str:
    if isinstance(module, _BatchNorm):
        return "batchnorm"
    if isinstance(module, nn.GroupNorm):
        return "groupnorm"
    return "dyt" if why == "is element-wise already" else "other"


def matches(pattern: Pattern, name: str, module: nn.Module) -> bool:
    if callable(pattern):
        return bool(pattern(name, module))
    return any(fnmatchcase(name, p) for p in ([pattern] if isinstance(pattern, str) else pattern))


def _keep_whole(names: dict[nn.Module, list[str]], entries: list[Entry]) -> None:
    """Keeps a norm that something else uses without calling it: there a swap would be half a swap, in silence."""
    holders: dict[nn.Parameter, list[nn.Module]] = {}
    why: dict[nn.Module, str] = {}
    for module, called in names.items():
        for p in module._parameters.values():
            if p is not None:
                holders.setdefault(p, []).append(module)
        for key, value in vars(module).items():
            if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
                where = f"{called[0]}.{key}".lstrip(".")
                why[value.__self__] = f"has a method held in {where}; hold the module instead"
        for path in read_by(type(module)):
            of = f"in the forward of {type(module).__name__}"
            if path == "*":
                why |= {child: f"may be read, not called, {of}" for child in _held(module)}
            elif (child := _below(module, path)) is not None:
                why[child] = f"is read, not called, {of}"
    changed = True
    while changed:  # one that is kept keeps those it shares with
        changed = False
        going = {m for e in entries if e.fate == "replace" for m in e.module.modules()}
        for e in entries:
            if e.fate != "replace":
                continue
            other = next((m for p in e.module.parameters() for m in holders[p] if m not in going), None)
            if other is not None:
                e.reason = f"shares its parameters with {names[other][0] or 'the model'}, which stays"
            else:
                e.reason = why.get(e.module, "")
            if e.reason:
                e.fate, changed = "keep", True


def _held(module: nn.Module) -> list[nn.Module]:
    """Its children, and those of its lists and dicts."""
    found = list(module.children())
    return found + [c for m in found if isinstance(m, nn.ModuleList | nn.ModuleDict) for c in _held(m)]


def _below(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        module = module._modules.get(name) if module is not None else None
    return module


@cache
def read_by(kind: type) -> set[str]:
    """Paths of submodules whose weight, bias or eps a class reads: ``norm`` of F.layer_norm(x, ..., self.norm.weight).

    In its forward, and in its own methods that forward calls. ``*`` stands for any of its norms, where a local name is
    read: ``for n in self.norms: x = F.layer_norm(x, ..., n.weight)``. What a function outside the class reads of a norm
    that it is given is not seen.
    """
    if issubclass(kind, nn.TransformerEncoderLayer):
        return set()  # its fast path is turned off, see `dyt.conversion.swap`
    found, done, waiting = set(), set(), ["forward"]
    while waiting:
        name = waiting.pop()
        done.add(name)
        try:
            source = inspect.getsource(getattr(kind, name))
        except (AttributeError, OSError, TypeError):  # a submodule is called, or there is no source
            continue
        found |= set(re.findall(r"\b\w+\.(\w+)\.(?:weight|bias|eps)\b(?!\.(?:dtype|device|shape))", source))
        found |= set(re.findall(r"\bself\.(\w+(?:\.\w+)+)\.(?:weight|bias|eps)\b(?!\.(?:dtype|device|shape))", source))
        local = r"\b(?:layer|rms)_norm\((?:[^()]|\([^()]*\))*?(?<![\w.])(?!self\b)\w+\.(?:weight|bias)\b"
        found |= {"*"} if re.search(local, source) else set()
        called = set(re.findall(r"\bself\.(\w+)\(", source)) - done - set(waiting)
        waiting += [name for name in called if name not in nn.Module.__dict__]
    return found


def _chosen(entries: list[Entry], only: Pattern | None, skip: Pattern | None) -> None:
    for word, pattern in (("only", only), ("skip", skip)):
        if pattern is None:
            continue
        each = [pattern] if isinstance(pattern, str) or callable(pattern) else list(pattern)
        for one in each:
            hit = [e for e in entries if any(matches(one, n, e.module) for n in e.names)]
            if not hit:
                some = ", ".join(e.name for e in entries[:3]) + (", ..." if len(entries) > 3 else "")
                raise ValueError(f"convert: {word}={one!r} matches no norm; the norms are {some or 'none'}")
        for entry in entries:
            hit = any(matches(pattern, n, entry.module) for n in entry.names)
            if entry.fate == "replace" and hit == (word == "skip"):
                entry.fate, entry.reason, entry.asked = "keep", f"{'not in' if word == 'only' else 'in'} {word}=", True


def _refuse(entries: list[Entry], policies: dict[str, str]) -> None:
    for kind, policy in policies.items():
        found = [e for e in entries if e.kind == kind]
        if policy != "refuse" or not found:
            continue
        label = {"batchnorm": "BatchNorm", "groupnorm": "GroupNorm"}[kind]
        others = [e for e in entries if e.fate == "replace"]
        count = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        then = f"{kind}='keep' to leave it and swap the other norms, or " if others else ""
        alone = "" if others else ", and the model has no LayerNorm or RMSNorm"
        raise ValueError(
            f"convert: {found[0].name} is a {label}{count}{alone}; a {label} {_WHY[kind].split(';')[0]}; "
            f"type {then}{kind}='replace' to swap it all the same"
        )


def _check_model(model) -> None:
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise ValueError(f"convert: {model.__name__} is a class; type convert({model.__name__}(...))")
    if not isinstance(model, nn.Module):
        hint = "; convert each model by itself" if isinstance(model, list | tuple | dict | set) else ""
        what = "None" if model is None else f"a {type(model).__name__}"
        raise ValueError(f"convert: needs a torch.nn.Module, not {what}{hint}")
    check_unwrapped(model, "convert")
    if looks_like_norm("", model) and isinstance(recognise(model), Norm):
        raise ValueError("convert: the model is itself a norm; build the new one with dyt.DynamicTanh(dim)")


def check_unwrapped(model: nn.Module, command: str) -> None:
    """What `command` is to change must not be compiled, or wrapped by what knows only the parameters of now.

    Raises:
        ValueError: a part of the model is.
    """
    for name, module in model.named_modules():
        been = _OUTSIDE.get(type(module).__name__)
        if any(c.__name__ == "FSDPModule" for c in type(module).__mro__):
            been = "fully_shard"  # a new parameter of a module without any would be in no group, and differ by process
        elif module._compiled_call_impl is not None:
            been = "compile()"
        if been:
            raise ValueError(f"{command}: {name or 'the model'} went through {been} already; {command} before that")
