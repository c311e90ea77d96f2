"""What a model's norms are fed, and the `convert` call that fits: ``print(advise(model, batches))``.

The paper's alpha0 in language models goes by width and site, and its tokens must enter with about unit variance
(arXiv 2503.10622, Tables 10 and 11 and appendix A). Elsewhere alpha0 is 0.5.
"""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from dyt.conversion.calibrate import BATCHES, evaluating, hooked, run_all
from dyt.conversion.embedding import token_embeddings
from dyt.conversion.plan import Entry, plan

# Width -> alpha0 in attention, alpha0 elsewhere: LLaMA, arXiv 2503.10622, Table 11. Between two widths the nearer one.
ALPHA0 = {1024: (1.0, 1.0), 2048: (1.0, 0.5), 4096: (0.8, 0.2), 8192: (0.2, 0.05)}
ELSEWHERE = 0.5
SMALL = 0.3  # standard deviation after the embedding, below which DyT starts slowly
SATURATED = 2.0  # of abs(alpha x), as in arXiv 2604.23434


@dataclass(frozen=True)
class Place:
    """One norm: what it is fed, and the alpha0 for it."""

    name: str
    site: str
    width: int
    std: float  # of its input, over all elements of the batches
    alpha: float
    saturated: float  # share of the input with abs(alpha x) above 2 at the start


@dataclass(frozen=True)
class Advice:
    """`places` in the model's order, `warnings` in words, and `call`, the line to type. Prints as a table."""

    places: list[Place]
    warnings: list[str]
    call: str
    embedding: str | None  # its name, in a language model
    embedding_std: float | None  # of its output

    def __str__(self) -> str:
        width = max(len("norm"), *(len(p.name) for p in self.places))
        lines = [f"{'norm':<{width}}  site    width  input std  alpha0  saturated"]
        for p in self.places:
            lines.append(
                f"{p.name:<{width}}  {p.site:<6}  {p.width:>5}  {p.std:>9.3g}  {p.alpha:>6g}  {p.saturated:>9.0%}"
            )
        return "\n".join([*lines, *(f"! {w}" for w in self.warnings), self.call])


def advise(
    model: nn.Module, batches: Iterable, *, forward: Callable[[nn.Module, object], object] | None = None
) -> Advice:
    """Measures an unconverted `model` on some batches and says how to convert it; changes nothing.

    Args:
        model: with the norms that it was made or trained with.
        batches: as in `dyt.calibrate`.
        forward: as in `dyt.calibrate`.

    Raises:
        ValueError: no batches, batches that the model cannot take, or no norm that `convert` replaces.
    """
    kept = list(itertools.islice(batches, BATCHES))
    if not kept:
        raise ValueError("advise: no batches; give some inputs, e.g. [next(iter(loader))]")
    found = plan(model, batchnorm="keep")
    entries = [e for e in found if e.fate == "replace"]
    batchnorms = [e for e in found if e.kind == "batchnorm"]
    if not entries:
        raise ValueError(f"advise: {type(model).__name__} has no LayerNorm or RMSNorm that convert replaces")
    embeddings = token_embeddings(model)
    language = bool(embeddings)
    alphas = {e.name: _alpha0(e.width, e.site) if language else ELSEWHERE for e in entries}
    seen: dict[str, _Sums] = {e.name: _Sums(alphas[e.name]) for e in entries}
    tokens = {name: _Sums(1.0) for name in embeddings}
    see = {e.module: lambda x, y, s=seen[e.name]: s.add(x) for e in entries}
    see |= {model.get_submodule(name): lambda x, y, s=sums: s.add(y) for name, sums in tokens.items()}
    with evaluating(model), hooked(see):
        run_all(model, kept, forward)
    entries = [e for e in entries if seen[e.name].count]
    if not entries:
        raise ValueError("advise: the batches reach no norm; give some that do")
    places = [Place(e.name, e.site, e.width, seen[e.name].std, alphas[e.name], seen[e.name].saturated) for e in entries]
    stds = {name: sums.std for name, sums in tokens.items() if sums.count}  # of those that ran
    embedding, std = next(iter(stds.items()), (embeddings[0] if language else None, None))
    warnings = [*_of_embeddings(stds), *_of_residuals(model, places), *_of_saturation(places)]
    warnings += _of_batchnorms(batchnorms)
    return Advice(places, warnings, _call(places, keep=bool(batchnorms)), embedding, std)


