"""A bidirectional Transformer over bases, as DNABERT's (arXiv 2006.15006) but base by base: models/hyena.py's net with
attention, all places of which see each other, and rotary positions. With ``causal`` it predicts the next base instead.
"""

from torch import nn

from dyt.data.spec import Spec
from dyt.norms import NormFactory
from models.gpt import Attention
from models.hyena import network


def build(
    norm: NormFactory,
    spec: Spec,
    *,
    dim: int,
    depth: int,
    heads: int,
    context: int,
    causal: bool = False,
    dropout: float = 0.0,
    embed_std: float = 0.02,
) -> nn.Module:
    """A Transformer for data of `spec`; ``configs/model/base/dnabert.yaml`` says what each argument means.

    Raises:
        ValueError: sizes that do not divide or are not positive.
    """
    if heads < 1 or dim % (2 * heads):
        raise ValueError(f"model.dim={dim} must be a multiple of twice model.heads={heads}")
    about = {"dim": dim, "heads": heads, "kv_heads": heads, "bias": True, "dropout": 0.0, "rope": True}
    sizes = {"dim": dim, "depth": depth, "context": context}

    def attention() -> Attention:
        return Attention(norm, **about, qk_norm=False, causal=causal)

    return network(norm, spec, attention, embed_std=embed_std, dropout=dropout, **sizes)
