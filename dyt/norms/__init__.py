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
        sites: per site, the arguments that differ there, e.g. ``{"attn": {"alpha_init": 0.8}}``; None inherits.
        arguments: the norm's own arguments, for every site.

    Raises:
        ValueError: an unknown norm or argument, or a value of the wrong type; one line with the choices.
    """

    def __init__(self, kind: str, sites: dict | None = None, **arguments):
        if kind not in NORMS:
            raise ValueError(f"norm kind {kind!r} is unknown; choose from {', '.join(sorted(NORMS))}")
        self.kind = kind
        self.make = NORMS[kind]
        self.arguments = arguments
        self.sites = {s: {k: v for k, v in (a or {}).items() if v is not None} for s, a in (sites or {}).items()}
        self.count: Counter[str] = Counter()
        self.made: list[tuple[str, nn.Module]] = []  # (site, norm), for the probe
        check_arguments(self.make, arguments, "norm")
        for site, changed in self.sites.items():
            check_arguments(self.make, changed, f"norm.sites.{site}")

    def __call__(
        self, dim: int, site: str, *, channels_last: bool = True, eps: float | None = None, affine: bool = True, **here
    ) -> nn.Module:
        """The norm for `dim` channels at `site`.

        `eps` is the model's own epsilon (1e-6 in timm's ViT), used where the config leaves it null; `affine` False
        is for a place whose own norm has no scale and shift (DiT's adaLN); `here` are arguments of this norm alone.
        """
        arguments = {**self.arguments, **self.sites.get(site, {}), **here}
        if "eps" in arguments or accepts(self.make, "eps"):
            arguments["eps"] = eps if arguments.get("eps") is None else arguments["eps"]
        if not affine and accepts(self.make, "affine"):
            arguments["affine"] = False
        self.count[site] += 1
        self.made.append((site, self.make(dim, channels_last=channels_last, **arguments)))
        return self.made[-1][1]

    def check_sites(self, model_name: str) -> None:
        """Fails when the config names a site that the model, now built, did not ask for."""
        for site, changed in self.sites.items():
            if changed and site not in self.count:
                key = next(iter(changed))
                has = ", ".join(self.count) or "none"
                raise ValueError(f"norm.sites.{site}.{key}: {model_name} has no site {site!r}; its sites: {has}")

    def describe(self) -> str:
        """How many norms stand at which site, e.g. ``dyt at attn 4, mlp 4, final 1``."""
        return f"{self.kind} at " + (", ".join(f"{s} {n}" for s, n in self.count.items()) or "no site")
