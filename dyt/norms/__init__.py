"""Norms by name, called by models at named sites.

A norm is a class with ``__init__(self, dim, *, ..., channels_last=True)`` in any file of this folder, marked with
``@register("name")``; ``configs/norm/<name>.yaml`` gives its arguments. Nothing else needs to know it.
"""

import importlib
import pkgutil
from collections import Counter

from torch import nn

from dyt.config.arguments import accepts, check_arguments
from dyt.norms.registry import NORMS, register

# The package's own files are the registry: a new norm is found because its file is here.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["NORMS", "NormFactory", "register"]


class NormFactory:
    """Builds the norm of every site of a model: ``norm(dim, site)``.

    Args:
        kind: a registered norm, e.g. ``"dyt"``.
        sites: per site, what differs there, e.g. ``{"attn": {"alpha_init": 0.8}}``; None inherits. ``kind`` puts
            another norm there, with its own defaults and those of `arguments` that it has too.
        arguments: the norm's own arguments, for every site.

    Raises:
        ValueError: an unknown norm or argument, or a value of the wrong type; one line with the choices.
    """

    def __init__(self, kind: str, sites: dict | None = None, **arguments):
        self.kind, self.make = kind, named(kind)
        self.arguments = arguments
        self.sites = {s: {k: v for k, v in (a or {}).items() if v is not None} for s, a in (sites or {}).items()}
        self.count: Counter[str] = Counter()
        self.made: list[tuple[str, nn.Module]] = []  # (site, norm), for the probe
        check_arguments(self.make, arguments, "norm")
        for site, changed in self.sites.items():
            there = {key: value for key, value in changed.items() if key != "kind"}
            check_arguments(named(changed.get("kind", kind), f"norm.sites.{site}."), there, f"norm.sites.{site}")

    def __call__(
        self, dim: int, site: str, *, channels_last: bool = True, eps: float | None = None, affine: bool = True, **here
    ) -> nn.Module:
        """The norm for `dim` channels at `site`.

        `eps` is the model's own epsilon (1e-6 in timm's ViT), used where the config leaves it null; `affine` False
        is for a place whose own norm has no scale and shift (DiT's adaLN); `here` are arguments of this norm alone.
        """
        there = {"kind": self.kind, **self.sites.get(site, {})}
        make = NORMS[there.pop("kind")]
        arguments = {**{k: v for k, v in self.arguments.items() if accepts(make, k)}, **there, **here}
        if "eps" in arguments or accepts(make, "eps"):
            arguments["eps"] = eps if arguments.get("eps") is None else arguments["eps"]
        if not affine and accepts(make, "affine"):
            arguments["affine"] = False
        self.count[site] += 1
        self.made.append((site, make(dim, channels_last=channels_last, **arguments)))
        return self.made[-1][1]

    def check_sites(self, model_name: str) -> None:
        """Fails when the config names a site that the model, now built, did not ask for."""
        for site, changed in self.sites.items():
            if changed and site not in self.count:
                key = next(iter(changed))
                has = ", ".join(self.count) or "none"
                raise ValueError(f"norm.sites.{site}.{key}: {model_name} has no site {site!r}; its sites: {has}")

    def chosen(self) -> dict[str, str]:
        """The kinds that the model has, by the key that chose each, e.g. ``{"norm.sites.attn.kind": "layernorm"}``."""
        own = {site: self.sites.get(site, {}).get("kind") for site in self.count}
        return {f"norm.sites.{site}.kind" if kind else "norm": kind or self.kind for site, kind in own.items()}

    def describe(self) -> str:
        """How many norms stand at which site, e.g. ``dyt at attn 4, mlp 4, final 1``."""
        kinds: dict[str, list[str]] = {}
        for site, n in self.count.items():
            kinds.setdefault(self.sites.get(site, {}).get("kind", self.kind), []).append(f"{site} {n}")
        said = [f"{kind} at {', '.join(sites)}" for kind, sites in kinds.items()]
        return "; ".join(said) or f"{self.kind} at no site"


def named(kind: str, where: str = "norm ") -> type:
    """The norm that is registered as `kind`.

    Raises:
        ValueError: there is none.
    """
    if kind not in NORMS:
        raise ValueError(f"{where}kind {kind!r} is unknown; choose from {', '.join(sorted(NORMS))}")
    return NORMS[kind]
