"""DINO: loss, encoder and crops are the reference formulas; what is drawn depends on seed, step and place alone."""

import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as reference

from dyt.config.compose import load, options
from dyt.data import Spec, open_data
from dyt.data.order import seed_all
from dyt.rundir import checkpoint
from dyt.tasks import Place, build_task, crops
from dyt.tasks.features import Features, classifier
from dyt.tasks.probes import knn, linear, nearest, worth_of_pixels
from models import build_model

from .helpers import TINY_DINO, TINY_VIT, rows_of, train

SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "logger.mode=disabled"]
ALONE = type("World", (), {"add": staticmethod(lambda x: x)})


def made(*words):
    config = load([*TINY_DINO, *words])
    seed_all(0)
    model, factory = build_model(config["model"], config["norm"], Spec("image", "", {}, classes=10, channels=1))
    return model, factory, build_task(config, 10), config


def batch(task, count=3, step=0):
    images = torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    return task.prepare(images, torch.zeros(count), Place(("train", 0, step), 0))


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [28, 14])
@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_encoder_is_timms_with_the_same_weights_at_every_size(pool, size):
    student = made("norm=layernorm", f"model.pool={pool}")[0].double().eval().student
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="avg", in_chans=1, img_size=28,
                               patch_size=7, embed_dim=16, depth=2, num_heads=2, dynamic_img_size=True)  # fmt: skip
    theirs = theirs.double().eval()
    theirs.load_state_dict(student.encoder.state_dict())
    images = torch.randn(2, 1, size, size, dtype=torch.float64)
    tokens = theirs.forward_features(images)
    want = theirs.fc_norm(tokens[:, 0]) if pool == "token" else theirs(images)
    torch.testing.assert_close(student.features(images), want)


def test_a_norm_before_the_blocks_is_called():
    """In CLIP's ViTs; timm's own features are the oracle, and no parameter of the encoder is left out."""
    model, factory, task, _ = made("norm=layernorm", "model.pool=token", "model.timm_name=vit_xsmall_patch16_clip_224")
    assert factory.count == {"embed": 1, "attn": 2, "mlp": 2, "final": 1}
    task.loss(model, *batch(task)).backward()
    assert all(p.grad is not None for p in model.student.parameters())
    student = model.eval().student
    torch.nn.init.normal_(student.encoder.norm_pre.weight)
    images = torch.randn(2, 1, 28, 28)
    want = student.encoder.fc_norm(student.encoder.forward_features(images)[:, 0])
    torch.testing.assert_close(student.features(images), want, atol=1e-5, rtol=0)


