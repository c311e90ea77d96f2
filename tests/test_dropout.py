"""Dropout: in training alone, half where half is said, and another mask in each step, piece and process."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from dyt.config.compose import load
from dyt.data.order import Order
from dyt.run import assemble
from dyt.training.distributed import World
from dyt.training.loop import Trainer
from dyt.training.schedule import Schedule

from .helpers import TINY_GPT, shrunk
from .test_models import made


def dropping(*words):
    """A GPT with dropout and one without, of the same weights, and tokens for them."""
    network, plain = (made(*shrunk("gpt_nano"), *words, f"model.dropout={p}")[0] for p in (0.5, 0))
    plain.load_state_dict(network.state_dict())
    return network, plain, torch.randint(50, (32, 16))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_dropout_counts_in_training_alone(mode):
    network, plain, tokens = dropping()
    network.train(mode == "train"), plain.train(mode == "train")
    assert torch.equal(network(tokens), plain(tokens)) == (mode == "eval")


def test_in_training_half_of_the_embeddings_are_0_and_the_others_twice_as_large():
    network, _, tokens = dropping()
    seen = []
    network.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.train()(tokens)
    x, dropped = network.embed(tokens) + network.positions.weight, seen[0] == 0
    assert dropped.numel() == 8192 and 0.47 < dropped.float().mean() < 0.53  # five standard deviations
    torch.testing.assert_close(seen[0][~dropped], 2 * x[~dropped])


def test_in_training_an_attention_weight_is_0_or_twice_itself_and_in_evaluation_itself():
    """A token that stands alone attends to itself with weight 1."""
    network, _, tokens = dropping()
    attention, x = network.blocks[0].attn, network.embed(tokens[:, :1])
    value = attention.qkv(x)[..., 32:].unflatten(-1, (2, 8))  # (B, 1, heads, 8)
    results = {
        each: attention.out((value * torch.tensor(each)[:, None]).flatten(2))
        for each in (*itertools.product((0.0, 2.0), repeat=2), (1.0, 1.0))
    }
    torch.testing.assert_close(attention.eval()(x), results.pop((1.0, 1.0)))
    out = attention.train()(x)
    found = {each for each, want in results.items() for row in range(32) if torch.allclose(out[row], want[row])}
    hit = [any(torch.allclose(out[row], want[row], atol=1e-6) for want in results.values()) for row in range(32)]
    assert all(hit) and found == set(results)


class Alone(World):
    """A process among several that adds nothing up, so that the others need not run."""

    def add(self, values):
        return values


def test_each_step_piece_and_process_draws_another_mask_and_always_the_same():
    config = load([*TINY_GPT, "model.dropout=0.5", "trainer.accumulate=2", "optim.lr=0"])

    def masks(rank):
        """Which embeddings the two pieces of two steps drop in the process of a rank among four."""
        world = Alone(torch.device("cpu"), rank, 4)
        data, model, _, task = assemble(config, World(world.device), 0)
        order, seen = Order(400, 48, 0, 2, world.data_rank, world.data_size), []
        model.drop.register_forward_hook(lambda _, __, out: seen.append(out == 0))
        loop = Trainer(config, model, task, data, order, Schedule.of({**config["trainer"], "max_steps": 2}, 8), world)
        batch = torch.ones(6, 16, dtype=torch.int64), torch.ones(6, 16, dtype=torch.int64)
        for loop.step in range(2):
            loop.train_step(itertools.repeat(batch), 0.0, SimpleNamespace(asked=0))
        return seen

    first, second = masks(0), masks(1)
    assert len(first) == len(second) == 4 and first[0].shape == (6, 16, 16)
    for a, b in itertools.combinations([*first, *second], 2):
        assert 0.4 < (a == b).float().mean() < 0.6  # of independent masks half
    assert all(map(torch.equal, first, masks(0)))
