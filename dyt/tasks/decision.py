"""Acting from recorded episodes (Decision Transformer, arXiv 2106.01345): the action that led to a return.

A trained model is tried out: it plays episodes in the environment, asked for returns from a poor one to a good one.
"""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dyt.config.arguments import check_arguments
from dyt.data.order import derive
from dyt.tasks import Task, wide


class Decision(Task):
    """Batches are (returns, states, actions, times), and which steps are real, (B, K); see dyt/data/episodes.py."""

    best = ("val/loss", min)
    names = ("loss",)
    unread = ("trainer.label_smoothing",)

    def __init__(
        self,
        chooses: bool,
        *,
        rollouts: int = 10,
        levels: int = 5,
        poor: float | None = None,
        good: float | None = None,
    ):
        for name, value, low in (("rollouts", rollouts, 1), ("levels", levels, 2)):
            if value < low:
                raise ValueError(f"model.decision.{name}={value}: must be at least {low}")
        self.chooses, self.rollouts, self.levels, self.poor, self.good = chooses, rollouts, levels, poor, good

    def loss(self, model: nn.Module, inputs: tuple, targets: Tensor) -> Tensor:
        """Cross-entropy of the action that was chosen, or the squared error of its numbers; a window's steps averaged.

        So each window weighs the same, however many steps are real, and pieces of a batch add up.
        """
        return self._errors(model, inputs, targets).mean()

    def measure(self, model: nn.Module, inputs: tuple, targets: Tensor) -> Tensor:
        """The sum of each window's loss, and the count of windows."""
        errors = self._errors(model, inputs, targets)
        return torch.stack([errors.sum(), errors.new_tensor(len(errors))])

    def _errors(self, model: nn.Module, inputs: tuple, real: Tensor) -> Tensor:
        """``(B,)``"""
        made, taken = wide(model(*inputs)), inputs[2]  # (B, K, A) each
        if self.chooses:
            error = F.cross_entropy(made.flatten(0, 1), taken.argmax(-1).flatten(), reduction="none").view_as(real)
        else:
            error = (made.tanh() - taken).square().mean(dim=-1)
        return (error * real).sum(dim=1) / real.sum(dim=1)

    def at_end(self, model: nn.Module, data, split: str, device: torch.device):
        """Mean returns of played episodes, and a picture of them against what was asked for.

        return, return_poor: where the good return was asked for, and the poor one. data_mean, data_best: of the
        training episodes.
        """
        poor, good = np.quantile(data.returns, (0.1, 0.9))
        ends = (poor if self.poor is None else self.poor, good if self.good is None else self.good)
        asked = np.linspace(*ends, self.levels)
        seeds = [derive(split, i) & 0x7FFFFFFF for i in range(self.rollouts)]  # alike for each level
        got = play(model, data, np.repeat(asked, self.rollouts), seeds * self.levels, device)
        got = got.reshape(self.levels, self.rollouts)
        found = {"return": got[-1].mean(), "return_poor": got[0].mean()}
        found |= {"data_mean": data.returns.mean(), "data_best": data.returns.max()}
        return {name: float(value) for name, value in found.items()}, picture(asked, got, data)


@torch.no_grad()
def play(model: nn.Module, data, asked: np.ndarray, seeds: list[int], device: torch.device) -> np.ndarray:
    """``(N,)``: the returns of N episodes, of which episode i starts from ``seeds[i]`` and is asked for ``asked[i]``.

    The model sees the last steps that fit into its window. Of choices one is drawn, as likely as the model has it (as
    the official code does for Atari); numbers are taken as they are. What is drawn is a function of the seed.
    """
    env, K = data.env, data.context
    worlds = [env.make() for _ in seeds]
    seen = np.stack([world.reset(seed=seed)[0] for world, seed in zip(worlds, seeds, strict=True)])
    dice = [np.random.default_rng(seed) for seed in seeds]
    got, going = np.zeros(len(seeds)), np.ones(len(seeds), bool)
    states = torch.zeros(len(seeds), data.steps, env.states)
    actions = torch.zeros(len(seeds), data.steps, env.actions)
    returns, times = torch.zeros(len(seeds), data.steps), torch.arange(data.steps)
    for t in range(data.steps):
        states[:, t] = torch.from_numpy(data.seen(seen))
        returns[:, t] = torch.from_numpy((asked - got) / data.scale)
        rows, window = np.flatnonzero(going), slice(max(0, t + 1 - K), t + 1)
        parts = (returns[rows, window], states[rows, window], actions[rows, window])
        parts += (times[window].expand(len(rows), -1),)
        made = wide(model(*(part.to(device) for part in parts)))[:, -1].cpu()
        if env.choices:
            chance = [dice[i].random() for i in rows]
            chosen = (made.softmax(dim=-1).cumsum(dim=-1).numpy() > np.array(chance)[:, None]).argmax(axis=-1)
        acts = torch.eye(env.choices)[chosen] if env.choices else made.tanh()
        for i, vector in zip(rows, acts.numpy(), strict=True):
            action = env.action(vector)
            actions[i, t] = torch.from_numpy(env.vector(action))
            seen[i], reward, terminated, truncated, _ = worlds[i].step(action)
            got[i] += float(reward)
            going[i] = not (terminated or truncated)
        if not going.any():
            break
    return got


def picture(asked: np.ndarray, got: np.ndarray, data) -> Image.Image:
    """Each played episode's return ``got`` (levels, rollouts) over the return that was asked for (levels,)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = FigureCanvasAgg(figure).figure.subplots()
    axes.plot(asked, asked, color="0.8", label="as asked")
    axes.axhline(data.returns.mean(), color="0.5", linestyle=":", label="mean of the recorded episodes")
    axes.axhline(data.returns.max(), color="0.5", linestyle="--", label="best of them")
    axes.plot(np.repeat(asked, got.shape[1]), got.flatten(), ".", color="#1f77b4", alpha=0.3)
    axes.plot(asked, got.mean(axis=1), "o-", color="#1f77b4", label="mean of the played episodes")
    axes.set(xlabel="return asked for", ylabel="return", title=data.env.name)
    axes.legend(fontsize="small")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return Image.open(stream).convert("RGB")


def build(config: dict, classes: int) -> Decision:
    """The task of a config, its arguments in ``model.decision``.

    Raises:
        ValueError: an argument that does not exist or does not fit.
    """
    arguments = config["model"].get("decision") or {}
    check_arguments(Decision, arguments, "model.decision")
    return Decision(classes > 0, **arguments)
