"""The repeated parts of a model, and how they are run: fewer activations kept, or compiled."""

from functools import partial

import torch
from torch import nn


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated parts of a model, in order, and of the models in it: an encoder and a decoder, a teacher.

    None of a model that has no ``blocks``, and no stages or layers as a ResNet.
    """
    blocks = [block for module in model.modules() for block in getattr(module, "blocks", ())]
    if blocks:
        return blocks
    if hasattr(model, "stages"):
        return list(model.stages)
    layers = [getattr(model, f"layer{i}") for i in range(1, 5) if hasattr(model, f"layer{i}")]
    return [block for layer in layers for block in layer]


# Selective checkpointing keeps what is costly to compute again; norms, activations and sums are computed twice.
KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
)


def change_forward(block: nn.Module, checkpointing: str, compiled: bool) -> None:
    """Lets a block keep fewer activations, and compiles it; its name, hooks and weights stay as they are."""
    from torch.utils.checkpoint import checkpoint as recomputed
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    if checkpointing != "none":
        more = {"use_reentrant": False}
        if checkpointing == "selective":
            more["context_fn"] = partial(create_selective_checkpoint_contexts, list(KEPT))
        plain = block.forward

        def forward(*args, **named):
            if torch.is_grad_enabled():
                return recomputed(plain, *args, **more, **named)
            return plain(*args, **named)

        block.forward = forward
    if compiled:
        block.forward = torch.compile(block.forward)
