"""The learnable scalar after a language model's token embedding: ``add_embed_scale(model)``."""

import copyreg
import math
import re
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dyt.conversion.plan import check_unwrapped


def token_embeddings(model: nn.Module) -> list[str]:
    """The token embedding's name: the one with the most rows, of those of neither positions nor classes.

    Several where modules share its weight, such as an encoder's and a decoder's; not all of them need run.
    """
    others, above = re.compile("pos|wpe|type|label|class|^y_"), re.compile(r"(^|\.)(y_|label)")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Embedding) and name}
    found = {
        name: m
        for name, m in layers.items()
        if not others.search(name.rpartition(".")[2]) and not above.search(name.rpartition(".")[0])
    }
    if not found:
        return []
    largest = found[max(found, key=lambda name: (found[name].num_embeddings, name))]
    return [name for name, m in layers.items() if m is largest or m.weight is largest.weight]


class EmbedScale(nn.Module):
    """Multiplies by one learnable number, ``scale``, shape (1,), sqrt(d) at the start; any shape in, the same out."""

    def __init__(self, dim: int, device=None, dtype=None):
        super().__init__()
        self.dim = dim
        self.scale = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Puts the scalar back to sqrt(d), in place; what it needs after ``to_empty``."""
        self.scale.fill_(math.sqrt(self.dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def add_embed_scale(model: nn.Module, embedding: str | None = None) -> nn.Module:
    """Puts a learnable scalar, sqrt(d) at the start, after the token embedding, and returns the model.

    The paper's language models need it: without it DyT's first inputs are far below unit size and training stalls
    (arXiv 2503.10622, appendix A). The scalar is ``<embedding>.embed_scale.scale``, part of the state dict
    (``dyt_embed_scale`` where the embedding has an ``embed_scale`` of its own); it acts on the embedding's output,
    before positions are added. Weights tied to the output layer stay tied, and unscaled. Call it before the optimizer
    is made and before torch.compile, DistributedDataParallel or fully_shard, and again on a new model before its state
    dict is loaded.

    Args:
        embedding: the module's name, e.g. ``transformer.wte``; None: the `torch.nn.Embedding` with
            the most rows, positions aside.

    Raises:
        ValueError: there is no such embedding, several modules share its weight and none is named, it has the scalar
            already, or the model is compiled or wrapped already.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"add_embed_scale: needs a torch.nn.Module, not {model!r}")
    check_unwrapped(model, "add_embed_scale")
    names = token_embeddings(model) if embedding is None else [embedding]
    if len(names) > 1:
        raise ValueError(
            f"add_embed_scale: {' and '.join(names)} share one weight; name each that runs, a call for each "
            "(dyt.advise names them)"
        )
    name = names[0] if names else None
    layer = dict(model.named_modules()).get(name) if name else None
    if not isinstance(layer, nn.Embedding):
        has = [n for n, m in model.named_modules() if isinstance(m, nn.Embedding)]
        raise ValueError(
            f"add_embed_scale: {name or type(model).__name__} is no torch.nn.Embedding; name one of: "
            f"{', '.join(has) or 'none here'}"
        )
    if any(isinstance(child, EmbedScale) for child in layer.children()):
        raise ValueError(f"add_embed_scale: {name} is followed by a scale already")
    free = "dyt_embed_scale" if hasattr(layer, "embed_scale") else "embed_scale"  # BART's has one, a number
    layer.add_module(free, EmbedScale(layer.embedding_dim, layer.weight.device, layer.weight.dtype))
    layer.register_forward_hook(_times)
    _mark(layer)
    return model


def _times(layer: nn.Module, args: tuple, out: Tensor) -> Tensor:
    return next(child for child in layer.children() if isinstance(child, EmbedScale))(out)


class Scaled:
    """Marks an embedding that is scaled by its class: torch.compile guards a module's class, and not its hooks.

    Without the mark, what was compiled before for the same class without a scalar would run again, in silence.
    """

    def __reduce_ex__(self, protocol):
        kind, made = type(self), super().__reduce_ex__(protocol)
        if kind.__bases__[0] is not Scaled or made[0] is not copyreg.__newobj__:
            return made
        return (_blank, kind.__bases__[1:], *made[2:])  # a pickle finds a class by its name, and this one has none


@cache
def _scaled(kind: type) -> type:
    return type(f"Scaled{kind.__name__}", (Scaled, kind), {"__module__": __name__})


def _blank(kind: type) -> nn.Module:
    return object.__new__(_scaled(kind))


def _mark(layer: nn.Module) -> None:
    kind = type(layer)
    if parametrize.is_parametrized(layer):  # its class is its own, and its base comes back with the plain weight
        layer.__class__ = type(kind.__name__, (_scaled(kind.__bases__[0]),), dict(vars(kind)))
    else:
        layer.__class__ = _scaled(kind)
