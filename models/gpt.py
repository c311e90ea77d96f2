"""A decoder-only language model: GPT-2 style or LLaMA style by its arguments.

tokens (B, T) -> embedding (+ positions) [x learnable scalar] -> depth x Block -> norm(final) -> logits (B, T, V)
Block:  x + Attention(norm(attn)(x));  x + MLP(norm(mlp)(x))
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.data.spec import Spec
from dyt.norms import NormFactory
from models.methods import apply_method


def rotate(x: Tensor, start: int, base: float = 10000.0) -> Tensor:
    """Rotary position embedding (arXiv 2104.09864) of ``(B, H, T, D)`` at positions `start` to start + T."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = (
        torch.arange(start, start + x.shape[-2], device=x.device, dtype=torch.float32)[:, None] * frequency
    )  # (T, D/2)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Attention(nn.Module):
    """Causal self-attention; `kv_heads` below `heads` shares keys and values between groups of heads."""

    def __init__(self, norm, *, dim, heads, kv_heads, bias, dropout, rope, qk_norm, causal=True):
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.rope, self.dropout, self.causal = rope, dropout, causal
        self.qkv = nn.Linear(dim, (heads + 2 * kv_heads) * self.head_dim, bias=bias)
        self.out = nn.Linear(dim, dim, bias=bias)
        self.q_norm = norm(self.head_dim, "qk") if qk_norm else None
        self.k_norm = norm(self.head_dim, "qk") if qk_norm else None

    def forward(self, x: Tensor, cache: list | None = None) -> Tensor:
        B, T, _ = x.shape
        sizes = [self.heads * self.head_dim, *[self.kv_heads * self.head_dim] * 2]
        q, k, v = self.qkv(x).split(sizes, dim=-1)
        q = q.view(B, T, self.heads, self.head_dim).transpose(1, 2)  # (B, H, T, D)
        k = k.view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        v = v.view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        past = cache[0].shape[-2] if cache else 0
        if self.rope:
            q, k = rotate(q, past), rotate(k, past)
        if cache is not None:
            if cache:
                k, v = torch.cat((cache[0], k), dim=-2), torch.cat((cache[1], v), dim=-2)
            cache[:] = [k, v]
        x = F.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=self.causal and T > 1,  # one new token sees all of the cache; several come with an empty one
            enable_gqa=self.kv_heads != self.heads,
        )
        return self.out(x.transpose(1, 2).flatten(2))  # tensor parallelism leaves a process some of the heads