def test_the_head_is_the_official_one_with_the_same_weights():
    """Three layers, length 1, then torch's weight norm with a gain of 1: DINOHead with norm_last_layer=True."""
    head = made()[0].double().student.head
    last = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 12, bias=False).double())
    last.parametrizations.weight.original0.data.fill_(1)
    last.parametrizations.weight.original1.data.copy_(head.last.weight)
    x = torch.randn(5, 16, dtype=torch.float64)
    want = last(F.normalize(head.mlp(x), dim=-1, p=2))
    got = head(x, torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(got, want)
    assert got.abs().max() <= 1 and [m.out_features for m in head.mlp if hasattr(m, "out_features")] == [8, 8, 8]


def test_student_and_teacher_start_equal_and_the_teacher_follows():
    model, _, task, _ = made("model.dino.momentum_teacher=0.9", "model.dino.center_momentum=0.8")
    ours, theirs = model.student.state_dict(), model.teacher.state_dict()
    assert all(torch.equal(v, theirs[k]) for k, v in ours.items())
    assert not any(p.requires_grad for p in model.teacher.parameters())
    before = {k: v.clone() for k, v in theirs.items()}
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(torch.randn_like(p))
    for step, momentum in ((0, 0.9), (5, 1 - 0.1 * (1 + math.cos(math.pi / 2)) / 2), (10, 1.0)):
        centre, (inputs, temperature) = model.centre.clone(), batch(task, step=step)
        task.loss(model, inputs, temperature).backward()
        assert all(p.grad is None for p in model.teacher.parameters())
        said = model.teacher(inputs[0].flatten(0, 1), torch.ones(()))
        task.after_step(model, step, 10, ALONE)
        for k, v in model.teacher.state_dict().items():
            torch.testing.assert_close(v, momentum * before[k] + (1 - momentum) * ours[k])
        torch.testing.assert_close(model.centre, 0.8 * centre + 0.2 * said.mean(dim=0))
        before = {k: v.clone() for k, v in model.teacher.state_dict().items()}


def test_the_centre_is_that_of_all_processes_and_pieces():
    """Two processes with half a batch each, or one with two halves, move it as one does with the whole."""
    moved = []
    for parts, ranks in (([slice(0, 4)], 1), ([slice(0, 2), slice(2, 4)], 1), ([slice(0, 2), slice(2, 4)], 2)):
        model, _, task, _ = made()
        images, place = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1)), ("train", 0, 0)
        sums = []
        for part in parts:
            task.loss(model, *task.prepare(images[part], images[part], Place(place, part.start)))
            if ranks == 2:
                sums.append(task.seen)
                task.seen = None
        world = ALONE if ranks == 1 else type("World", (), {"add": staticmethod(lambda x, sums=sums: sum(sums))})
        task.seen = sums[0] if sums else task.seen
        task.after_step(model, 0, 10, world)
        moved.append(model.centre)
    assert moved[0].abs().max() > 0
    torch.testing.assert_close(moved[1], moved[0])
    torch.testing.assert_close(moved[2], moved[0])


@pytest.mark.parametrize("norm", options("norm"))
def test_every_norm_runs_forward_and_backward(norm):
    """The student's norms get gradients where they have parameters, the teacher's follow; both stay finite."""
    model, factory, task, _ = made(f"norm={norm}")
    assert len(factory.made) == 2 * 2 + 1
    task.loss(model.train(), *batch(task)).backward()
    assert not model.teacher.training and model.student.training
    grads = [p.grad for _, m in factory.made for p in m.parameters() if p.requires_grad]
    assert all(g is not None and torch.isfinite(g).all() for g in grads)
    task.after_step(model, 0, 10, ALONE)
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    ours, theirs = dict(model.student.named_buffers()), dict(model.teacher.named_buffers())
    assert all(torch.equal(v, ours[k]) for k, v in theirs.items())


def test_a_teacher_whose_student_stays_says_what_the_student_says():
    model, _, task, _ = made("norm=runningrms", "model.dino.momentum_teacher=0.9")
    for step in range(3):
        inputs, temperature = batch(task, step=step)
        task.loss(model.train(), inputs, temperature)
        task.after_step(model, step, 10, ALONE)
    images = inputs[0].flatten(0, 1)
    assert torch.equal(model(images), model.eval().student.features(images))


@pytest.mark.parametrize("patch, tokens", [(16, 196), (8, 784)])
def test_the_papers_models_are_vit_b_twice(patch, tokens):
    config = load(["experiment=paper_dino", f"data.patch_size={patch}", "norm=dyt"])
    with torch.device("meta"):
        model, factory = build_model(config["model"], config["norm"], Spec("image", "", {}, classes=1000, channels=3))
        theirs = timm.create_model("vit_base_patch16_224", num_classes=0, patch_size=patch)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert len(factory.made) == 25 and model.teacher.encoder.patch_embed.num_patches == tokens
    assert count(model.student.encoder) - count(theirs) == 25  # an alpha for each norm
    assert model.student.head.last.weight.shape == (65536, 256)


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_papers():
    """Algorithm 1 with multi-crop, one pair after another, in words of the paper alone."""
    model, _, task, _ = made("model.dino.teacher_temp=0.05", "model.dino.local_crops_number=3")
    model = model.double().eval()
    model.centre.copy_(torch.randn(12, generator=torch.Generator().manual_seed(2)) / 10)
    (large, small, learns), temperature = batch(task)
    large, small, learns = large.double(), small.double(), learns.double()
    views, each = [*large.unbind(dim=1), *small.unbind(dim=1)], []
    for g in range(2):
        t = ((model.teacher(views[g], learns[0]) - model.centre) / 0.05).softmax(dim=1)
        for v in range(5):
            if v != g:
                s = (model.student(views[v], learns[0]) / 0.1).softmax(dim=1)
                each.append(-(t * s.log()).sum(dim=1))
    want = torch.stack(each)  # (pairs, B)
    assert len(want) == 2 * 4
    torch.testing.assert_close(task.loss(model, (large, small, learns), temperature.double()), want.mean())
    total, entropy, count = task.measure(model, (large, small, learns), temperature.double())
    torch.testing.assert_close(total / count, want.mean())
    assert count == 3 and 0 < entropy / count < math.log(12)


