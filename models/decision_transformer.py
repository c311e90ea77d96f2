"""Decision Transformer (arXiv 2106.01345): acts so that the return which is asked for comes about.

returns to come (B, T), states (B, T, S), actions (B, T, A), times (B, T) -> three tokens a step (B, 3 T, D), each plus
the embedding of its step -> norm(embed) -> depth x the GPT's Block -> norm(final) -> actions (B, T, A)

The action of a step is read off its state's token, which sees the return to come and all before it, and not the action
itself. As in the official code the embeddings are normalised, and a step's place is its time in the episode.
"""

import torch
from torch import Tensor, nn

from dyt.data.spec import Spec
from dyt.norms import NormFactory
from models.gpt import Block, start_linear


class DecisionTransformer(nn.Module):
    """See `build`. Output ``(B, T, A)``: logits of the choices, or numbers whose tanh is the action."""

    def __init__(self, norm, *, spec: Spec, dim: int, depth: int, heads: int, context: int, dropout: float):
        super().__init__()
        self.context = context
        self.embed_return = nn.Linear(1, dim)
        self.embed_state = nn.Linear(spec.states, dim)
        self.embed_action = nn.Linear(spec.actions, dim)
        self.embed_time = nn.Embedding(spec.steps, dim)
        self.embed_norm = norm(dim, "embed")
        self.drop = nn.Dropout(dropout)
        block = {"dim": dim, "heads": heads, "kv_heads": heads, "mlp": "gelu", "mlp_dim": 4 * dim, "bias": True}
        self.blocks = nn.ModuleList(
            Block(norm, dropout=dropout, rope=False, qk_norm=False, **block) for _ in range(depth)
        )
        self.final_norm = norm(dim, "final")
        self.head = nn.Linear(dim, spec.actions)
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear):
                start_linear(module, name, depth)

    def forward(self, returns: Tensor, states: Tensor, actions: Tensor, times: Tensor) -> Tensor:
        if returns.shape[1] > self.context:
            raise ValueError(f"{returns.shape[1]} steps are more than model.context={self.context}")
        each = (self.embed_return(returns[..., None]), self.embed_state(states), self.embed_action(actions))
        x = torch.stack(each, dim=2) + self.embed_time(times)[:, :, None]  # (B, T, 3, D)
        x = self.drop(self.embed_norm(x.flatten(1, 2)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x)[:, 1::3])  # (B, T, A), at the states


def build(
    norm: NormFactory, spec: Spec, *, dim: int, depth: int, heads: int, context: int, dropout: float = 0.1
) -> DecisionTransformer:
    """A Decision Transformer for data of `spec`; ``configs/model/base/decision_transformer.yaml`` says what each means.

    Raises:
        ValueError: sizes that do not divide, or a dropout beyond its range.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must be at least 0 and below 1")
    if dim % heads:
        raise ValueError(f"model.dim={dim} must be a multiple of model.heads={heads}")
    return DecisionTransformer(norm, spec=spec, dim=dim, depth=depth, heads=heads, context=context, dropout=dropout)
