"""Recorded episodes as windows of steps: states, actions and the return that was still to come.

A window that begins near an episode's end is short, and is filled up with zeros behind. What comes later is not seen by
causal attention, so filling changes nothing but for norms that measure over tokens.
"""

import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from dyt.data.cache import kept
from dyt.data.environments import Environment, record
from dyt.data.order import Order, Steps, derive, loader
from dyt.data.sources import cache_dir, locate
from dyt.data.spec import Spec

NAMES = ("observations", "actions", "rewards")  # of an .npz file's arrays, D4RL's
ENDS = ("terminals", "timeouts", "terminations", "truncations")  # each marks an episode's last step


class EpisodeData:
    """A batch is ``(returns (B, K), states (B, K, S), actions (B, K, A), times (B, K))`` and which steps are real.

    States are normalised by the training data's mean and deviation, returns to come divided by the largest of them.

    Args:
        data: the config's.
        context: K, the steps of a window.

    Raises:
        ValueError, OSError: no environment, no episodes, or ones that are too short for a window or do not fit.
    """

    unit = "tokens"

    def __init__(self, data: dict, context: int):
        source = locate(data)
        self.data, self.context, self.env = data, context, Environment(data["env"])
        found = _read(data, self.env) if data["path"] else _recorded(data, self.env, source.sha256)
        self.states, self.actions, self.rewards = (found[name] for name in NAMES)
        last = np.flatnonzero(found["ends"])
        first = np.concatenate(([0], last[:-1] + 1))
        lengths = last + 1 - first
        if lengths.max() < context:
            raise ValueError(f"model.context={context}: the longest episode of data={data['name']} has {lengths.max()} "
                             f"steps; type model.context={lengths.max()} or less")  # fmt: skip
        self.episode_returns = np.add.reduceat(self.rewards, first)
        self.ends = np.repeat(last + 1, lengths)  # (N,): where each step's episode ends
        self.times = np.arange(len(self.ends)) - np.repeat(first, lengths)
        total = np.cumsum(self.rewards)
        self.to_come = np.repeat(total[last], lengths) - total + self.rewards  # (N,), the step's own reward included
        held = self._held_out(len(first))
        starts = {"train": np.flatnonzero(~np.repeat(held, lengths)), "val": np.flatnonzero(np.repeat(held, lengths))}
        self.train = starts["train"]
        self.in_order = starts["val"][self.times[starts["val"]] % context == 0]
        self.mean, self.std = self.states[self.train].mean(0), self.states[self.train].std(0) + 1e-6
        self.scale = max(float(np.abs(self.to_come[self.train]).max()), 1e-6)
        self.returns = np.sort(self.episode_returns[~held])  # of the training episodes
        self.steps = max(self.env.steps, int(lengths.max()))  # the longest episode that a rollout may be
        sizes = {split: 3 * len(which) for split, which in starts.items()}
        self.samples, self.unit_per_sample = len(self.train), 3 * context
        self.spec = Spec(
            "episode", source.sha256, sizes, classes=self.env.choices,
            states=self.env.states, actions=self.env.actions, steps=self.steps,
        )  # fmt: skip

    def _held_out(self, episodes: int) -> np.ndarray:
        """``(episodes,)``: whether it is of the validation split."""
        share = self.data["val_fraction"]
        count = round(episodes * share)
        if not 0 < count < episodes:
            raise ValueError(f"data.val_fraction={share}: of {episodes} episodes it leaves one split empty")
        order = np.random.default_rng(derive("held out") & 0xFFFFFFFF).permutation(episodes)
        return np.isin(np.arange(episodes), order[:count])

    def windows(self, at: np.ndarray) -> tuple[tuple[Tensor, ...], Tensor]:
        """The batch of the windows that begin at the rows `at`."""
        rows = at[:, None] + np.arange(self.context)  # (B, K)
        real = rows < self.ends[at][:, None]
        rows = np.where(real, rows, 0)
        states = self.seen(self.states[rows]) * real[..., None]
        parts = (self.to_come[rows] / self.scale * real, states, self.actions[rows] * real[..., None])
        floats = tuple(torch.from_numpy(part.astype(np.float32)) for part in parts)
        return (*floats, torch.from_numpy(self.times[rows] * real)), torch.from_numpy(real)

    def seen(self, states: np.ndarray) -> np.ndarray:
        """States as the model gets them."""
        return (states - self.mean) / self.std

    def __getitems__(self, keys: list[tuple[int, int]]):
        return self.windows(self.train[[index for _, index in keys]])

    def train_batches(self, order: Order, start: int, stop: int) -> DataLoader:
        """A window from each step of the training episodes, once an epoch; for the steps from `start` to `stop`."""
        return loader(self, Steps(order, start, stop), self.data)

    def eval_batches(self, split: str, rank: int = 0, world: int = 1, limit: int | None = None) -> Iterator[tuple]:
        """Each step of the held-out episodes once, in windows that do not overlap."""
        size = self.data["eval_batch_size"]
        for i in itertools.islice(range(0, len(self.in_order), size), rank, limit, world):
            yield self.windows(self.in_order[i : i + size])


