"""Decision Transformer: episodes and their windows, the model's formula, what it may see, and playing."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

import eval as evaluation
from dyt.config.compose import load
from dyt.data import open_data
from dyt.data.environments import SCRIPTED, Environment, record
from dyt.data.order import Order, seed_all
from dyt.forecast.dry_run import dry_run
from dyt.norms.dynamic import DynamicTanh
from dyt.tasks import build_task
from dyt.tasks.decision import play
from models import build_model

from .helpers import TINY_DT, train

SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "logger.mode=disabled"]


def made(*words):
    config = load([*TINY_DT, *words])
    data = open_data(config["data"], config["model"]["context"])
    seed_all(0)
    model, _ = build_model(config["model"], config["norm"], data.spec)
    return model, build_task(config, data.spec.classes), data, config


# -- episodes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, random, scripted", [("CartPole-v1", 40, 499), ("MountainCarContinuous-v0", -20, 85)])
def test_recorded_episodes_go_from_the_scripted_policys_to_a_random_ones(name, random, scripted):
    found = record(Environment(name), 3)
    returns = [part.sum() for part in np.split(found["rewards"], np.flatnonzero(found["ends"])[:-1] + 1)]
    assert len(returns) == 3 and returns[0] >= scripted and returns[-1] <= random
    again = record(Environment(name), 3)
    assert all(np.array_equal(found[key], again[key]) for key in found)


def test_the_scripted_policy_swings_the_pendulum_up():
    found = record(Environment("Pendulum-v1"), 1)
    assert found["rewards"][-50:].min() > -0.1  # upright and still to the end


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_models_action_is_the_environments_own(name):
    env = Environment(name)
    space = env.make().action_space
    for seed in range(5):
        space.seed(seed)
        action = space.sample()
        vector = env.vector(action)
        assert vector.shape == (env.actions,) and np.abs(vector).max() <= 1
        np.testing.assert_allclose(env.action(vector), action, rtol=1e-6)
        assert space.contains(env.action(100 * vector))  # kept within its limits


def file_of(path, lengths=(5, 3, 7, 4), **changed):
    """An .npz file of CartPole episodes that never were, its rewards 1, 2, 3 ..."""
    steps = sum(lengths)
    arrays = {
        "observations": np.arange(4.0 * steps).reshape(steps, 4),
        "actions": np.arange(steps) % 2,
        "rewards": 1.0 + np.arange(steps),
        "terminals": np.isin(np.arange(steps), np.cumsum(lengths) - 1),
    }
    np.savez(path, **{k: v for k, v in (arrays | changed).items() if v is not None})
    return [f"data.path={path}", "data.val_fraction=0.25", "data.batch_size=4"]


def test_a_window_is_the_steps_from_a_start_and_the_return_that_is_still_to_come(tmp_path):
    *_, data, _ = made(*file_of(tmp_path / "own.npz"), "model.context=4")
    raw = np.split(np.arange(19), [5, 8, 15])
    (held,) = [i for i, part in enumerate(raw) if part[0] in data.in_order]
    kept = [part for i, part in enumerate(raw) if i != held]
    assert data.samples == sum(map(len, kept)) and data.spec.sizes == {
        "train": 3 * data.samples,
        "val": 3 * len(raw[held]),
    }
    (returns, states, actions, times), real = data.__getitems__([(0, i) for i in range(data.samples)])
    assert returns.shape == times.shape == real.shape == (data.samples, 4) and states.shape[2:] == (4,)
    seen = [np.arange(4.0 * 19).reshape(19, 4)[part] for part in kept]
    mean, std = np.concatenate(seen).mean(0), np.concatenate(seen).std(0)
    i = 0
    for part in kept:
        for at in range(len(part)):
            here = part[at : at + 4]
            n = len(here)
            assert real[i].tolist() == [True] * n + [False] * (4 - n)
            assert times[i, :n].tolist() == list(range(at, at + n))
            to_come = [float(sum(1 + part[k:])) for k in range(at, at + n)]
            np.testing.assert_allclose(returns[i, :n] * data.scale, to_come, rtol=1e-5)
            np.testing.assert_allclose(states[i, :n], (np.arange(76.0).reshape(19, 4)[here] - mean) / std, atol=1e-5)
            assert actions[i, :n].argmax(-1).tolist() == (here % 2).tolist() and (actions[i, :n].sum(-1) == 1).all()
            assert not any(part_[i, n:].any() for part_ in (returns, states, actions, times))
            i += 1


def test_an_evaluation_asks_about_each_held_out_step_once():
    *_, data, config = made()
    seen = sum(int(real.sum()) for _, real in data.eval_batches("val"))
    assert 3 * seen == data.spec.sizes["val"]
    parts = [int(real.sum()) for rank in range(2) for _, real in data.eval_batches("val", rank, 2)]
    assert sum(parts) == seen and data.spec.sizes["val"] + data.spec.sizes["train"] == 3 * len(data.rewards)
    order = Order(data.samples, 8, seed=0)
    (returns, *_), real = next(iter(data.train_batches(order, 3, 4)))
    again = next(iter(data.train_batches(Order(data.samples, 8, seed=0), 3, 4)))
    assert torch.equal(returns, again[0][0]) and torch.equal(real, again[1])


# -- the model ---------------------------------------------------------------------------------------------------------


def test_tokens_and_their_order_are_the_papers():
    """Algorithm 1 of arXiv 2106.01345, and the official code's norm of the embeddings, from weights alone."""
    model, _, data, _ = made("norm=layernorm", "model.dropout=0")
    model = model.double().eval()
    returns, states, actions, times = (
        x.double() if x.is_floating_point() else x for x in data.windows(data.train[:3])[0]
    )
    place = model.embed_time(times)
    tokens = []
    for t in range(states.shape[1]):
        tokens.append(returns[:, t, None] @ model.embed_return.weight.T + model.embed_return.bias + place[:, t])
        tokens.append(states[:, t] @ model.embed_state.weight.T + model.embed_state.bias + place[:, t])
        tokens.append(actions[:, t] @ model.embed_action.weight.T + model.embed_action.bias + place[:, t])
    x = model.embed_norm(torch.stack(tokens, dim=1))
    for block in model.blocks:
        x = block(x)
    x = model.final_norm(x)
    want = torch.stack([model.head(x[:, 3 * t + 1]) for t in range(states.shape[1])], dim=1)
    torch.testing.assert_close(model(returns, states, actions, times), want)