def test_the_teachers_temperature_warms_up_and_the_last_layer_waits():
    warm = ["model.dino.warmup_teacher_temp=0.02", "model.dino.teacher_temp=0.06"]
    model, _, task, _ = made(*warm, "model.dino.warmup_teacher_temp_steps=4", "model.dino.freeze_last_layer_steps=2")
    got = [batch(task, step=step)[1][0].item() for step in range(6)]
    assert got == pytest.approx([0.02, 0.03, 0.04, 0.05, 0.06, 0.06])
    images = torch.zeros(2, 1, 28, 28)
    assert task.prepare(images, images, Place(("val",), 0))[1].tolist() == pytest.approx([0.06, 0.06])
    for step, moves in ((1, False), (2, True)):
        task.loss(model, *batch(task, step=step)).backward()
        assert bool(model.student.head.last.weight.grad.abs().max() > 0) == moves
        assert model.student.head.mlp[0].weight.grad.abs().max() > 0
        model.zero_grad()


# -- views -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["model.dino.blur_sigma=2.0", "model.dino.color_jitter=0.8"]])
def test_views_depend_on_seed_step_and_place_alone(words):
    task, images = made(*words)[2], torch.randn(6, 1, 28, 28)
    views = lambda part, *place: task.prepare(part, part, Place(*place))[0][:2]  # noqa: E731
    whole, first, second = (views(images[a:b], ("train", 1, 5), a) for a, b in ((0, 6), (0, 3), (3, 6)))
    for i, shape in enumerate([(6, 2, 1, 28, 28), (6, 2, 1, 14, 14)]):
        assert whole[i].shape == shape
        torch.testing.assert_close(whole[i], torch.cat((first[i], second[i])), rtol=0, atol=1e-6)
    assert not torch.equal(whole[0], views(images, ("train", 1, 6), 0)[0])
    same = images[:1].expand(3, -1, -1, -1)
    assert not torch.equal(*views(same, ("train", 1, 5), 0)[0][:2, 0])  # each sample has its own


def draws(count=1, **fixed):
    u = torch.full((count, crops.DRAWS), 0.5)
    for i, value in fixed.items():
        u[:, int(i[1:])] = value
    return u


def test_a_crop_shows_the_box_it_says():
    """Of a picture whose pixels are their own places, a crop's mean is the middle of its box."""
    at = (torch.arange(32) + 0.5) / 32
    image = torch.stack((at.expand(32, 32), at[:, None].expand(32, 32)))[None]
    half = crops.view(image, crops.View(8, (0.25, 0.25)), draws(u2=0.0, u3=1.0))  # left edge, lower edge
    assert half.shape == (1, 2, 8, 8)
    assert half[0].mean(dim=(1, 2)).tolist() == pytest.approx([0.25, 0.75], abs=1e-3)
    assert (half[0, 0].max() - half[0, 0].min()).item() == pytest.approx(0.5 * 7 / 8, abs=1e-3)
    whole = crops.view(image, crops.View(32, (1.0, 1.0)), draws())
    torch.testing.assert_close(whole, image, atol=0.02, rtol=0)
    mirrored = crops.view(image, crops.View(32, (1.0, 1.0), flip=0.6), draws(u4=0.59))
    torch.testing.assert_close(mirrored, whole.flip(-1))
    wide = crops.cropped(image, crops.View(8, (0.3, 0.3)), *torch.tensor([[0.5], [1.0], [0.5], [0.5]]))
    spread = wide[0].amax(dim=(1, 2)) - wide[0].amin(dim=(1, 2))
    assert (spread[0] / spread[1]).item() == pytest.approx(4 / 3, rel=0.01)


