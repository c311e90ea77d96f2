"""DyT in place of LayerNorm: the layer, a small GPT and a training loop. Needs torch alone; copy what you like.

    python examples/minimal.py                            # DyT, on the source of Python's standard library
    python examples/minimal.py --norm layernorm           # the baseline; --norm none: no norm at all
    python examples/minimal.py --text book.txt --steps 2000

Same weights, batches and steps give the losses of `python train.py model=gpt_nano` (tests/test_examples.py).
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DyT(nn.Module):
    """Dynamic Tanh (arXiv 2503.10622): gamma * tanh(alpha * x) + beta on (..., dim). It measures nothing of x."""

    def __init__(self, dim: int, alpha: float = 0.5):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))  # the slope, learned: one number a layer
        self.weight = nn.Parameter(torch.ones(dim))  # gamma
        self.bias = nn.Parameter(torch.zeros(dim))  # beta

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * torch.tanh(self.alpha * x) + self.bias


NORMS = {
    "layernorm": nn.LayerNorm,
    "dyt": lambda dim: DyT(dim, alpha=1.0),  # alpha at the start: 1.0 in language models up to width 1024, else 0.5
    "none": lambda dim: nn.Identity(),
}


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        x = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(x.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.up = nn.Linear(dim, 4 * dim, bias=False)
        self.down = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class Block(nn.Module):
    def __init__(self, norm: str, dim: int, heads: int):
        super().__init__()
        self.attn_norm, self.attn = NORMS[norm](dim), Attention(dim, heads)
        self.mlp_norm, self.mlp = NORMS[norm](dim), MLP(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.attn_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """Tokens (B, T) -> logits (B, T, vocabulary)."""

    def __init__(self, norm: str, vocab: int = 256, dim: int = 128, depth: int = 4, heads: int = 4, context: int = 64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.positions = nn.Embedding(context, dim)
        # DyT keeps the size of what it gets; LayerNorm does not care. So tokens must come in with variance 1: std
        # 1/sqrt(dim) times a scalar that starts at sqrt(dim) and is learned. With GPT-2's std of 0.02 and no scalar
        # a GPT with DyT learns next to nothing.
        self.embed_scale = nn.Parameter(torch.full((1,), math.sqrt(dim)))
        self.blocks = nn.ModuleList(Block(norm, dim, heads) for _ in range(depth))
        self.final_norm = NORMS[norm](dim)
        self.head = nn.Linear(dim, vocab, bias=False)
        self.head.weight = self.embed.weight  # tied
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=1 / math.sqrt(dim))
            elif isinstance(module, nn.Linear) and module is not self.head:
                back = name.endswith(("attn.out", "mlp.down"))  # into the residual stream: smaller with depth
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(2 * depth) if back else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = (self.embed(tokens) + self.positions.weight[: tokens.shape[1]]) * self.embed_scale  # (B, T, C)
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))


def learning_rate(step: int, steps: int, *, lr: float, min_lr: float, warmup: int) -> float:
    """Of step `step`, counted from 0: linear up over the warm-up, then a cosine down to `min_lr`."""
    if step < warmup:
        return lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    steps: int,
    *,
    lr: float = 1e-3,
    min_lr: float = 1e-4,
    warmup: int = 100,
    weight_decay: float = 0.1,
    clip: float = 1.0,
) -> Iterator[float]:
    """`steps` optimizer steps on (inputs, targets) batches, token ids (B, T) each; yields each step's loss in nats."""
    # Matrices decay. alpha, gamma, beta and the embedding scalar do not: decay would pull DyT's slope towards 0.
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99))
    model.train()
    for step, (inputs, targets) in zip(range(steps), batches, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, lr=lr, min_lr=min_lr, warmup=warmup)
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def windows(text: Tensor, context: int, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """For ever: (inputs, targets), (B, T) each, from random places of `text`, the targets one byte later."""
    while True:
        starts = torch.randint(len(text) - context, (batch,), generator=generator)
        rows = text[starts[:, None] + torch.arange(context + 1)].long()  # (B, T + 1)
        yield rows[:, :-1], rows[:, 1:]


def read(path: str | None, least: int) -> Tensor:
    """The bytes of a file, or of Python's own library: every file is text here, and every byte a token."""
    files = [Path(path)] if path else sorted(Path(os.__file__).parent.glob("*.py"))
    try:
        data = b"".join(file.read_bytes() for file in files)
    except OSError as error:
        sys.exit(f"minimal.py: --text {path}: {error.strerror}")
    if len(data) < least:
        sys.exit(f"minimal.py: --text {path}: {len(data)} bytes, of which a tenth is held out; give at least {least}")
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--norm", choices=NORMS, default="dyt")
    parser.add_argument("--text", help="a text file (default: Python's standard library)")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    context, batch = 64, 12
    text = read(asked.text, least=20 * context)
    cut = len(text) * 9 // 10  # the last tenth is held out
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(asked.seed)
    model = GPT(asked.norm, context=context).to(device)
    draws = torch.Generator().manual_seed(asked.seed)  # its own, so that all norms see the same batches
    batches = ((x.to(device), y.to(device)) for x, y in windows(text[:cut], context, batch, draws))

    print(f"{asked.norm}: {sum(p.numel() for p in model.parameters()):,} parameters, {cut:,} bytes, {device}")
    began, recent = time.perf_counter(), []
    for step, loss in enumerate(train(model, batches, asked.steps), start=1):
        recent.append(loss)
        if step % 100 == 0 or step == asked.steps:
            mean, seconds = sum(recent) / len(recent), time.perf_counter() - began
            print(f"step {step}: loss {mean:.4f} nats a byte, {seconds:.0f} s", flush=True)
            recent.clear()

    model.eval()
    x, y = next(windows(text[cut:], context, 256, draws))
    with torch.no_grad():
        loss = F.cross_entropy(model(x.to(device)).flatten(0, 1), y.to(device).flatten())
    print(f"held-out loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
