"""A trained model's norms become DyT or Derf that do nearly the same: ``model = calibrate(model, batches)``.

Norm by norm from front to back: what comes in and what the old norm makes of it are recorded on the batches, while all
norms before it are converted already. The new norm's alpha (and s) are searched, its gamma and beta follow by least
squares, channel by channel.
"""

import itertools
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from dyt.conversion.replace import convert
from dyt.conversion.swap import ORIGINAL, RECORD, converted, exchange, holder, take_back
from dyt.kernels.reference import SQUASH
from dyt.norms.dynamic import DynamicTanh

BATCHES = 16  # that are read, so that an endless loader ends
LEAST, MOST = 1e-3, 30.0  # of alpha times the input's standard deviation, in the search


def calibrate(
    model: nn.Module,
    batches: Iterable,
    norm: str = "dyt",
    *,
    tokens: int = 4096,
    forward: Callable[[nn.Module, object], object] | None = None,
    **options,
) -> nn.Module:
    """Converts a trained model in place, so that it starts near what it was, and returns it.

    Args:
        model: trained, with its LayerNorms or RMSNorms. Layers that were converted before stay as they are.
        batches: what the model takes, at most the first 16: tensors, dicts of keywords (Hugging Face), or pairs of
            inputs and targets as loaders give them, of which the inputs count. Labels are not needed.
        norm: ``dyt`` or ``derf``.
        tokens: samples of a norm's input, drawn at random from the batches; memory is ``2 * tokens * C`` numbers.
        forward: ``forward(model, batch)``, where the model is called in another way.
        options: as for `dyt.convert`.

    The model is run in evaluation mode, once for each norm. Mode and gradients stay as they were.

    Raises:
        ValueError: no batches, batches that the model cannot take, a norm that they do not reach, or activations that
            are not finite. The model is then as it was.
    """
    if norm not in ("dyt", "derf", "dyt_unit_gain"):
        raise ValueError(f"calibrate: norm={norm!r} has no alpha to fit; choose from dyt, derf")
    if tokens < 2:
        raise ValueError(f"calibrate: tokens={tokens}: needs at least 2, e.g. tokens=4096")
    kept = list(itertools.islice(batches, BATCHES))
    if not kept:
        raise ValueError("calibrate: no batches; give some inputs, e.g. [next(iter(loader))]")
    before, record = converted(model), vars(model).get(RECORD)
    convert(model, norm, **options)
    new = converted(model) - before
    try:
        swap = Swap.converted(model, new)
        try:
            swap.calibrate(kept, tokens, forward)
        finally:
            swap.put(swap.pairs)
    except BaseException:
        take_back(model, new)
        vars(model).pop(RECORD)
        if record is not None:
            vars(model)[RECORD] = record
        raise
    return model