BY_TOKEN = ["layernorm", "rmsnorm", "none", "dyt"]


@pytest.mark.parametrize("norm", [*BY_TOKEN, "batchnorm", "instancenorm"])
def test_which_norms_let_an_action_see_itself_and_what_comes_after(norm):
    """Per-token norms leave the model causal. Batch norm in training, and instance norm always, do not."""
    model, _, data, _ = made(f"norm={norm}", "model.dropout=0", "model.context=8")
    returns, states, actions, times = data.windows(data.train[40:44])[0]
    other = actions.clone()
    other[:, 5:] = 1 - other[:, 5:]  # the action of step 5, which is to be found, and those after it
    for training in (True, False):
        model.train(training)
        with torch.no_grad():
            apart = (model(returns, states, actions, times) - model(returns, states, other, times)).abs()
        apart /= apart.max()
        leaks = norm == "instancenorm" or (norm == "batchnorm" and training)
        assert (apart[:, :6].max() > 1e-2) == leaks
        assert apart[:, 6:].max() > 1e-2  # what came before is seen


@pytest.mark.parametrize("norm", [*BY_TOKEN, "batchnorm", "instancenorm"])
def test_which_norms_feel_how_much_of_a_batch_is_filled_up(norm, tmp_path):
    """The same steps, alone or in a window that is filled up behind: the trouble with sequences of unequal length."""
    model, task, data, _ = made(*file_of(tmp_path / "own.npz", lengths=(8, 3, 8, 8)), f"norm={norm}", "model.dropout=0")
    model.train()
    short = [i for i, (end, at) in enumerate(zip(data.ends, range(27), strict=True)) if end - at == 3]
    inputs, real = data.windows(np.array(short))
    assert real.shape[1] == 4 and real.sum(1).eq(3).all()
    with torch.no_grad():
        filled = model(*inputs)[:, :3]
        alone = model(*(part[:, :3] for part in inputs))
    assert ((filled - alone).abs().max() < 1e-5) == (norm in BY_TOKEN)