def _recorded(data: dict, env: Environment, sha256: str) -> dict[str, np.ndarray]:
    """Episodes that are recorded once and kept in the data cache."""

    def make(folder: Path) -> dict:
        np.savez_compressed(folder / "episodes.npz", **record(env, data["episodes"]))
        return {}

    folder, _ = kept(cache_dir(data) / "episodes", (sha256,), make)
    with np.load(folder / "episodes.npz") as arrays:
        return dict(arrays)


def _read(data: dict, env: Environment) -> dict[str, np.ndarray]:
    """The episodes of an .npz file with D4RL's names: observations, actions, rewards, and terminals or timeouts."""
    where = f"data.path={data['path']}"
    try:
        with np.load(Path(data["path"]).expanduser(), allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in (*NAMES, *ENDS) if name in arrays}
    except (ValueError, OSError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"{where}: is no .npz file of episodes ({' '.join(str(error).split())[:80]})") from error
    ends = [found[name].astype(bool) for name in ENDS if name in found]
    if lacking := [name for name in NAMES if name not in found] or ([] if ends else [" or ".join(ENDS[:2])]):
        raise ValueError(f"{where}: has no array {lacking[0]}; it needs {', '.join(NAMES)}, and {' or '.join(ENDS)}")
    steps = len(found["rewards"])
    taken = env.choices and found["actions"].ndim == 1
    shapes = {"observations": (steps, env.states), "actions": (steps,) if taken else (steps, env.actions)}
    for name, shape in (shapes | {"rewards": (steps,)}).items():
        if found[name].shape != shape:
            raise ValueError(f"{where}: {name} are {found[name].shape}; data.env={env.name} needs {shape}")
    if any(end.shape != (steps,) for end in ends) or not np.logical_or.reduce(ends).any():
        raise ValueError(f"{where}: no whole episode, or not one mark of an end for each of {steps} rewards")
    over = np.logical_or.reduce(ends)
    whole = np.flatnonzero(over)[-1] + 1  # what comes after the last end is an episode that was cut off
    found = {name: found[name][:whole] for name in NAMES}
    if strange := [name for name, part in found.items() if part.dtype.kind not in "biuf"]:
        raise ValueError(f"{where}: {strange[0]} are no numbers")
    if not all(np.isfinite(part).all() for part in found.values()):
        raise ValueError(f"{where}: holds numbers that are not finite")
    if env.choices:
        of = np.arange(env.first, env.first + env.choices) if taken else [0, 1]
        if not np.isin(found["actions"], of).all() or not (taken or (found["actions"].sum(axis=1) == 1).all()):
            raise ValueError(
                f"{where}: actions are no choices of data.env={env.name}, which are whole numbers from {env.first} to "
                f"{env.first + env.choices - 1}, or a 1 among {env.choices} zeros"
            )
    if not taken:
        vectors = found["actions"] if env.choices else env.vector(found["actions"])
    else:
        vectors = np.stack([env.vector(action) for action in found["actions"]])
    kinds = {"observations": found["observations"].astype(np.float32), "actions": vectors.astype(np.float32)}
    return kinds | {"rewards": found["rewards"].astype(np.float64), "ends": over[:whole]}
