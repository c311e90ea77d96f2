"""Swap the norms of somebody else's model: ``model = convert(model, norm="dyt", alpha_init=0.5)``."""

import logging
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from dyt.conversion.plan import Entry, Pattern, matches, plan
from dyt.conversion.recognise import Norm, gives
from dyt.conversion.report import Report
from dyt.conversion.swap import RECORD, as_input, as_weight, exchange, holder, like_of, share_hooks, swap
from dyt.norms import NormFactory, accepts, check_arguments

log = logging.getLogger(__name__)

_TAKEN = {  # options that are not the user's to give: what to type instead
    "kind": "the norm's name is the second argument, e.g. norm='derf'",
    "dim": "each norm's width is read from it; for one that does not say it, type overrides={'its name': {'dim': C}}",
    "dtype": "a new layer has its old one's dtype; type model.to(dtype) before or after",
    "device": "a new layer is where its old one was; type model.to(device) before or after",
    "channels_last": "the axis is read from each norm",
}


def convert(
    model: nn.Module,
    norm: str = "dyt",
    *,
    only: Pattern | None = None,
    skip: Pattern | None = None,
    sites: dict[str, dict] | None = None,
    overrides: dict[str, dict] | None = None,
    keep_affine: bool = False,
    bias: bool | None = None,
    batchnorm: str = "refuse",
    groupnorm: str = "keep",
    verbose: bool | None = None,
    **options,
) -> nn.Module:
    """Swaps every LayerNorm and RMSNorm of `model` in place, over the last axis or axis 1, and returns it.

    First a `plan` is made, from what each module does and not from its name; then all is swapped, or nothing.
    `conversion_report` says what became of each norm, `revert` brings the old ones back.

    Args:
        model: any module: timm's, Hugging Face's, your own. Convert before the optimizer is made, and before
            torch.compile, DistributedDataParallel or fully_shard.
        norm: a name from ``configs/norm/``: dyt, derf, layernorm, rmsnorm, none ...
        only: which norms, as a pattern of names like ``"blocks.*.norm1"``, a list of them, or a function of (name,
            module). None: all.
        skip: likewise those that stay as they are.
        sites: options by site, ``{"attn": {"alpha_init": 0.8}}``; `plan` lists each norm's site.
        overrides: options by name pattern, ``{"blocks.0.*": {"alpha_init": 1.0}}``; they win over `sites`.
        keep_affine: carry trained scales and shifts over. False starts them anew, as the papers do.
        bias: None as in the old norm (an RMSNorm has none); True or False for all.
        batchnorm: ``refuse`` a model that has one, ``keep`` it, or ``replace`` it, per channel on axis 1.
        groupnorm: likewise.
        verbose: print the report. None: when the output is a terminal.
        options: arguments of the norm for every place, e.g. ``alpha_init=0.8``.

    Device, dtype, training mode, requires_grad, tied weights and forward and backward hooks are as before. What a norm
    does beside normalizing stays: an activation inside is kept, and a norm that cannot be parted is left whole.

    Raises:
        ValueError: one line, and the model is as it was: no norm to replace, an unknown site, pattern or option, a
            BatchNorm, a model that is compiled or wrapped already.

    Language models need more than the swap: alpha_init by width and a learnable sqrt(d) scalar after the embedding
    (arXiv 2503.10622, appendix A); DiT needs its zero initialisation removed.
    """
    for name, hint in _TAKEN.items():
        if name in options:
            raise ValueError(f"convert: {name}= cannot be chosen: {hint}")
    if norm == "dyt_unit_gain":
        if keep_affine:
            raise ValueError(
                "convert: norm='dyt_unit_gain' starts the scale at 1 / alpha, and keep_affine=True carries the old one "
                "over; type norm='dyt' with it"
            )
        norm, options = "dyt", {"gamma_init": "inverse_alpha", **options}
    factory = NormFactory(norm, **options)
    sites, overrides = _by_name("sites", sites, "attn"), _by_name("overrides", overrides, "blocks.0.*")
    if keep_affine and any("gamma_init" in o for o in (options, *sites.values(), *overrides.values())):
        raise ValueError("convert: keep_affine=True carries the old scale over; leave gamma_init out")
    widths = {p: o["dim"] for p, o in overrides.items() if "dim" in o}
    found = plan(model, only=only, skip=skip, batchnorm=batchnorm, groupnorm=groupnorm, widths=widths)
    chosen = [e for e in found if e.fate == "replace"]
    if not chosen:
        raise ValueError(f"convert: {_nothing(model, found)}")
    changes = _changes(factory, chosen, sites, overrides, bias)
    new = _build(model, chosen, factory, changes, keep_affine)
    swap(model, new)
    for entry in chosen:
        entry.fate, entry.became = "replaced", repr(new[entry.module]).split("\n")[0]
    kept = vars(model).get(RECORD, [])
    done = Report([replace(e, module=None) for e in found if not (kept and e.kind == "dyt")])
    model.__dict__[RECORD] = [e for e in kept if e.fate == "replaced"] + done
    if sys.stdout.isatty() if verbose is None else verbose:
        print(done)
    else:
        log.log(logging.WARNING if done.left else logging.INFO, "convert: %s", done.summary())
    return model