def test_filled_up_steps_are_not_learned_from(tmp_path):
    model, task, data, _ = made(*file_of(tmp_path / "own.npz"), "norm=dyt", "model.dropout=0")
    (returns, states, actions, times), real = data.windows(data.train)
    loss = task.loss(model, (returns, states, actions, times), real)
    noise = torch.randn_like(states) * ~real[..., None]
    torch.testing.assert_close(task.loss(model, (returns, states + noise, actions, times), real), loss)
    made_ = model(returns, states, actions, times).log_softmax(-1)
    each = [-(made_[b, :n] * actions[b, :n]).sum(-1).mean() for b, n in enumerate(real.sum(1).tolist())]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    total, count = task.measure(model, (returns, states, actions, times), real)
    assert count == len(real)
    torch.testing.assert_close(total / count, loss)


def test_numbers_are_learned_by_their_squared_error():
    model, task, data, _ = made("data=mountaincar", "data.episodes=20", "model.dropout=0")
    inputs, real = data.windows(data.train[:5])
    error = (torch.tanh(model(*inputs)) - inputs[2]).square()
    torch.testing.assert_close(task.loss(model, inputs, real), error.mean())
    assert real.all() and data.spec.classes == 0 and data.spec.actions == 1


# -- playing -----------------------------------------------------------------------------------------------------------


class Scripted(torch.nn.Module):
    """Acts as the scripted policy where a return above `least` is asked for, else the other way; notes what it sees."""

    def __init__(self, data, least):
        super().__init__()
        self.data, self.least, self.seen = data, least, []

    def forward(self, returns, states, actions, times):
        self.seen.append((returns.clone(), states.clone(), actions.clone(), times.clone()))
        state = states[:, -1].numpy() * self.data.std + self.data.mean
        right = torch.tensor([SCRIPTED["CartPole-v1"](s) for s in state])
        wanted = torch.where(returns[:, -1] * self.data.scale > self.least, right, 1 - right)
        return 50.0 * torch.nn.functional.one_hot(wanted, 2).float()[:, None].expand(-1, states.shape[1], -1)


def test_playing_asks_for_what_is_left_and_shows_what_fits_the_window():
    *_, data, _ = made("model.context=4")
    model = Scripted(data, least=0)
    got = play(model, data, np.array([600.0, -1.0]), [3, 3], torch.device("cpu"))
    assert got[0] == 500 and got[1] < 30  # the second is asked for less than nothing
    returns, states, actions, times = model.seen[10]  # of steps 7 to 10
    assert times[0].tolist() == [7, 8, 9, 10] and not actions[0, -1].any() and actions[0, :-1].sum(-1).eq(1).all()
    np.testing.assert_allclose(returns[0] * data.scale, [593, 592, 591, 590], rtol=1e-5)
    assert model.seen[2][0].shape[1] == 3 and len(model.seen[-1][0]) == 1  # who is over plays no more
    alone = play(Scripted(data, 0), data, np.array([-1.0]), [3], torch.device("cpu"))
    assert alone[0] == got[1]  # an episode does not depend on those beside it


def test_a_run_says_what_it_reaches_and_eval_says_the_same():
    summary, folder = train(*TINY_DT, "norm=dyt", *SHORT)
    final = summary["final"]
    assert summary["status"] == "finished" and {"val/loss", "val/return", "val/return_poor"} <= final.keys()
    assert 15 < final["val/data_mean"] < final["val/data_best"] == 500
    assert Image.open(folder / "samples.png").size == (720, 480)
    again, picture = evaluation.evaluate_run(evaluation.parse([f"run={folder}", "ckpt=last"]))
    assert again["val/return"] == pytest.approx(final["val/return"])
    assert picture.size == (720, 480)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["model=dt_nano", "data=mnist5k"],
            "model=dt_nano is for episodes and data=mnist5k is images; choose data from cartpole",
        ),
        (["model=vit_nano", "data=cartpole"], "model=vit_nano is for images and data=cartpole is episodes"),
        (
            ["data.env=CartPole-v9"],
            "data.env=CartPole-v9: Environment version `v9` for environment `CartPole` doesn't exist",
        ),
        (["data.env=Hopper-v5"], "type `pip install"),
        (["data.env=Acrobot-v1"], "no scripted policy for it is here .there is one for CartPole-v1, .*data.path="),
        (["data.env=Blackjack-v1"], "its states are .*; a vector of numbers is needed"),
        (
            ["model.context=600"],
            "model.context=600: the longest episode of data=cartpole has 500 steps; type model.context=500",
        ),
        (["model=dt_nano", "data=hopper"], "data=hopper needs data.path=<.npz file of episodes>"),
        (["data.path=nowhere.npz"], "data.path=nowhere.npz: no such file"),
        (["data.val_fraction=0.001"], "of 12 episodes it leaves one split empty"),
        (["model.decision.levels=1"], "model.decision.levels=1: must be at least 2"),
        (["+model.decision.rolouts=1"], "model.decision.rolouts: unknown key; did you mean"),
        (["model.heads=3"], "model.dim=16 must be a multiple of model.heads=3"),
        (["data.episodes=0"], "data.episodes=0: must be at least 2"),
    ],
)
def test_wrong_words_get_one_line(words, message):
    base = [] if words[0].startswith("model=") else TINY_DT
    if any("Hopper" in word for word in words) and _mujoco():
        pytest.skip("MuJoCo is installed")
    with pytest.raises((ValueError, FileNotFoundError), match=message.replace("?", r"\?")) as error:
        train(*base, *SHORT, *words)
    assert "\n" not in str(error.value)


