"""What happens inside, layer by layer: each norm's input and alpha, how S-shaped it acts, and gradients by block.

Measured on one fixed validation batch, evenly chosen, in evaluation mode; training does not notice. Keys of a row are
``probe/<module>/<statistic>``:

    in_mean, in_std      of the norm's input, over all elements
    alpha                DyT's and Derf's, mean over channels
    saturated            share of the input with abs(alpha x + s) > 2
    tanh_r2, line_r2     LayerNorm and RMSNorm: how much of the output (before gamma and beta) the best a tanh(b x), and
                         the best line a x, explain from the input alone
    grad_norm            of a block's parameters (``blocks.3``), and of the norm's own
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.data.order import some
from dyt.norms.dynamic import DynamicTanh
from dyt.tasks import Place
from dyt.training.average import is_spread
from dyt.training.sharding import whole

SAMPLES = 32  # of the validation set
POINTS = 20_000  # of a norm's input, for the fits


def alphas(model: nn.Module) -> dict[str, float]:
    """Each layer's learned alpha (mean over channels) as ``alpha/<module>``; needs no forward pass.

    Where the model is sharded, every process must call it.
    """
    layers = ((n, m) for n, m in model.named_modules() if isinstance(m, DynamicTanh))
    found = {name: _slope(layer) for name, layer in layers if layer.learns not in ("fixed", "absent")}
    return {f"alpha/{name}": slope.detach().float().mean().item() for name, slope in found.items()}


def _slope(layer: DynamicTanh) -> Tensor:
    if not any(map(is_spread, layer.parameters())):
        return layer.slope()
    from torch.distributed.tensor.experimental import implicit_replication

    with implicit_replication():  # of alpha0, a buffer that stands beside a sharded parameter
        return whole(layer.slope())


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Of those parameters that have a gradient."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


class Probe:
    """Measures `model`, whose norms are `sites`, on a few validation samples of `data`.

    They are evenly chosen, since pictures, recordings and labelled sequences may stand sorted by class. Of a text and
    of episodes they are the first.
    """

    def __init__(self, model: nn.Module, sites: list[tuple[str, nn.Module]], task, data, world):
        names = {module: name for name, module in model.named_modules()}
        self.norms = {names[norm]: norm for _, norm in sites if norm in names}
        self.model, self.task = model, task
        batch = some(data, "val", SAMPLES)
        self.inputs, self.targets = task.prepare(*world.moved(batch), Place(("val",), 0))

    def row(self, autocast, norm=gradient_norm) -> dict[str, float]:
        """One row. Gradients of the model are used up: call it between optimizer steps, when they are None.

        `norm` of a sharded model is its layout's; all processes then call this, and each has the row.
        """
        training = self.model.training
        row, loss = self.layers(autocast)
        loss.backward()
        blocks: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                owner = name.rpartition(".")[0]
                held = next(
                    (n for n in self.norms if f"{owner}.".startswith(f"{n}.")), ""
                )  # LayerNorm in one for axis 1
                for layer in (_block(name), held):
                    if layer:
                        blocks.setdefault(layer, []).append(parameter)
        for layer, parameters in blocks.items():
            row[f"probe/{layer}/grad_norm"] = norm(parameters).item()
        self.model.zero_grad(set_to_none=True)
        self.model.train(training)
        return row

    def layers(self, autocast) -> tuple[dict[str, float], Tensor]:
        """The norms' part of a row, each at its first call, and the loss; the model is left in evaluation mode."""
        row: dict[str, float] = {}
        seen: set[str] = set()

        def see(name, norm, x):
            if name not in seen:  # DINO's student sees large views first, then small ones
                row.update(_statistics(name, norm, x))
            seen.add(name)

        self.model.eval()
        with self.watched(see), autocast:
            loss, *_, count = self.task.measure(self.model, self.inputs, self.targets)
        return row, loss / count

    def watched(self, see):
        """A context in which ``see(name, norm, input)`` is called for each norm that runs."""
        return _Hooks(self.norms, see)

    @torch.no_grad()
    def inputs_and_outputs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Per LayerNorm or RMSNorm its input and its output before gamma and beta, ``(B, ..., C)`` each."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        self.model.eval()

        def see(name, norm, x):
            if (y := plain(norm, x)) is not None:
                found[name] = (x, y)

        with self.watched(see):
            self.task.measure(self.model, self.inputs, self.targets)
        return found


class _Hooks:
    def __init__(self, norms, see):
        self.norms, self.see = norms, see

    def __enter__(self):
        self.handles = [
            norm.register_forward_hook(lambda _, args, __, name=name, norm=norm: self.see(name, norm, args[0].detach()))
            for name, norm in self.norms.items()
        ]

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


def _block(name: str) -> str:
    """``blocks.3`` of ``blocks.3.attn.qkv.weight``; the empty string outside blocks."""
    parts = name.split(".")
    for i in range(len(parts) - 1):
        if parts[i] in ("blocks", "stages", "layers") and parts[i + 1].isdigit():
            return ".".join(parts[: i + 2])
    return ""


def plain(norm: nn.Module, x: Tensor) -> Tensor | None:
    """What a LayerNorm or RMSNorm makes of x before gamma and beta; None for any other norm."""
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
    if isinstance(norm, nn.RMSNorm):
        return F.rms_norm(x, norm.normalized_shape, eps=norm.eps)
    return None


@torch.no_grad()
def _statistics(name: str, norm: nn.Module, x: Tensor) -> dict[str, float]:
    x = x.float()
    found = {"in_mean": x.mean().item(), "in_std": x.std().item()}
    alpha = norm.slope() if isinstance(norm, DynamicTanh) else None
    if alpha is not None:
        found["alpha"] = alpha.mean().item()
        place = alpha if norm.channels_last or alpha.numel() == 1 else alpha.view(-1, *[1] * (x.ndim - 2))
        shift = getattr(norm, "shift", None)
        found["saturated"] = ((place * x + (0 if shift is None else shift)).abs() > 2).float().mean().item()
    if (y := plain(norm, x)) is not None:
        found["tanh_r2"], _, _ = best_tanh(x, y)
        found["line_r2"] = best_line(x, y)
    return {f"probe/{name}/{key}": value for key, value in found.items()}


def _points(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    x, y = x.flatten().double(), y.flatten().double()
    every = max(1, len(x) // POINTS)
    return x[::every], y[::every]


def best_line(x: Tensor, y: Tensor) -> float:
    """R^2 (about zero) of y by a x, any shape, over at most 20,000 elements."""
    x, y = _points(x, y)
    a = (x @ y) / (x @ x).clamp_min(1e-30)
    return (1 - ((y - a * x) ** 2).sum() / (y @ y).clamp_min(1e-30)).item()


def best_tanh(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """(R^2, a, b) of the best y = a tanh(b x): least squares for a, a grid and its refinement for b."""
    x, y = _points(x, y)
    scale = x.std().clamp_min(1e-30)
    low, high, best = -3.0, 1.5, (-float("inf"), 0.0, 0.0)  # log10 of b std(x)
    for _ in range(3):
        for power in torch.linspace(low, high, 31, dtype=torch.float64):
            b = 10**power / scale
            t = torch.tanh(b * x)
            a = (t @ y) / (t @ t).clamp_min(1e-30)
            r2 = (1 - ((y - a * t) ** 2).sum() / (y @ y).clamp_min(1e-30)).item()
            if r2 > best[0]:
                best = (r2, a.item(), b.item())
        centre, width = torch.log10(torch.tensor(best[2]) * scale).item(), (high - low) / 15
        low, high = centre - width / 2, centre + width / 2
    return best
