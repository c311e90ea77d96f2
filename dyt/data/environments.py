"""Environments of gymnasium, scripted policies for three of them, and episodes recorded with those.

An episode is of a scripted policy of which a share of the actions is random. The shares go evenly from none to all, so
that returns do too, from the scripted policy's to a random one's.
"""

import math
from collections.abc import Callable

import numpy as np


def balance(seen: np.ndarray) -> int:
    """CartPole: push the cart to where the pole will fall."""
    place, speed, angle, turning = seen
    return int(angle + 0.25 * turning + 0.02 * place + 0.05 * speed > 0)


def swing_up(seen: np.ndarray) -> np.ndarray:
    """Pendulum: torque along the motion until the energy is enough to stand upright, then hold it there."""
    upright, across, turning = seen
    if upright > 0.85:
        return np.array([-10 * math.atan2(across, upright) - 2.5 * turning], np.float32)
    lacking = 5.2 - (turning**2 / 6 + 5 * upright)
    return np.array([math.copysign(2, lacking) * math.copysign(1, turning)], np.float32)


def rock(seen: np.ndarray) -> np.ndarray:
    """Mountain car: drive the way it rolls."""
    return np.array([math.copysign(1, seen[1])], np.float32)


SCRIPTED: dict[str, Callable] = {"CartPole-v1": balance, "Pendulum-v1": swing_up, "MountainCarContinuous-v0": rock}


class Environment:
    """gymnasium's `name`, as a model sees it: `states` numbers in, `actions` numbers out.

    Actions are vectors: one-hot where one of several is chosen, else numbers from -1 to 1, from limit to limit.
    `choices` is how many there are to choose from, 0 for numbers; `steps` the longest episode, 0 where none is set.

    Raises:
        ValueError: it is not there or not installed, or its states or actions are no such vectors.
    """

    def __init__(self, name: str):
        try:
            import gymnasium
        except ImportError as error:
            raise ValueError(f"data.env={name}: gymnasium is not installed; type pip install gymnasium") from error
        try:
            self.name, made = name, gymnasium.make(name, disable_env_checker=True)
        except gymnasium.error.DependencyNotInstalled as error:
            told = " ".join(str(error).split()).replace("run `pip", "type `pip")
            raise ValueError(f"data.env={name}: is not installed: {told}") from error
        except (gymnasium.error.Error, ImportError) as error:
            raise ValueError(f"data.env={name}: {' '.join(str(error).split())}") from error
        space, seen = made.action_space, made.observation_space
        self.choices, self.steps = 0, made.spec.max_episode_steps or 0
        if not (isinstance(seen, gymnasium.spaces.Box) and len(seen.shape) == 1):
            raise ValueError(f"data.env={name}: its states are {seen}; a vector of numbers is needed")
        if isinstance(space, gymnasium.spaces.Discrete):
            self.actions = self.choices = int(space.n)
            self.first = int(space.start)
        elif isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1 and np.isfinite(space.high).all():
            self.actions, self.low, self.high = space.shape[0], space.low, space.high
        else:
            raise ValueError(f"data.env={name}: its actions are {space}; a choice or a vector within limits is needed")
        self.states = seen.shape[0]

    def make(self):
        """A new one of it, of gymnasium's own interface."""
        import gymnasium

        return gymnasium.make(self.name, disable_env_checker=True)

    def vector(self, action) -> np.ndarray:
        """``(actions,)`` float32 of an action of the environment's own."""
        if self.choices:
            return np.eye(self.choices, dtype=np.float32)[int(action) - self.first]
        span = (self.high - self.low) / 2
        return np.clip((np.asarray(action, np.float32) - self.low) / span - 1, -1, 1)

    def action(self, vector: np.ndarray):
        """The environment's own action of a model's ``(actions,)`` output: the largest, or scaled to its limits."""
        if self.choices:
            return int(np.argmax(vector)) + self.first
        return (self.low + (np.clip(vector, -1, 1) + 1) * (self.high - self.low) / 2).astype(np.float32)


def record(env: Environment, episodes: int) -> dict[str, np.ndarray]:
    """So many episodes, one after the other: observations (N, S), actions (N, A), rewards (N,), ends (N,) of episodes.

    Raises:
        ValueError: no scripted policy is known for the environment.
    """
    if env.name not in SCRIPTED:
        raise ValueError(
            f"data.env={env.name}: no scripted policy for it is here (there is one for {', '.join(SCRIPTED)}); give "
            "recorded episodes with data.path=<.npz file>"
        )
    policy, world = SCRIPTED[env.name], env.make()
    rows: dict[str, list] = {"observations": [], "actions": [], "rewards": [], "ends": []}
    for episode in range(episodes):
        share = episode / max(1, episodes - 1)
        dice = np.random.default_rng(episode)
        world.action_space.seed(episode)
        seen, _ = world.reset(seed=episode)
        over = False
        while not over:
            action = env.action(env.vector(policy(seen)))  # within its limits
            action = world.action_space.sample() if dice.random() < share else action
            rows["observations"].append(seen)
            rows["actions"].append(env.vector(action))
            seen, reward, terminated, truncated, _ = world.step(action)
            over = terminated or truncated
            rows["rewards"].append(float(reward))
            rows["ends"].append(over)
    kinds = {"observations": np.float32, "actions": np.float32, "rewards": np.float64, "ends": bool}
    return {name: np.asarray(rows[name], kind) for name, kind in kinds.items()}