def _mujoco() -> bool:
    import importlib.util

    return importlib.util.find_spec("mujoco") is not None


def test_without_gymnasium_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ValueError, match="gymnasium is not installed; type pip install gymnasium"):
        train(*TINY_DT, *SHORT)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"rewards": None}, "has no array rewards; it needs observations, actions, rewards"),
        ({"terminals": None}, "has no array terminals or timeouts"),
        ({"observations": np.zeros((19, 3))}, "observations are .19, 3.; data.env=CartPole-v1 needs .19, 4."),
        ({"actions": np.zeros(5)}, "actions are .5,."),
        ({"terminals": np.zeros(19)}, "no whole episode"),
        ({"rewards": np.full(19, np.nan)}, "holds numbers that are not finite"),
        ({"rewards": np.ones((19, 1))}, "rewards are .19, 1.; data.env=CartPole-v1 needs .19,."),
        ({"rewards": np.full(19, "one")}, "rewards are no numbers"),
        ({"actions": np.full(19, -1)}, "no choices of data.env=CartPole-v1, which are whole .* from 0 to 1"),
        ({"actions": np.full(19, 2)}, "actions are no choices"),
        ({"actions": np.full(19, 0.5)}, "actions are no choices"),
        ({"actions": np.full((19, 2), 0.5)}, "actions are no choices"),
        ({"actions": np.ones((19, 2))}, "actions are no choices"),
    ],
)
def test_a_file_that_does_not_fit_gets_one_line(changed, message, tmp_path):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        made(*file_of(tmp_path / "own.npz", **changed))


def test_a_file_that_is_none_gets_one_line(tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"none")
    with pytest.raises(ValueError, match="is no .npz file of episodes"):
        train(*TINY_DT, *SHORT, f"data.path={tmp_path / 'bad.npz'}")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_asked_for_a_good_return_it_beats_the_datas_mean():
    """The demo in small; asked for a poor return it gets less."""
    words = ["experiment=demo_dt", "norm=layernorm", "logger.mode=disabled", "trainer.threads=1", "optim.lr=5e-3"]
    words += ["model.dim=32", "model.depth=2", "data.batch_size=32", "trainer.max_steps=500", "trainer.eval_batches=4"]
    final = train(*words, "model.decision.levels=2", "model.decision.rollouts=20")[0]["final"]
    assert final["val/return"] > final["val/data_mean"] + 100  # 481 and 247 here
    assert final["val/return_poor"] < final["val/return"] - 50  # 320 here


@pytest.mark.slow
def test_a_trained_model_can_be_converted():
    base = "init_from=norm=layernorm trainer.max_steps=2 trainer.eval_batches=1"
    assert train(*TINY_DT, "norm=dyt", "convert=calibrated", base, *SHORT)[0]["status"] == "finished"


def test_the_papers_recipe_has_its_parameters_and_is_costed():
    """Of the official code what acts: three embeddings, times, two norms, three blocks of width 128, and the head."""
    config = load(["experiment=paper_dt", "norm=layernorm"])
    said = dry_run(config)
    embeddings = (1 + 1) * 128 + (11 + 1) * 128 + (3 + 1) * 128 + 1000 * 128
    block = 4 * (128 * 128 + 128) + 2 * 4 * 128 * 128 + 5 * 128 + 2 * 256
    assert f"dt_gym, {embeddings + 2 * 256 + 3 * block + 129 * 3:,} parameters" in said
    assert "100,000 steps" in said and "two steps of" in said


def test_every_norm_of_it_is_counted_at_its_site():
    model, *_ = made("norm=dyt")
    assert sum(isinstance(m, DynamicTanh) for m in model.modules()) == 2 * 2 + 2
