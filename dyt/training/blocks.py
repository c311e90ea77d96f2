"""The repeated parts of a model, and how they are run: fewer activations kept, or compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dyt.norms.dynamic import DynamicTanh


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
    from torch.utils.checkpoint import create_selective_checkpoint_contexts, noop_context_fn

    if checkpointing != "none":
        more = {"use_reentrant": False}
        if checkpointing == "selective":
            more["context_fn"] = partial(create_selective_checkpoint_contexts, list(KEPT))
        if state := state_of(block):
            more["context_fn"] = partial(_from_one_state, block, state, more.get("context_fn", noop_context_fn))
            recomputed = torch.compiler.disable(recomputed)  # torch compiles no context that is not of its own kind
        plain = block.forward

        def forward(*args, **named):
            if torch.is_grad_enabled():
                return recomputed(plain, *args, **more, **named)
            return plain(*args, **named)

        block.forward = forward
    if compiled:
        block.forward = torch.compile(block.forward)


def state_of(block: nn.Module) -> list[str]:
    """Names of buffers that a forward pass in training may move: BatchNorm's statistics, a spectral norm's vectors.

    They are in every checkpoint, so a table that is in none does not move. DyT's hold an alpha that is not learned.
    """
    fixed = {name for name, _ in block.named_parameters(remove_duplicate=False)}
    names = [name for name in block.state_dict() if name not in fixed]
    return [name for name in names if not isinstance(block.get_submodule(name.rpartition(".")[0]), DynamicTanh)]


def _from_one_state(block: nn.Module, names: list[str], contexts: Callable) -> tuple:
    """Contexts of a forward pass and of the second one, in which the buffers of these names start as in the first.

    What the second makes of them is not kept: statistics would move twice, and gradients come from other values.
    """
    forward, again = contexts()
    return forward, _starting_at([block.get_buffer(name).clone() for name in names], block, names, again)


@contextmanager
def _starting_at(before: list[Tensor], block: nn.Module, names: list[str], inner) -> Iterator[None]:
    buffers = [block.get_buffer(name) for name in names]
    after = [x.clone() for x in buffers]
    with torch.no_grad():
        torch._foreach_copy_(buffers, before)
    try:
        with inner:
            yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(buffers, after)