def test_colours_are_changed_as_torchvision_does():
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    strength = (0.4, 0.4, 0.2, 0.0)
    u = [torch.tensor([x]) for x in (0.9, 0.2, 0.7, 0.5)]
    want = reference.adjust_brightness(image, 1 + 0.4 * 0.8)
    want = reference.adjust_contrast(want, 1 - 0.4 * 0.6)
    want = reference.adjust_saturation(want, 1 + 0.2 * 0.4)
    torch.testing.assert_close(crops.jittered(image, strength, *u), want, atol=1e-3, rtol=0)
    torch.testing.assert_close(crops.grey(image), reference.rgb_to_grayscale(image), atol=1e-3, rtol=0)
    sigma = torch.tensor([0.8])
    torch.testing.assert_close(crops.blurred(image, sigma, 0.8), reference.gaussian_blur(image, [7, 7], [0.8, 0.8]))
    inverted = crops.view(image, crops.View(8, (1.0, 1.0), solarize=1.0), draws())
    plain = crops.view(image, crops.View(8, (1.0, 1.0)), draws())
    torch.testing.assert_close(inverted, reference.solarize(plain, 0.5))


def test_hue_turns_about_grey_by_thirds():
    """A third of a turn makes red green, and grey stays grey."""
    turn = crops.turned(torch.tensor([2 * math.pi / 3]))[0]
    torch.testing.assert_close(turn, torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(crops.turned(torch.tensor([0.3]))[0] @ torch.ones(3), torch.ones(3))


# -- what features are worth -------------------------------------------------------------------------------------------


def test_neighbours_vote_with_the_papers_weights():
    known = F.normalize(torch.tensor([[1.0, 0.0], [0.9, 0.2], [0.9, 0.21], [0.0, 1.0]]), dim=-1)
    labels, of = torch.tensor([0, 1, 1, 2]), torch.tensor([[2.0, 0.0]])
    weights = ((known @ F.normalize(of, dim=-1).T)[:, 0] / 0.07).exp()
    assert weights[1] + weights[2] > weights[0]  # by the nearest alone it is 0, by weight 1
    assert knn(known, labels, of, torch.tensor([0]), 3, k=1) == 1
    assert knn(known, labels, of, torch.tensor([1]), 3, k=3) == 1
    assert knn(known, labels, of, torch.tensor([0]), 3, k=3, temperature=0.001) == 1


@pytest.mark.slow
def test_the_linear_classifier_is_scikit_learns():
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    x, y = (torch.tensor(part) for part in load_digits(return_X_y=True))
    x = x.float() / 16
    got = linear(x[:1000], y[:1000], x[1000:], y[1000:], 10)
    theirs = LogisticRegression(C=1.0, max_iter=1000).fit(x[:1000], y[:1000]).score(x[1000:], y[1000:])
    assert got == pytest.approx(theirs, abs=0.03) and got > 0.88


def test_neighbours_are_nearest_first():
    cosines, places = nearest(torch.eye(3), torch.tensor([[3.0, 2.0, 1.0], [0.0, 0.0, -5.0]]), 2)
    assert places[0].tolist() == [0, 1] and cosines[0].tolist() == pytest.approx([3 / 14**0.5, 2 / 14**0.5])
    assert 2 not in places[1].tolist()


def test_pixels_are_measured_once_for_a_data_set(monkeypatch):
    data = open_data(load([*TINY_DINO])["data"])
    first = worth_of_pixels(data, "val")
    assert first["top1_knn_pixels"] > 0.9 and 0.85 < first["top1_linear_pixels"] < 0.95
    monkeypatch.setattr("dyt.tasks.probes.worth", None)  # not called again
    assert worth_of_pixels(data, "val") == first


def test_what_is_kept_of_a_data_set_goes_by_its_columns_and_what_is_left_out(tmp_path, monkeypatch):
    """Of a table with two labels, one of which the pixels tell and one they do not."""
    rng = np.random.default_rng(0)
    labels = {"told": rng.integers(0, 2, 120), "untold": rng.integers(0, 2, 120)}
    pixels = [rng.integers(0, 60, (8, 8)).astype(np.uint8) + np.uint8(150) * np.uint8(x) for x in labels["told"]]
    cells = []
    for picture in pixels:
        Image.fromarray(picture).save(stream := io.BytesIO(), "png")
        cells.append({"bytes": stream.getvalue(), "path": None})
    pq.write_table(pa.table({"image": cells, "other": cells[::-1], **labels}), tmp_path / "t.parquet")
    words = ["model=vit_nano", "data=hf_image", f"data.path={tmp_path / 't.parquet'}", "data.img_size=8"]
    words += ["data.patch_size=4", "data.mean=[0.5]", "data.std=[0.5]", "data.val_fraction=0.3"]

    def of(label, image="image", *more):
        keys = [f"data.label_key={label}", f"data.image_key={image}", f"data.cache_dir={tmp_path / 'cache'}"]
        return open_data(load([*words, *keys, *more])["data"])

    assert worth_of_pixels(of("told"), "val")["top1_linear_pixels"] == 1.0
    assert worth_of_pixels(of("untold"), "val")["top1_linear_pixels"] < 0.8
    assert worth_of_pixels(of("told", "other"), "val")["top1_linear_pixels"] < 0.8
    trained = []

    def train(data, folder):
        trained.append(data)
        torch.save(classifier(1, 2).state_dict(), folder / "classifier.pt")
        return {"top1": len(trained)}

    monkeypatch.setattr("dyt.tasks.features._train", train)
    sets = [of("told"), of("untold"), of("told", "other"), of("told", "image", "data.on_error=skip")]
    assert [Features.of(data, torch.device("cpu")).top1 for data in [*sets, *sets]] == [1, 2, 3, 4] * 2


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Summary and folder of a run of four steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("dino"))
        words = [*TINY_DINO, "norm=dyt", *SHORT[1:], "trainer.max_steps=4", "trainer.eval_every=2"]
        summary, folder = train(*words, out=str(tmp_path_factory.mktemp("runs")))
    return summary, folder