class _Sums:
    """Streaming mean, spread and saturation of what is added."""

    def __init__(self, alpha: float):
        self.alpha, self.count, self.sum, self.squares, self.large = alpha, 0, 0.0, 0.0, 0

    def add(self, x: Tensor) -> None:
        x = x.detach().double()
        self.count += x.numel()
        self.sum += x.sum().item()
        self.squares += x.square().sum().item()
        self.large += ((self.alpha * x).abs() > SATURATED).sum().item()

    @property
    def std(self) -> float:
        mean = self.sum / self.count
        return math.sqrt(max(0.0, self.squares / self.count - mean * mean))

    @property
    def saturated(self) -> float:
        return self.large / self.count


def _alpha0(width: int, site: str) -> float:
    nearest = min(ALPHA0, key=lambda w: abs(math.log(w / width)))
    return ALPHA0[nearest][0 if site == "attn" else 1]


def _of_embeddings(stds: dict[str, float]) -> list[str]:
    small = {name: std for name, std in stds.items() if std < SMALL}
    if not small:
        return []
    calls = " and ".join(f"dyt.add_embed_scale(model, {name!r})" for name in small)
    return [
        f"tokens leave {next(iter(small))} with standard deviation {max(small.values()):.2g}, where DyT needs about 1; "
        f"before training from scratch type {calls} (x sqrt(d)), and initialise it with std 1 / sqrt(d)"
    ]


def _of_residuals(model: nn.Module, places: list[Place]) -> list[str]:
    """Post-norm layers and branches that start at zero."""
    found = []
    post = [n for n, m in model.named_modules() if getattr(m, "norm_first", None) is False]
    post += [p.name for p in places if p.name.endswith(("output.LayerNorm", "output_layer_norm", "sa_layer_norm"))]
    if post:
        found.append(
            f"{post[0]} is post-norm: its norms stand in the residual stream, where DyT bounds the stream itself; "
            "watch the gradient norm, or take a pre-norm model"
        )
    norms = {p.name for p in places}
    zero = [
        name
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and name not in norms and not m.weight.is_meta and not m.weight.any()
    ]
    if zero:
        found.append(
            f"{zero[0]} starts at zero ({len(zero)} such layers), as in DiT's adaLN; the paper removes zero "
            "initialisation for DyT, e.g. torch.nn.init.normal_(layer.weight, std=0.02)"
        )
    return found


def _of_saturation(places: list[Place]) -> list[str]:
    worst = max(places, key=lambda p: p.saturated)
    if worst.saturated < 0.5:
        return []
    return [
        f"{worst.saturated:.0%} of {worst.name}'s input is saturated at alpha0 {worst.alpha:g}; alpha0 about "
        f"{1 / worst.std:.1g} (1 / std) keeps it in tanh's slope, and dyt.calibrate finds it for a trained model"
    ]


def _of_batchnorms(found: list[Entry]) -> list[str]:
    if not found:
        return []
    stay = f", and {len(found) - 1} more stay as they are" if len(found) > 1 else ", stays as it is"
    return [
        f"{found[0].name}, a {found[0].cls}{stay}: a BatchNorm measures over the batch, and DyT does worse in its "
        "place (arXiv 2503.10622, Table 16)"
    ]


def _call(places: list[Place], keep: bool) -> str:
    """``dyt.convert(model, ...)``: the commonest alpha0 for all, the others by site, or by name within a site.

    `keep` is for a model with BatchNorms, which `convert` refuses unless it is told what to do with them.
    """
    values = [p.alpha for p in places]
    common = max(dict.fromkeys(values), key=values.count)
    sites, names = {}, {}
    for site in dict.fromkeys(p.site for p in places):
        alphas = {p.name: p.alpha for p in places if p.site == site}
        others = {name: {"alpha_init": alpha} for name, alpha in alphas.items() if alpha != common}
        if others and len(set(alphas.values())) == 1:
            sites[site] = next(iter(others.values()))
        else:
            names |= others
    more = f", sites={sites}" if sites else ""
    more += f", overrides={names}" if names else ""
    more += ", batchnorm='keep'" if keep else ""
    return f"dyt.convert(model, norm='dyt', alpha_init={common:g}{more})"