class Swap:
    """The norms of `model` beside those that are to stand in their places; at first all old ones are in place.

    Args:
        pairs: name -> (old norm, new one).
    """

    def __init__(self, model: nn.Module, pairs: dict[str, tuple[nn.Module, DynamicTanh]]):
        self.model, self.pairs, self.order = model, pairs, list(pairs)
        exchange(model, {new: old for old, new in pairs.values()})

    @classmethod
    def converted(cls, model: nn.Module, layers: set[nn.Module]) -> "Swap":
        """Of those layers that `dyt.convert` put into a model."""
        pairs = {name: (vars(m)[ORIGINAL][0], m) for name, m in model.named_modules() if m in layers}
        for name, (old, new) in pairs.items():
            if not isinstance(new, DynamicTanh):
                raise ValueError(
                    f"calibrate: {name}, a {type(old).__name__}, does more than a norm; type skip={name!r}"
                )
        return cls(model, pairs)

    @classmethod
    def of(cls, model: nn.Module, like: nn.Module) -> "Swap":
        """Of two models that differ in their norms: those of `like` are to stand in `model`.

        A DyT that both have in the same form keeps the weights of `model`.
        """
        olds = dict(model.named_modules())
        news = {name: new for name, new in like.named_modules() if isinstance(new, DynamicTanh)}
        return cls(model, {n: (olds[n], new) for n, new in news.items() if form(olds[n]) != form(new)})

    def put(self, names: Iterable[str]) -> None:
        """The new norms of `names` are in place."""
        exchange(self.model, dict(self.pairs[name] for name in names))

    def carry_over(self) -> None:
        """Each new norm takes the old one's gamma and beta, and keeps its alpha: the plain way to convert."""
        with torch.no_grad():
            for old, new in self.pairs.values():
                for key in ("weight", "bias"):
                    theirs, ours = holder(old, key), getattr(new, key)
                    if theirs is not None and ours is not None:
                        ours.copy_(theirs._parameters[key])

    def calibrate(self, batches: list, tokens: int = 4096, forward: Callable | None = None) -> None:
        """Fits every new norm and puts it in, front to back.

        Raises:
            ValueError: as `dyt.calibrate`.
        """
        run, seen = partial(run_all, self.model, batches, forward), {}
        see = {old: lambda x, y, name=name: seen.setdefault(name) for name, (old, _) in self.pairs.items()}
        with evaluating(self.model):
            with hooked(see):
                run()
            for name in self.pairs:
                if name not in seen:
                    raise ValueError(f"calibrate: the batches do not reach the norm {name}; type skip={name!r}")
            self.order = list(seen)
            for name in self.order:
                self.fit(name, run, tokens)

    def fit(self, name: str, run: Callable[[], object], tokens: int) -> None:
        """Fits the new norm of `name` to what the old one does there now, and puts it in."""
        old, new = self.pairs[name]
        inputs, outputs = Reservoir(tokens), Reservoir(tokens)  # of equal draws, so rows of both belong together

        def see(x: Tensor, y: Tensor) -> None:
            for kept, t in ((inputs, x), (outputs, y)):
                kept.add((t if new.channels_last else t.movedim(1, -1)).reshape(-1, new.dim))

        with hooked({old: see}, first=True):  # the new norm has the user's hooks too, which are not to count twice
            run()
        x, y = inputs.rows(), outputs.rows()
        if not (x.isfinite().all() and y.isfinite().all()):
            raise ValueError(
                f"calibrate: the norm {name} has inputs or outputs that are not finite; look at the batches"
            )
        fit(new, x, y)
        self.put([name])


def form(norm: nn.Module) -> tuple:
    """What two norms must have in common to take each other's weights."""
    shapes = [(key, value.shape) for key, value in norm.state_dict().items()]
    return (type(norm), getattr(norm, "squash", None), getattr(norm, "learns", None), *shapes)


class Reservoir:
    """A uniform sample of at most `size` of all rows that were added; the same draws each time."""

    def __init__(self, size: int):
        self.size, self.seen, self.kept = size, 0, None
        self.draws = torch.Generator().manual_seed(0)

    def add(self, rows: Tensor) -> None:
        """Takes in ``(n, C)``. By a random number for each row, of which the lowest stay."""
        keys = torch.rand(len(rows), generator=self.draws)
        if len(keys) > self.size:
            best = keys.topk(self.size, largest=False).indices
            keys, rows = keys[best], rows[best.to(rows.device)]
        rows = rows.detach().float().cpu()
        if self.kept is not None:
            keys, rows = torch.cat((self.kept[0], keys)), torch.cat((self.kept[1], rows))
            if len(keys) > self.size:
                best = keys.topk(self.size, largest=False).indices
                keys, rows = keys[best], rows[best]
        self.kept = keys, rows

    def rows(self) -> Tensor:
        """``(at most size, C)``, float32, on the CPU."""
        return self.kept[1]