def _nothing(model: nn.Module, found: list[Entry]) -> str:
    """Why there is nothing to replace."""
    kind = type(model).__name__
    if not found:
        return (
            f"{kind} has no LayerNorm or RMSNorm to replace; one that is a call inside a forward, like F.layer_norm, "
            "cannot be seen from outside"
        )
    dynamic = [e for e in found if e.kind == "dyt"]
    others = [e for e in found if e.kind != "dyt"]
    if dynamic and not others:
        return f"{kind} is converted already, {len(dynamic)} x {dynamic[0].cls}; type dyt.revert(model) first"
    first = {e.kind: e for e in reversed(others) if e.kind in ("batchnorm", "groupnorm")}
    told = [e for e in others if e in first.values()] or others[:1]
    why = "; ".join(f"{e.name}, a{'n' * (e.cls[0] in 'AEIOU')} {e.cls}, {e.reason}" for e in told)
    return f"{kind} has no LayerNorm or RMSNorm to replace; {why}"


def _changes(factory, chosen: list[Entry], sites: dict, overrides: dict, bias: bool | None) -> dict[nn.Module, dict]:
    """The options of each place that differ from those of all."""
    has = {e.site for e in chosen}
    for site, options in sites.items():
        if site not in has:
            count = ", ".join(f"{s} {sum(e.site == s for e in chosen)}" for s in sorted(has))
            raise ValueError(f"convert: sites={site!r}: the model has no such site; it has {count}")
        _check_options(factory, options, f"sites[{site!r}]", _TAKEN)
    for pattern, options in overrides.items():
        if not any(matches(pattern, n, e.module) for e in chosen for n in e.names):
            raise ValueError(f"convert: overrides={pattern!r} matches no norm that is replaced; see dyt.plan(model)")
        _check_options(factory, options, f"overrides[{pattern!r}]", {k: v for k, v in _TAKEN.items() if k != "dim"})
    changes = {}
    for e in chosen:
        here = dict(sites.get(e.site, {}))
        for pattern, options in overrides.items():
            if any(matches(pattern, n, e.module) for n in e.names):
                here.update(options)
        if here.pop("dim", e.width) != e.width:
            raise ValueError(f"convert: {e.name} has width {e.width}; leave dim out of its overrides")
        if bias is not None:
            check_arguments(factory.make, {"bias": bias}, "convert")
        if accepts(factory.make, "bias"):
            here.setdefault("bias", e.norm.bias is not None if bias is None else bias)
        changes[e.module] = here
    return changes


def _by_name(word: str, given: dict[str, dict] | None, example: str) -> dict[str, dict]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(k, str) for k in given):
        raise ValueError(f"convert: {word}={given!r}: needs a dict like {{{example!r}: {{'alpha_init': 0.8}}}}")
    for name, options in given.items():
        if not isinstance(options, dict):
            raise ValueError(f"convert: {word}[{name!r}] must be a dict of options, not {options!r}")
    return dict(given)


def _check_options(factory: NormFactory, options: dict, where: str, taken: dict[str, str]) -> None:
    for name in options:
        if name in taken:
            raise ValueError(f"convert: {where}: {name} cannot be chosen: {taken[name]}")
    check_arguments(factory.make, options, where)