def test_a_run_ends_with_what_its_features_are_worth_and_eval_finds_the_same(pretrained):
    from eval import evaluate_run, parse

    summary, folder = pretrained
    assert [row["step"] for row in rows_of(folder) if "val/loss" in row] == [2, 4]
    found, picture = evaluate_run(parse([f"run={folder}"]))
    # The best is the finished one: features are measured at the end.
    assert found["step"] == 4
    for name in ("knn", "linear", "knn_pixels", "linear_pixels"):
        assert found[f"val/top1_{name}"] == summary["final"][f"val/top1_{name}"]
    assert Image.open(folder / "samples.png").size[0] > 200 and picture.size[0] > 200


def test_a_vit_takes_the_teachers_encoder_and_keeps_its_own_head(pretrained):
    _, source = pretrained
    still = ["norm=dyt", *SHORT, "optim.lr=0", "optim.min_lr=0"]
    _, fresh = train(*TINY_VIT, *still)
    _, tuned = train(*TINY_VIT, *still, f"init_from={source}")
    theirs, ours, scratch = (checkpoint.read_weights(str(f)) for f in (source, tuned, fresh))
    assert not all(torch.equal(v, theirs[k.replace("teacher", "student")]) for k, v in theirs.items() if "teacher" in k)
    for key, value in ours.items():
        assert torch.equal(value, scratch[key] if key.startswith("head.") else theirs[f"teacher.encoder.{key}"]), key
    with pytest.raises(ValueError, match="weights of another model or norm"):
        train(*TINY_VIT, "norm=rmsnorm", *SHORT, f"init_from={source}")


