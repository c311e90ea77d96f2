"""DiT and diffusion: the blocks are the official formula, the sampler samples what the true score says.

What is drawn depends on seed, step and place alone.
"""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from dyt.config.compose import load
from dyt.data import Spec, open_data
from dyt.data.order import seed_all
from dyt.rundir import checkpoint
from dyt.tasks import Place, build_task
from dyt.tasks.diffusion import ddim, remaining
from dyt.tasks.features import Features, frechet, precision_recall
from dyt.tasks.pictures import grid, pixel_range
from models import build_model

from .helpers import TINY_DIT, one_line, pictures_at, python, train

SPEC = Spec("image", "", {}, classes=10, channels=3)
SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "logger.mode=disabled"]


def made(*words, spec=SPEC):
    config = load([*TINY_DIT, "data.img_size=8", "data.patch_size=4", *words])
    seed_all(0)
    model, factory = build_model(config["model"], config["norm"], spec)
    return model, factory


def task_of(*words):
    config = load([*TINY_DIT, *words])
    return build_task(config, 10), config


# -- the model ---------------------------------------------------------------------------------------------------------


def by_hand(block, x, c, normalise, heads):
    """A DiT block as section 3.2 of arXiv 2212.09748 and the official code have it, from weights alone."""
    weights = dict(block.named_parameters())
    lin = lambda v, name: v @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]  # noqa: E731
    shift1, scale1, gate1, shift2, scale2, gate2 = lin(c * torch.sigmoid(c), "modulation")[:, None].chunk(6, dim=-1)
    h = normalise(x) * (1 + scale1) + shift1
    B, T, D = h.shape
    q, k, v = lin(h, "attn.qkv").view(B, T, 3, heads, D // heads).permute(2, 0, 3, 1, 4)  # (B, H, T, d) each
    mixed = (q @ k.transpose(-1, -2) / math.sqrt(D // heads)).softmax(dim=-1) @ v
    x = x + gate1 * lin(mixed.transpose(1, 2).reshape(B, T, D), "attn.proj")
    h = lin(normalise(x) * (1 + scale2) + shift2, "mlp.fc1")
    h = 0.5 * h * (1 + torch.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
    return x + gate2 * lin(h, "mlp.fc2")


def plain_layer_norm(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize("norm", ["layernorm", "dyt"])
def test_a_block_is_the_papers_formula(norm):
    """The norm has no scale and shift of its own: DyT is tanh(alpha x) there, and LayerNorm has epsilon 1e-6."""
    model = made(f"norm={norm}", "model.zero_init=false")[0].double()
    block = model.blocks[0]
    g = torch.Generator().manual_seed(1)
    x = 3 * torch.randn(2, 4, 16, generator=g, dtype=torch.float64)
    c = torch.randn(2, 16, generator=g, dtype=torch.float64)
    if norm == "dyt":
        assert [name for name, _ in block.attn_norm.named_parameters()] == ["alpha"]
    normalise = plain_layer_norm if norm == "layernorm" else lambda v: torch.tanh(0.5 * v)
    torch.testing.assert_close(block(x, c), by_hand(block, x, c, normalise, heads=2))


def test_patches_go_back_to_their_places():
    """With blocks that add nothing and a head that undoes the embedding, the image comes out as it went in."""
    model = made("norm=none", "model.dim=48", "model.heads=2")[0].double()
    model.positions = torch.zeros_like(model.positions)
    proj = model.patches.proj  # (48, 3, 4, 4)
    with torch.no_grad():
        proj.weight.copy_(torch.eye(48, dtype=torch.float64).view(48, 3, 4, 4))
        # The embedding orders a patch as (C, p, q), the head as (p, q, C).
        model.head.weight.copy_(
            torch.eye(48, dtype=torch.float64).view(3, 4, 4, 48).permute(1, 2, 0, 3).reshape(48, 48)
        )
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model(x, torch.tensor([0, 5]), torch.tensor([1, 10])), x)


def test_zero_init_starts_at_zero_noise_and_is_a_factor_of_its_own():
    x, t, y = torch.randn(2, 3, 8, 8), torch.tensor([3, 900]), torch.tensor([0, 10])
    for norm in ("layernorm", "dyt"):
        kept, removed = (made(f"norm={norm}", f"model.zero_init={z}")[0] for z in ("true", "false"))
        assert torch.equal(kept(x, t, y), torch.zeros_like(x))
        assert removed(x, t, y).std() > 0.01
        assert kept.blocks[0].modulation.weight.abs().max() == 0 < removed.blocks[0].modulation.weight.abs().max()
        same = [k for k in kept.state_dict() if "modulation" not in k and "head" not in k]
        assert all(torch.equal(kept.state_dict()[k], removed.state_dict()[k]) for k in same)


def test_time_and_label_count():
    model = made("norm=dyt", "model.zero_init=false")[0]
    x = torch.randn(1, 3, 8, 8)
    base, later, other = (model(x, torch.tensor([t]), torch.tensor([y])) for t, y in ((3, 1), (700, 1), (3, 2)))
    assert not torch.allclose(base, later) and not torch.allclose(base, other)


def test_norm_affine_gives_the_norms_their_own_gain():
    words = ["norm=dyt_unit_gain", "norm.alpha_init=0.2", "norm.alpha=ratio"]
    assert made(*words)[0].blocks[0].attn_norm.weight is None
    own = made(*words, "model.norm_affine=true")[0].blocks[0].attn_norm
    assert torch.equal(own.weight.detach(), torch.full((16,), 5.0))


# -- noise and sampling ------------------------------------------------------------------------------------------------


def test_schedules_are_those_of_the_papers():
    bar = remaining(1000, "linear")
    betas = [1e-4 + (0.02 - 1e-4) * i / 999 for i in range(1000)]
    assert bar[0].item() == pytest.approx(1 - 1e-4) and bar[-1].item() == pytest.approx(
        math.prod(1 - b for b in betas), rel=1e-9
    )
    cosine = remaining(1000, "cosine")
    f = lambda t: math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    assert cosine[499].item() == pytest.approx(f(500) / f(0), rel=1e-9)
    assert (cosine.diff() < 0).all() and 0 < cosine[-1] < 1e-4


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_ddim_with_the_true_score_of_a_gaussian_samples_that_gaussian(schedule):
    """For x0 ~ N(m, s^2): the noise foreseen at a time is sqrt(1 - bar) (x - sqrt(bar) m) / (bar s^2 + 1 - bar)."""
    mean, std, bar = 0.7, 0.3, remaining(1000, schedule)

    def noise_in(x, t):
        b = bar[t].item()
        return math.sqrt(1 - b) * (x - math.sqrt(b) * mean) / (b * std**2 + 1 - b)

    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = ddim(noise_in, x, bar, 250, clip=False)
    assert got.mean().item() == pytest.approx(mean, abs=0.01) and got.std().item() == pytest.approx(std, abs=0.01)
    # The map is monotone and keeps ranks: it is the Gaussian's own quantile function.
    torch.testing.assert_close(got, mean + std * x, atol=0.03, rtol=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_where_the_foreseen_image_is_clipped_the_noise_is_what_is_left_of_x(sign):
    """arXiv 2010.02502, equation 12, with alpha bar 0.25 and then 0.64: x = 0.5 image + sqrt(0.75) noise.

    A network that sees no noise in x = 1.5 foresees 3, clipped to 1. The noise is then 1 / sqrt(0.75) = 1.1547, and the
    next x is 0.8 x 1 + 0.6 x 1.1547 = 1.4928. Of x = 0.4 it foresees 0.8, which stays: the next x is 0.64.
    """
    seen = []

    def noise_in(x, t):
        seen.append((t, x))
        return torch.zeros_like(x)

    x = sign * torch.tensor([1.5, 0.4], dtype=torch.float64)
    ddim(noise_in, x, torch.tensor([0.64, 0.25], dtype=torch.float64), steps=2)
    assert [t for t, _ in seen] == [1, 0]
    assert seen[1][1].tolist() == pytest.approx([sign * (0.8 + 0.6 / math.sqrt(0.75)), sign * 0.64])
    seen.clear()
    ddim(noise_in, x, torch.tensor([0.64, 0.25], dtype=torch.float64), steps=2, clip=False)
    assert seen[1][1].tolist() == pytest.approx([sign * 0.8 * 3, sign * 0.64])


def test_guidance_is_none_plus_so_much_of_the_difference():
    class Net(torch.nn.Module):
        def forward(self, x, t, y):
            return y.to(x)[:, None, None, None].expand_as(x)

    task, _ = task_of("model.diffusion.guidance=3")
    x, y = torch.zeros(2, 1, 4, 4), torch.tensor([2, 4])
    assert task._guided(Net(), y)(x, 5).flatten(1)[:, 0].tolist() == [10 + 3 * (2 - 10), 10 + 3 * (4 - 10)]


def test_what_is_drawn_depends_on_seed_step_and_place_alone():
    task, _ = task_of()
    images, labels = torch.randn(6, 1, 16, 16), torch.arange(6)
    whole = task.prepare(images, labels, Place(("train", 3, 7), 0))
    first, second = (task.prepare(images[i : i + 3], labels[i : i + 3], Place(("train", 3, 7), i)) for i in (0, 3))
    for a, b, c in zip((*whole[0], whole[1]), (*first[0], first[1]), (*second[0], second[1]), strict=True):
        assert torch.equal(a, torch.cat((b, c)))
    for other in (("train", 4, 7), ("train", 3, 8), ("val",)):
        assert not torch.equal(whole[1], task.prepare(images, labels, Place(other, 0))[1])


def test_the_noisy_image_is_the_forward_process():
    task, config = task_of("model.diffusion.class_dropout=0.5")
    source = open_data(config["data"])
    images, labels = next(iter(source.eval_batches("val", limit=1)))
    (noisy, t, given), noise = task.prepare(images, labels, Place(("train", 0, 0), 0))
    pixels = pixel_range(config["data"])[0](images)
    assert pixels.min() == pytest.approx(-1, abs=1e-5) and pixels.max() == pytest.approx(1, abs=1e-5)
    bar = task.bar[t].float()[:, None, None, None]
    torch.testing.assert_close(noisy, bar.sqrt() * pixels + (1 - bar).sqrt() * noise)
    dropped = given == 10
    assert 0.35 < dropped.float().mean() < 0.65 and torch.equal(given[~dropped], labels[~dropped])
    assert 0 <= t.min() < 50 and 950 < t.max() < 1000 and noise.std().item() == pytest.approx(1, abs=0.01)
    (_, _, held), _ = task.prepare(images, labels, Place(("val",), 0))
    assert torch.equal(held, labels)  # an evaluation leaves no label out


def test_samples_do_not_depend_on_how_many_are_made_together(monkeypatch):
    task, config = task_of()
    model, _ = build_model(config["model"], config["norm"], Spec("image", "", {}, classes=10, channels=1))
    labels = torch.arange(6) % 10
    whole = task.sample(model, labels)
    monkeypatch.setattr("dyt.tasks.diffusion.AT_ONCE", 4)
    torch.testing.assert_close(task.sample(model, labels), whole)
    assert whole.shape == (6, 1, 16, 16) and whole.abs().max() <= 1


# -- features ----------------------------------------------------------------------------------------------------------


def test_frechet_distance_of_gaussians_is_the_formula():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(40_000, 3, generator=g, dtype=torch.float64)
    b = torch.randn(40_000, 3, generator=g, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0]) + 1
    assert frechet(a, b) == pytest.approx(3 + 0 + 1 + 4, rel=0.02)  # |m|^2 + sum (s - 1)^2
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))
    assert frechet(a @ turn, b @ turn) == pytest.approx(frechet(a, b), rel=1e-6)


def test_precision_and_recall_tell_few_from_wrong():
    g = torch.Generator().manual_seed(0)
    true = torch.randn(400, 2, generator=g)
    assert precision_recall(true, torch.randn(400, 2, generator=g))[0] > 0.9
    precision, recall = precision_recall(true, 0.1 * torch.randn(400, 2, generator=g))  # all alike, and fine
    assert precision > 0.9 and recall < 0.3
    precision, recall = precision_recall(true, 50 + torch.randn(400, 2, generator=g))
    assert precision == 0 == recall


def test_samples_that_are_all_alike_and_fine_are_told_as_precise_and_as_leaving_much_out(monkeypatch):
    """Pictures of 2 pixels are their own features here; those that are made have a tenth of the true spread."""
    g = torch.Generator().manual_seed(0)
    true, made = torch.randn(400, 1, 1, 2, generator=g), 0.1 * torch.randn(400, 1, 1, 2, generator=g)

    class Pixels:
        images = staticmethod(lambda data, split: true)
        of = classmethod(lambda cls, data, device: cls())

        def __call__(self, images):
            return images.flatten(1)

    task, _ = task_of()
    monkeypatch.setattr("dyt.tasks.diffusion.Features", Pixels)
    monkeypatch.setattr(task, "sample", lambda model, labels: made)
    data = SimpleNamespace(spec=Spec("image", "", {"val": 400}))
    found, _ = task.at_end(None, data, "val", torch.device("cpu"))
    assert found["precision"] > 0.9 and found["recall"] < 0.3
    assert found["frechet"] == pytest.approx(2 * 0.9**2, rel=0.1)  # of each pixel (1 - 0.1)^2


def test_the_classifier_knows_digits_and_is_trained_once(monkeypatch):
    data = open_data(load(TINY_DIT)["data"])
    features = Features.of(data, torch.device("cpu"))
    assert features.top1 > 0.93
    monkeypatch.setattr("dyt.tasks.features._train", lambda *_: pytest.fail("trained again"))
    again = Features.of(data, torch.device("cpu"))
    val = features.images(data, "val")
    assert torch.equal(features(val), again(val)) and features(val).shape == (500, 64)
    test = features(features.images(data, "test"))
    near, far = frechet(features(val), test), frechet(features(val), features(val.flip(-1)))
    assert near < far / 3  # true digits are nearer to others than to mirrored ones


def test_a_grid_puts_images_row_by_row():
    images = torch.full((5, 1, 2, 2), -1.0)
    images[3] = 1
    picture = grid(images, columns=2, rows=10, width=5)
    assert picture.size == (5, 8)
    assert picture.getpixel((3, 3)) == 255 and picture.getpixel((0, 0)) == 0 and picture.getpixel((2, 0)) == 128


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_leaves_samples_and_eval_takes_options(tmp_path):
    summary, folder = train(*TINY_DIT, "norm=dyt", *SHORT)
    assert summary["status"] == "finished" and Image.open(folder / "samples.png").size == (3 * 169, 3 * 33)
    assert {"val/loss", "val/frechet", "val/precision", "val/recall"} <= summary["final"].keys()
    plain = python("eval.py", f"run={folder}", "ckpt=last")
    assert plain.returncode == 0, plain.stderr
    got = json.loads(plain.stdout)
    assert got["val/frechet"] == pytest.approx(summary["final"]["val/frechet"], rel=1e-4)
    more = python("eval.py", f"run={folder}", "ckpt=last", "steps=4", "guidance=2", "samples=30")
    other = json.loads(more.stdout)
    assert (other["sample_steps"], other["guidance"], other["samples"]) == (4, 2.0, 30)
    assert other["val/frechet"] != got["val/frechet"] and Image.open(folder / "eval.png").size == (3 * 169, 3 * 50)


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["model=dit_nano", "data=stdlib"],
            "model=dit_nano is for images and data=stdlib is texts; choose data from cifar10",
        ),
        (["model.diffusion.sample_steps=2000"], "model.diffusion.sample_steps=2000: must be at most"),
        (["model.diffusion.schedule=sine"], "model.diffusion.schedule=sine: choose from linear, cosine"),
        (["model.diffusion.guidance=2", "model.diffusion.class_dropout=0"], "model.diffusion.guidance=2: must be"),
        (["+model.diffusion.stps=3"], "model.diffusion.stps: unknown key; did you mean"),
        (["data.mixup=0.8"], "data.mixup and data.cutmix mix labels"),
        (["model.patch_size=5"], "model.img_size=16 is not a multiple of model.patch_size=5"),
        (["model.dim=18"], "model.dim=18 must be a multiple of model.heads=2, and of 4"),
    ],
)
def test_wrong_words_get_one_line(words, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        train(*([] if "data=stdlib" in words else TINY_DIT), *SHORT, *words)


def test_sampler_options_are_for_diffusion_models():
    from .helpers import TINY_VIT

    _, folder = train(*TINY_VIT, *SHORT)
    assert "vit_nano is not a diffusion model" in one_line(python("eval.py", f"run={folder}", "guidance=2"))


def test_samples_are_not_held_against_fewer_pictures_than_have_neighbours(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    pictures_at(tmp_path / "few", "train/a", "train/b")
    pictures_at(tmp_path / "few", "val/a", count=3)
    small = ["data=imagefolder", "data.path=few", "data.batch_size=4"]
    summary, run = train(*TINY_DIT, *small, *SHORT)
    assert summary["status"] == "finished" and set(summary["final"]) == {"train/loss", "val/loss"}
    assert "val has too few pictures (3)" in caplog.text and (run / "samples.png").is_file()


def test_a_trained_model_can_be_converted():
    base = "init_from=norm=layernorm trainer.max_steps=2 trainer.eval_batches=1 model.zero_init=false"
    summary, _ = train(*TINY_DIT, "model.zero_init=false", "norm=dyt", "convert=calibrated", base, *SHORT)
    assert summary["status"] == "finished"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_draws_digits_that_a_classifier_reads():
    """What the page promises of ``experiment=demo_dit``: most samples are of the class they were asked for."""
    summary, folder = train("experiment=demo_dit", "norm=layernorm", "logger.mode=disabled")
    assert summary["status"] == "finished" and summary["final"]["val/frechet"] < 6
    config = load(["experiment=demo_dit", "norm=layernorm"])
    data = open_data(config["data"])
    model, _ = build_model(config["model"], config["norm"], data.spec)
    model.load_state_dict(checkpoint.newest(folder / "checkpoints")[0]["model"])
    labels = torch.arange(200) % 10
    with torch.no_grad():
        read = Features.of(data, torch.device("cpu")).net(build_task(config, 10).sample(model.eval(), labels))
    assert (read.argmax(dim=-1) == labels).float().mean() > 0.7


def test_loss_of_the_evaluation_is_the_mean_of_the_training_loss():
    task, config = task_of()
    model, _ = build_model(config["model"], config["norm"], Spec("image", "", {}, classes=10, channels=1))
    inputs, noise = task.prepare(torch.randn(6, 1, 16, 16), torch.arange(6), Place(("val",), 0))
    total, count = task.measure(model, inputs, noise)
    assert count == 6
    torch.testing.assert_close(total / count, task.loss(model, inputs, noise))
    torch.testing.assert_close(task.loss(model, inputs, noise), F.mse_loss(model(*inputs), noise))
