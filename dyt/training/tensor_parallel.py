"""One GPT over several processes, each with a part of every matrix in its blocks (Megatron-LM, arXiv 1909.08053).

Each process has its share of the heads and of the MLP's channels: the rows of ``attn.qkv`` and ``mlp.up``, the columns
of ``attn.out`` and ``mlp.down``. What runs between them is whole in each. All that a block exchanges are four sums over
the processes: two forward, two backward.

torch's ColwiseParallel is not used: it gives each process one run of rows, and q, k and v (or the gate and what it
gates) lie one after the other in one matrix, of which each process needs its share of each.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F


class _Enter(torch.autograd.Function):
    """Into the part that is split: the same forward; backward the processes' gradients add up."""

    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor):
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


class _Exit(torch.autograd.Function):
    """Out of it: forward the processes' shares add up; the same backward."""

    @staticmethod
    def forward(ctx, x: Tensor, group) -> Tensor:
        x = x.contiguous().clone()
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None


def split(model: nn.Module, rank: int, size: int, group) -> dict[str, tuple[int, list[int]]]:
    """Makes `model`, a GPT, process `rank` of `size`'s part of itself. The new, smaller weights hold no values yet.

    Returns by a weight's name the axis along which it is split and the sizes of what lies there one after the other,
    each of which is split for itself.

    Raises:
        ValueError: the model is no GPT, or its heads or MLP do not divide.
    """
    cuts: dict[str, tuple[int, list[int]]] = {}
    blocks = list(getattr(model, "blocks", []))
    if not blocks or not all(hasattr(b.attn, "kv_heads") and hasattr(b, "mlp") for b in blocks):
        raise ValueError(
            f"trainer.tp={size}: splits a GPT of models/gpt.py, not this model; type trainer.strategy=fsdp"
        )
    for number, block in enumerate(blocks):
        attn, mlp = block.attn, block.mlp
        hidden = mlp.down.in_features
        for what, count in (("heads", attn.heads), ("kv_heads", attn.kv_heads), ("mlp_dim", hidden)):
            if count % size:
                raise ValueError(f"trainer.tp={size}: does not divide model.{what}={count}")
        own, keys = attn.heads * attn.head_dim, attn.kv_heads * attn.head_dim
        at = f"blocks.{number}"
        cuts |= _cut(attn.qkv, f"{at}.attn.qkv", 0, [own, keys, keys], size)
        cuts |= _cut(attn.out, f"{at}.attn.out", 1, [own], size)
        cuts |= _cut(mlp.up, f"{at}.mlp.up", 0, [hidden] * (2 if mlp.gated else 1), size)
        cuts |= _cut(mlp.down, f"{at}.mlp.down", 1, [hidden], size)
        attn.heads, attn.kv_heads = attn.heads // size, attn.kv_heads // size
        for layer in (attn.qkv, mlp.up):
            layer.register_forward_pre_hook(lambda _, inputs: (_Enter.apply(inputs[0], group),))
        for layer in (attn.out, mlp.down):
            layer.forward = _adding(layer, group)
    return cuts


def _cut(layer: nn.Linear, name: str, axis: int, parts: list[int], size: int) -> dict:
    """Shrinks a layer's weights along `axis`; a bias only with the rows that it belongs to."""
    found = {}
    for key, p in list(layer.named_parameters()):
        if axis >= p.ndim:
            continue
        shape = list(p.shape)
        shape[axis] //= size
        layer.register_parameter(key, nn.Parameter(torch.empty(shape, dtype=p.dtype, device=p.device)))
        found[f"{name}.{key}"] = (axis, parts)
    return found


def _adding(layer: nn.Linear, group):
    """The layer's forward over all processes; its bias is added once."""

    def forward(x: Tensor) -> Tensor:
        y = _Exit.apply(F.linear(x, layer.weight), group)
        return y if layer.bias is None else y + layer.bias

    return forward