@pytest.mark.slow
def test_what_a_run_takes_is_foreseen():
    assert train(*TINY_DINO, "trainer.dry_run=true")[0]["status"] == "dry run"


def test_each_prepared_tensor_has_its_samples_first_and_a_new_step_begins_anew():
    """The forecast takes any number of samples, and leaves nothing behind that a step's centre would count."""
    task = made()[2]
    (large, small, learns), temperature = batch(task, count=5)
    assert {len(part) for part in (large, small, learns, temperature)} == {5}
    task.seen = torch.zeros(13)
    batch(task, step=1)
    assert task.seen is None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_begins_without_collapse():
    """After a quarter of the demo's steps its features are no worse than at the start; at its end they are better."""
    words = ["experiment=demo_dino", "norm=layernorm", "logger.mode=disabled", "trainer.eval_every=250"]
    trained, untrained = (train(*words, f"trainer.max_steps={n}", *more)[0]["final"] for n, more in
                          ((250, []), (1, ["optim.lr=0", "optim.min_lr=0"])))  # fmt: skip
    assert trained["val/top1_knn"] > untrained["val/top1_knn"] - 0.03
    assert 0.5 < trained["val/entropy"] < math.log(256) - 0.1
    assert trained["val/top1_linear_pixels"] == untrained["val/top1_linear_pixels"]


@pytest.mark.parametrize("way", [("bf16", "block"), ("fp32", "selective")], ids="-".join)
def test_its_activations_may_be_computed_twice_and_change_no_bit(way):
    words = [*TINY_DINO, *SHORT, "trainer.max_steps=2", f"trainer.precision={way[0]}"]
    (_, kept), (_, twice) = (train(*words, f"trainer.checkpointing={c}", out=c) for c in ("none", way[1]))
    one, other = (checkpoint.read_weights(str(folder)) for folder in (kept, twice))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "words, message",
    [
        (["model=dino_nano", "data=stdlib"], "model=dino_nano is for images and data=stdlib is texts"),
        ([*TINY_DINO, "model.dino.local_crops_size=10"], "model.dino.local_crops_size=10 is not a multiple of"),
        ([*TINY_DINO, "model.dino.teacher_temp=0"], "model.dino.teacher_temp=0: must be above 0"),
        ([*TINY_DINO, "model.dino.momentum_teacher=1"], "model.dino.momentum_teacher=1: must be at least 0"),
        ([*TINY_DINO, "model.dino.global_crops_scale=[0.5]"], "model.dino.global_crops_scale=.0.5.: two shares"),
        ([*TINY_DINO, "model.dino.local_crops_number=-1"], "model.dino.local_crops_number=-1: must be at least 0"),
        ([*TINY_DINO, "model.outputs=0"], "model.outputs=0: must be at least 1"),
        ([*TINY_DINO, "model.pool=map"], "model.pool='?map'?: choose from token, avg"),
        (
            [*TINY_DINO, "trainer.precision=bf16", "trainer.checkpointing=selective"],
            "trainer.checkpointing=selective: DINO's blocks run twice .*; type trainer.checkpointing=block",
        ),
        ([*TINY_DINO, "+model.dino.temp=1"], "model.dino.temp: unknown key; did you mean"),
        (
            ["model=dino_nano", "model.timm_name=convnext_base", "data.img_size=32", "data.patch_size=8"],
            "model.patch_size: convnext_base has no such argument",
        ),
    ],
)
def test_wrong_words_get_one_line(words, message):
    with pytest.raises(ValueError, match=message):
        train(*SHORT, *words)