@torch.no_grad()
def fit(norm: DynamicTanh, x: Tensor, y: Tensor) -> float:
    """Sets alpha, gamma and beta (and Derf's s) of `norm` so that ``norm(x)`` is nearest to y; both are ``(n, C)``.

    alpha is searched over four decades around 1 / std(x), for each channel where it has one for each; for each alpha
    gamma and beta have a closed form. Returns R^2, the share of y's variance that is explained.
    """
    squash, own = SQUASH[norm.squash][1], norm.learns != "absent"
    per_channel = own and norm.slope().numel() > 1
    shift = getattr(norm, "shift", None)
    scale = x.std().clamp_min(1e-12)

    def errors(alpha: Tensor, s: float) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Squared error by channel, with the best gamma and beta (None: the norm has none)."""
        t = squash(alpha * x + s)
        if norm.weight is None:
            return (y - t).square().mean(0), None, None
        at, to = (t.mean(0), y.mean(0)) if norm.bias is not None else (torch.zeros(()), torch.zeros(()))
        gamma = ((t - at) * (y - to)).mean(0) / (t - at).square().mean(0).clamp_min(1e-20)
        beta = to - gamma * at
        return (y - gamma * t - beta).square().mean(0), gamma, beta if norm.bias is not None else None

    def search(alpha: Tensor, s: float, low: float, high: float) -> Tensor:
        """The best alpha between `low` and `high` times `alpha`, by a grid and its refinements."""
        for _ in range(3):
            factors = torch.logspace(low, high, 17)
            found = torch.stack([errors(alpha * f, s)[0] for f in factors])  # (17, C)
            best = (found if per_channel else found.mean(1, keepdim=True)).argmin(0)
            alpha = alpha * factors[best]
            low, high = (low - high) / 16, (high - low) / 16
        return alpha

    alpha, s = torch.ones(norm.dim if per_channel else 1) / scale, 0.0
    if own:
        alpha = search(alpha, s, *torch.tensor([LEAST, MOST]).log10().tolist())
    else:
        alpha = torch.ones(1)
    if shift is not None:
        width = 1.0
        for _ in range(4):  # alpha and s in turn
            steps = [s + width * step for step in torch.linspace(-1, 1, 9).tolist()]
            s = min(steps, key=lambda step: errors(alpha, step)[0].mean().item())
            width /= 3
            if own:
                alpha = search(alpha, s, -0.3, 0.3)
        shift.fill_(s)
    error, gamma, beta = errors(alpha, s)
    if own:
        norm.set_slope(alpha)
    for ours, found in ((norm.weight, gamma), (norm.bias, beta)):
        if ours is not None:
            ours.copy_(found)
    return (1 - error.sum() / (y - y.mean(0)).square().mean(0).sum().clamp_min(1e-20)).item()


def call(model: nn.Module, batch) -> object:
    """The model's output for a batch: a tensor, a dict of keywords, or the first of a pair."""
    if isinstance(batch, list | tuple) and batch:
        batch = batch[0]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    if isinstance(batch, Tensor):
        return model(batch.to(device))
    if hasattr(batch, "items"):
        return model(**{k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()})
    raise TypeError(f"a batch of type {type(batch).__name__} is neither a tensor nor a dict")


@torch.no_grad()
def run_all(model: nn.Module, batches: list, forward: Callable | None) -> None:
    """Runs the model over all batches.

    Raises:
        ValueError: it cannot take one; the line has the model's own words.
    """
    for number, batch in enumerate(batches):
        try:
            (forward or call)(model, batch)
        except Exception as error:
            said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise ValueError(
                f"{type(model).__name__} cannot take batch {number} ({said}); give what model(batch) "
                "takes, or forward=lambda model, batch: ..."
            ) from error


@contextmanager
def evaluating(model: nn.Module):
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def hooked(see: dict[nn.Module, Callable[[Tensor, Tensor], object]], first: bool = False):
    """A context in which ``see[module](input, output)`` is called whenever a module runs, after its other hooks.

    `first`: before them, so that the output is the module's own.
    """
    handles = [
        module.register_forward_hook(
            lambda _, args, kwargs, out, seen=seen: seen(_first(args, kwargs), out), prepend=first, with_kwargs=True
        )
        for module, seen in see.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(args: tuple, kwargs: dict) -> Tensor:
    return args[0] if args else next(iter(kwargs.values()))