def _build(
    model: nn.Module, chosen: list[Entry], factory: NormFactory, changes: dict[nn.Module, dict], keep_affine: bool
) -> dict[nn.Module, nn.Module]:
    """Old norm -> the layer for its place, on its device, in its dtype, with its hooks."""
    within = {m for e in chosen for m in e.module.modules()}
    rest = {p.dtype for m in model.modules() if m not in within for p in m._parameters.values() if p is not None}
    new: dict[nn.Module, nn.Module] = {}
    made: dict[nn.Parameter, nn.Parameter] = {}  # old scale or shift -> new one: shared before, shared after
    for e in chosen:
        old = e.module
        layer = factory(
            e.width,
            e.site,
            channels_last=e.axis == -1,
            eps=e.norm.eps,
            affine=e.norm.scale is not None,
            **changes[old],
        )
        like = like_of(model, e.name, old)
        if like is not None:
            layer.to(device=like.device, dtype=like.dtype)
            frozen = not any(p.requires_grad for p in old.parameters(recurse=False)) if e.norm.scale else False
            layer.requires_grad_(like.requires_grad if not e.norm.scale else not frozen)
        for ours, theirs, offset in (("weight", e.norm.scale, e.norm.offset), ("bias", e.norm.bias, 0.0)):
            owner = holder(layer, ours)
            if ours == "weight" and keep_affine and theirs and owner is None:
                raise ValueError(
                    f"convert: keep_affine=True, but the new {e.name} has no scale to carry the old one to"
                )
            lost = old._parameters[theirs] if theirs and owner is None and ours == "bias" and keep_affine else None
            asked = changes[old].get("bias", factory.arguments.get("bias")) is False
            if lost is not None and not asked and not lost.is_meta and lost.any():
                raise ValueError(
                    f"convert: keep_affine=True, but the new {e.name} has no shift to carry the old one to (up to "
                    f"{lost.abs().max().item():.3g}); take a norm that has one, as norm='dyt', or keep_affine=False"
                )
            if owner is None or theirs is None:
                continue
            before, now = old._parameters[theirs], owner._parameters[ours]
            if keep_affine:
                with torch.no_grad():
                    now.copy_(before.detach().flatten() + offset)
            now.requires_grad_(before.requires_grad)
            owner._parameters[ours] = made.setdefault(before, now)
        if e.norm.after:
            parts = {"norm": layer} | {n: old._modules[n] for n in e.norm.after}
            layer = nn.Sequential(OrderedDict(parts))
            layer.training, parts["norm"].training = old.training, old.training
        else:
            layer.train(old.training)
        cast = _cast(old, layer, e.norm, rest) if like is not None else None
        share_hooks(old, layer)
        if cast:
            layer.register_forward_hook(cast, prepend=True)
        new[old] = layer
    return new


def _cast(old: nn.Module, new: nn.Module, norm: Norm, rest: set[torch.dtype]) -> Callable | None:
    """What gives the output the dtype that the old norm's has: float32 norms may stand in a bfloat16 model."""
    own = {p.dtype for p in new.parameters()}
    dtypes = {d for d in rest | own if d.is_floating_point} | {torch.float32}
    if dtypes == {torch.float32}:
        return None
    was = {d: out for d in dtypes if (out := gives(old, norm, d))}
    if was == {d: gives(new, norm, d) for d in was}:
        return None
    return as_input if all(out == d for d, out in was.items()) else as_weight if set(was.values()) <= own else None


def replace_norms(model: nn.Module, norm: NormFactory, site_of: Callable[[str], str]) -> int:
    """Replaces every norm of `model` in place by ``norm(dim, site_of(name))``; returns how many. Nothing is kept.

    For models that are built here, with the sites of their own table; `convert` is for other people's.

    Raises:
        ValueError: a norm that cannot be replaced, by its name.
    """
    found = plan(model, site_of=site_of)
    if odd := next((e for e in found if e.fate != "replace"), None):
        raise ValueError(f"{odd.name}, a {odd.cls}, {odd.reason}")
    return replace_planned(model, norm, found)


def replace_planned(model: nn.Module, norm: NormFactory, found: list[Entry]) -> int:
    """As `replace_norms`, with a plan that was looked through already: every norm of it is replaced."""
    exchange(model, _build(model, found, norm, {e.module: {} for e in found}, keep_affine=False))
    return len(found)