class MLP(nn.Module):
    """GELU (GPT-2) or SwiGLU (LLaMA, arXiv 2002.05202)."""

    def __init__(self, *, dim, hidden, kind, bias):
        super().__init__()
        self.gated = kind == "swiglu"
        self.up = nn.Linear(dim, hidden * (2 if self.gated else 1), bias=bias)
        self.down = nn.Linear(hidden, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        if self.gated:
            gate, x = x.chunk(2, dim=-1)
            x = F.silu(gate) * x
        else:
            x = F.gelu(x)
        return self.down(x)


class Block(nn.Module):
    def __init__(self, norm, *, dim, mlp_dim, mlp, bias, dropout, **attention):
        super().__init__()
        self.attn_norm = norm(dim, "attn")
        self.attn = Attention(norm, dim=dim, bias=bias, dropout=dropout, **attention)
        self.mlp_norm = norm(dim, "mlp")
        self.mlp = MLP(dim=dim, hidden=mlp_dim, kind=mlp, bias=bias)
        self.drop = nn.Dropout(dropout)
        self.ls1, self.ls2 = nn.Identity(), nn.Identity()  # where models/methods.py scales the branches; timm's names

    def forward(self, x: Tensor, cache: list | None = None) -> Tensor:
        x = x + self.ls1(self.drop(self.attn(self.attn_norm(x), cache)))
        return x + self.ls2(self.drop(self.mlp(self.mlp_norm(x))))


def start_linear(layer: nn.Linear, name: str, depth: int, residual_init: str = "gpt2") -> None:
    """GPT-2's: std 0.02, the two projections back into the residual stream 0.02 / sqrt(2 depth), biases 0.

    With `residual_init` plain these two have std 0.02 as well, as LLaMA's in the paper's framework (fms).
    """
    back = residual_init == "gpt2" and name.endswith(("attn.out", "mlp.down"))
    nn.init.normal_(layer.weight, std=0.02 / math.sqrt(2 * depth) if back else 0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class GPT(nn.Module):
    """See `build` for the arguments. Input ``(B, T)`` token ids, T up to `context`; output logits ``(B, T, V)``."""

    def __init__(
        self,
        norm,
        *,
        vocab_size,
        dim,
        depth,
        heads,
        context,
        positions,
        tied,
        dropout,
        embed_scale,
        embed_std,
        residual_init,
        **block,
    ):
        super().__init__()
        self.context = context
        self.embed = nn.Embedding(vocab_size, dim)
        self.positions = nn.Embedding(context, dim) if positions == "learned" else None
        # Without it DyT's first inputs are far below unit size and training stalls (arXiv 2503.10622, appendix A).
        self.embed_scale = nn.Parameter(torch.full((1,), math.sqrt(dim))) if embed_scale == "learnable" else None
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(norm, dim=dim, heads=heads, dropout=dropout, rope=positions == "rope", **block) for _ in range(depth)
        )
        self.final_norm = norm(dim, "final")
        self.head = nn.Linear(dim, vocab_size, bias=False)
        if tied:
            self.head.weight = self.embed.weight
        self._initialise(1 / math.sqrt(dim) if embed_std == "rsqrt_dim" else embed_std, tied, residual_init)

    def _initialise(self, embed_std: float, tied: bool, residual_init: str) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not (tied and module is self.head):
                start_linear(module, name, len(self.blocks), residual_init)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=embed_std)

    def forward(self, tokens: Tensor, caches: list[list] | None = None) -> Tensor:
        B, T = tokens.shape
        past = caches[0][0].shape[-2] if caches and caches[0] else 0
        if past + T > self.context:
            raise ValueError(f"{past + T} tokens are more than model.context={self.context}")
        x = self.embed(tokens)  # (B, T, C)
        if self.positions is not None:
            x = x + self.positions.weight[past : past + T]
        if self.embed_scale is not None:
            x = x * self.embed_scale
        x = self.drop(x)
        for i, block in enumerate(self.blocks):
            x = block(x, caches[i] if caches is not None else None)
        return self.head(self.final_norm(x))  # (B, T, V)

    @torch.no_grad()
    def generate(self, tokens: Tensor, count: int, *, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
        """`count` tokens sampled after ``(B, T)`` ids, with a key-value cache. Returns ``(B, T + count)``.

        temperature 0 takes the likeliest token. When the context is full, the later half of it is read anew.
        """
        self.eval()
        if tokens.shape[1] == 0:
            raise ValueError("generate needs at least one token to start from")
        caches: list[list] = [[] for _ in self.blocks]
        fresh = tokens[:, -self.context :]
        for _ in range(count):
            logits = self(fresh, caches)[:, -1]  # (B, V)
            if temperature == 0:
                chosen = logits.argmax(dim=-1, keepdim=True)
            else:
                if top_k:
                    least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
                    logits = logits.masked_fill(logits < least, -math.inf)
                logits = (logits - logits.max(dim=-1, keepdim=True).values).double()  # any temperature: none overflows
                chosen = torch.multinomial((logits / temperature).softmax(dim=-1), 1)
            tokens = torch.cat((tokens, chosen), dim=1)
            fresh = chosen
            if caches[0][0].shape[-2] == self.context:
                caches = [[] for _ in self.blocks]
                fresh = tokens[:, -max(1, self.context // 2) :]
        return tokens


def build(
    norm: NormFactory,
    spec: Spec,
    *,
    dim: int,
    depth: int,
    heads: int,
    context: int,
    kv_heads: int | None = None,
    positions: Literal["learned", "rope"] = "learned",
    mlp: Literal["gelu", "swiglu"] = "gelu",
    mlp_dim: int | None = None,
    bias: bool = False,
    tied: bool = True,
    dropout: float = 0.0,
    embed_scale: Literal["none", "learnable"] = "none",
    embed_std: float | Literal["rsqrt_dim"] = 0.02,
    residual_init: Literal["gpt2", "plain"] = "gpt2",
    qk_norm: bool = False,
    method: Literal["fixup", "skipinit", "sigma_reparam"] | None = None,
    vocab_size: int | None = None,
) -> GPT:
    """A GPT for data of `spec`; ``configs/model/base/gpt.yaml`` says what each argument means.

    Raises:
        ValueError: sizes that do not divide or are not positive, or a vocabulary smaller than the data's.
    """
    kv_heads = heads if kv_heads is None else kv_heads
    mlp_dim = 4 * dim if mlp_dim is None else mlp_dim
    sizes = {"dim": dim, "depth": depth, "heads": heads, "context": context, "kv_heads": kv_heads, "mlp_dim": mlp_dim}
    if not 0 <= dropout < 1:
        raise ValueError(f"model.dropout={dropout}: must be at least 0 and below 1")
    if embed_std != "rsqrt_dim" and embed_std < 0:
        raise ValueError(f"model.embed_std={embed_std}: must be at least 0")
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"model.{name}={value}: must be at least 1")
    if dim % heads or (positions == "rope" and (dim // heads) % 2):
        raise ValueError(f"model.dim={dim} must be a multiple of model.heads={heads}, an even one with positions=rope")
    if heads % kv_heads:
        raise ValueError(f"model.heads={heads} is not a multiple of model.kv_heads={kv_heads}")
    if vocab_size is not None and vocab_size < spec.vocab_size:
        raise ValueError(f"model.vocab_size={vocab_size} is smaller than the data's {spec.vocab_size}; leave it null")
    model = GPT(
        norm,
        vocab_size=vocab_size or spec.vocab_size,
        dim=dim,
        depth=depth,
        heads=heads,
        context=context,
        kv_heads=kv_heads,
        positions=positions,
        mlp=mlp,
        mlp_dim=mlp_dim,
        bias=bias,
        tied=tied,
        dropout=dropout,
        embed_scale=embed_scale,
        embed_std=embed_std,
        residual_init=residual_init,
        qk_norm=qk_norm,
    )
    apply_method(model, method, norm)
    return model
