"""MAE: blocks and loss are the reference formula; a ViT takes the encoder, to learn all of it or the head alone."""

import pytest
import timm
import torch
from PIL import Image

from dyt.config.compose import load, options
from dyt.data import Spec, open_data
from dyt.data.order import seed_all
from dyt.rundir import checkpoint
from dyt.tasks import Place, build_task
from dyt.tasks.pictures import patchify, pixel_range, unpatchify
from models import build_model
from models.methods import METHODS

from .helpers import TINY_DINO, TINY_MAE, TINY_VIT, pictures_at, train

SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "logger.mode=disabled"]


def made(*words):
    config = load([*TINY_MAE, *words])
    seed_all(0)
    model, factory = build_model(config["model"], config["norm"], Spec("image", "", {}, classes=10, channels=1))
    return model, factory, build_task(config, 10), config


def test_patches_come_back_and_are_ordered_as_in_the_official_code():
    images = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8)
    patches = patchify(images, 4)
    official = torch.einsum("nchpwq->nhwpqc", images.reshape(2, 3, 2, 4, 2, 4)).reshape(2, 4, 48)
    assert torch.equal(patches, official) and torch.equal(unpatchify(patches, 4), images)


def test_the_encoder_sees_its_patches_alone_and_is_timms_with_the_same_weights():
    """Of all patches kept, in order, the encoder is a timm ViT; what is not kept changes nothing."""
    model = made("norm=layernorm")[0].double().eval()
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, global_pool="avg", in_chans=1, img_size=28,
                               patch_size=7, embed_dim=16, depth=2, num_heads=2).double().eval()  # fmt: skip
    theirs.load_state_dict(model.encoder.state_dict())
    images = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    every = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(model.encode(images, every), theirs.fc_norm(theirs.forward_features(images)))
    torch.testing.assert_close(model(images), theirs(images))  # the features that are measured at the end
    kept = torch.tensor([[3, 0, 7], [1, 2, 15]])
    hidden = torch.ones(2, 16, dtype=torch.bool).scatter(1, kept, False)
    changed = unpatchify(patchify(images, 7).masked_fill(hidden[..., None], 9.0), 7)
    assert torch.equal(model(images, kept), model(changed, kept))


def test_the_encoder_starts_as_in_maes_own_code():
    """Xavier in every matrix of it, a patch's projection taken as one; class token of std 0.02 (models_mae.py)."""
    large = ("model.dim=96", "model.heads=4", "data.patch_size=7")
    encoder = made(*large, "model.encoder_init=mae")[0].encoder
    matrices = {n: m.weight for n, m in encoder.named_modules() if isinstance(m, torch.nn.Linear)}
    matrices["patch_embed.proj"] = encoder.patch_embed.proj.weight.flatten(1)
    assert len(matrices) == 4 * 2 + 1
    for name, w in matrices.items():
        bound = (6 / sum(w.shape)) ** 0.5
        assert 0.95 * bound < w.abs().max().item() <= bound, name
        assert w.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), name
    assert encoder.cls_token.std().item() == pytest.approx(0.02, rel=0.25)
    assert made(*large)[0].encoder.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)  # timm's


def test_a_study_at_paper_scale_tunes_what_was_pretrained():
    from dyt.config.identity import base_config
    from dyt.studies.running.study import Study

    for run in Study("mae").runs("paper"):
        config = run.config()
        base, _ = base_config(config)
        size = config["model"]["name"].removeprefix("vit_")
        assert (base["model"]["name"], base["trainer"]["max_epochs"]) == (f"mae_{size}", 800)
        assert base["norm"] == config["norm"] and base["model"]["encoder_init"] == "mae"
        with torch.device("meta"):
            spec = Spec("image", "", {}, classes=1000, channels=3)
            tuned, pretrained = (build_model(c["model"], c["norm"], spec)[0] for c in (config, base))
        theirs = {n: p.shape for n, p in pretrained.encoder.state_dict().items()}
        assert {n: p.shape for n, p in tuned.state_dict().items() if not n.startswith("head.")} == theirs


def test_a_norm_before_the_blocks_is_called():
    """In CLIP's ViTs; timm's own features are the oracle, and no parameter is left out of what is learned."""
    model = made("norm=layernorm", "model.timm_name=vit_xsmall_patch16_clip_224")[0]
    for norm in (model.encoder.norm_pre, model.encoder.fc_norm):
        torch.nn.init.normal_(norm.weight)
    images, every = torch.randn(2, 1, 28, 28), torch.arange(16).expand(2, -1)
    model(images, every).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(p.grad.abs().max() > 0 for p in model.encoder.norm_pre.parameters())
    want = model.encoder.fc_norm(model.encoder.forward_features(images))
    torch.testing.assert_close(model.encode(images, every), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("words", [TINY_MAE, TINY_DINO], ids=["mae", "dino"])
def test_an_encoder_without_one_class_token_is_refused(words):
    config = load(words)
    for name, why in {
        "vit_medium_patch16_gap_240": "no class token",
        "vit_base_patch16_siglip_224": "no class token",
        "vit_little_patch16_reg4_gap_256": "no class token",
        "vit_small_patch14_reg4_dinov2": "4 register tokens",
        "flexivit_small": "no position for its class token",
    }.items():
        config["model"]["timm_name"] = name
        with pytest.raises(ValueError) as refused, torch.device("meta"):
            build_model(config["model"], config["norm"], Spec("image", "", {}, classes=10, channels=1))
        assert str(refused.value).startswith(f"model.timm_name={name}: has {why}")


def test_an_encoder_whose_patches_come_as_a_grid_is_timms_too():
    """timm's test_vit takes pictures of any size: its patches are (B, H, W, D)."""
    model = made("norm=layernorm", "model.timm_name=test_vit")[0].eval()
    images, every = torch.randn(2, 1, 28, 28), torch.arange(16).expand(2, -1)
    want = model.encoder.fc_norm(model.encoder.forward_features(images))
    torch.testing.assert_close(model.encode(images, every), want)


def test_the_decoder_puts_kept_tokens_at_their_places_and_mask_tokens_elsewhere():
    """The official code's way: append mask tokens, unshuffle, add positions, blocks, norm, without the class token."""
    decoder = made("norm=layernorm")[0].double().eval().decoder
    x, order = torch.randn(2, 1 + 4, 16, dtype=torch.float64), torch.stack([torch.randperm(16) for _ in range(2)])
    y = decoder.embed(x)
    tokens = torch.cat((y[:, 1:], decoder.mask_token.repeat(2, 12, 1)), dim=1)
    tokens = tokens.gather(1, order.argsort(dim=1)[..., None].repeat(1, 1, tokens.shape[-1])) + decoder.positions
    y = torch.cat((y[:, :1], tokens), dim=1)
    for block in decoder.blocks:
        y = block(y)
    torch.testing.assert_close(decoder(x, order[:, :4]), decoder.pred(decoder.norm(y))[:, 1:])


@pytest.mark.parametrize("norm_pix", [True, False])
def test_the_loss_is_of_masked_patches_alone(norm_pix):
    model, _, task, _ = made(f"model.mae.norm_pix_loss={str(norm_pix).lower()}")
    images = torch.randn(3, 1, 28, 28)
    (same, kept), targets = task.prepare(images, torch.zeros(3), Place(("train", 0, 0), 0))
    assert kept.shape == (3, 4) and torch.equal(same, targets)  # a quarter of 16
    got, want = model(images, kept), patchify(images, 7)
    if norm_pix:
        want = (want - want.mean(-1, keepdim=True)) / (want.var(-1, keepdim=True) + 1e-6) ** 0.5
    each = [((got[b, n] - want[b, n]) ** 2).mean() for b in range(3) for n in range(16) if n not in kept[b].tolist()]
    assert len(each) == 36
    torch.testing.assert_close(task.loss(model, (images, kept), targets), torch.stack(each).mean())
    total, count = task.measure(model, (images, kept), targets)
    assert count == 3
    torch.testing.assert_close(total / count, torch.stack(each).mean())


def test_which_patches_are_kept_depends_on_seed_step_and_place_alone():
    task, images = made()[2], torch.randn(6, 1, 28, 28)
    kept = lambda part, *place: task.prepare(part, torch.zeros(len(part)), Place(*place))[0][1]  # noqa: E731
    whole = kept(images, ("train", 1, 5), 0)
    assert torch.equal(whole, torch.cat((kept(images[:3], ("train", 1, 5), 0), kept(images[3:], ("train", 1, 5), 3))))
    assert not torch.equal(whole, kept(images, ("train", 1, 6), 0)) and len(set(map(tuple, whole.tolist()))) > 1


@pytest.mark.parametrize("norm", [pytest.param("layernorm", marks=pytest.mark.slow), "dyt"])
def test_a_vit_takes_the_encoder_and_keeps_its_own_head(norm):
    _, source = train(*TINY_MAE, f"norm={norm}", *SHORT)
    assert Image.open(source / "samples.png").size[0] > 200
    still = ["optim.lr=0", "optim.min_lr=0"]
    _, fresh = train(*TINY_VIT, f"norm={norm}", *SHORT, *still)
    _, tuned = train(*TINY_VIT, f"norm={norm}", *SHORT, *still, f"init_from={source}")
    theirs, ours, scratch = (checkpoint.read_weights(str(f)) for f in (source, tuned, fresh))
    for key, value in ours.items():
        assert torch.equal(value, scratch[key] if key.startswith("head.") else theirs[f"encoder.{key}"]), key
    with pytest.raises(ValueError, match="weights of another model or norm"):
        train(*TINY_VIT, "norm=rmsnorm", *SHORT, f"init_from={source}")


@pytest.mark.parametrize("pretraining", ["mae", "dino"])
def test_what_was_learned_without_labels_is_for_data_of_other_classes(pretraining, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, then = pictures_at(tmp_path / "first", "cat", "dog"), pictures_at(tmp_path / "then", "oak", "elm", "fir")
    small = ["data=imagefolder", "data.img_size=16", "data.patch_size=8", "data.batch_size=4", *SHORT]
    words = TINY_MAE if pretraining == "mae" else [*TINY_DINO, "model.dino.local_crops_size=8"]
    _, run = train(*words, *small, f"data.path={first}")
    summary, vit = train(*TINY_VIT, *small, f"data.path={then}", f"init_from={run}")
    assert summary["status"] == "finished"
    assert checkpoint.read_weights(str(vit))["head.weight"].shape == (3, 16)
    with pytest.raises(ValueError, match="class cat is unknown to the weights, whose classes are elm, fir, oak"):
        train(*TINY_VIT, *small, f"data.path={first}", f"init_from={vit}")


def test_a_linear_probe_leaves_all_but_the_head_alone():
    base = f"init_from={' '.join([*TINY_MAE[:4], *TINY_MAE[5:]])} norm=dyt trainer.max_steps=3 trainer.eval_batches=1"
    summary, folder = train(*TINY_VIT, "norm=dyt", "model.frozen=true", *SHORT, base)
    assert summary["status"] == "finished"
    (source,) = [p for p in folder.parent.iterdir() if p.name.startswith("mae_nano")]
    theirs, ours = (checkpoint.read_weights(str(f)) for f in (source, folder))
    assert all(torch.equal(v, theirs[f"encoder.{k}"]) for k, v in ours.items() if not k.startswith("head."))
    assert ours["head.1.weight"].abs().sum() > 0 and ours["head.0.running_var"].std() > 0


KINDS = [[f"norm={norm}"] for norm in options("norm")] + [["norm=none", f"model.method={method}"] for method in METHODS]


@pytest.mark.parametrize("words", KINDS, ids=lambda words: words[-1])
def test_a_linear_probe_moves_no_state_of_its_encoder_whatever_the_norm(words):
    from dyt.training.average import Average

    config = load([*TINY_VIT, *words, "model.frozen=true", "model.drop_path=0.5", "model.dropout=0.5"])
    seed_all(0)
    model, _ = build_model(config["model"], config["norm"], Spec("image", "", {}, classes=10, channels=1))
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rate, seen = torch.optim.SGD(model.head.parameters(), lr=0.1), []
    model.head_drop.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0], out)))
    for _ in range(2):  # after an evaluation too, and of a copy
        for trained in (model, Average(model, 0.9).module):
            trained.train()(images).square().mean().backward()
        rate.step()
        model.eval()(images)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved and all(k.startswith("head.") for k in moved)
    (first, dropped), *others = seen
    assert all(torch.equal(x, first) for x, _ in others) and not torch.equal(dropped, first)


@pytest.mark.parametrize(
    "words, message",
    [
        (["model=mae_nano", "data=stdlib"], "model=mae_nano is for images and data=stdlib is texts"),
        ([*TINY_MAE, "model.mae.mask_ratio=1"], "model.mae.mask_ratio=1: must be above 0 and below 1"),
        ([*TINY_MAE, "data.patch_size=28"], "data.patch_size=28: pictures of 28 are one patch; take smaller ones"),
        ([*TINY_MAE, "data.patch_size=1"], "data.patch_size=1: a patch of one value has no spread"),
        ([*TINY_MAE, "model.decoder_heads=3"], "model.decoder_dim=8 must be a multiple of model.decoder_heads=3"),
        ([*TINY_MAE, "+model.mae.ratio=1"], "model.mae.ratio: unknown key; did you mean"),
        (
            [*TINY_MAE, "model.timm_name=convnext_base", "data.img_size=32", "data.patch_size=8"],
            "model.patch_size: convnext_base has no such argument",
        ),
        (
            ["model=convnext_base", "model.frozen=true", "data.img_size=32"],
            "model.frozen=true: convnext_base is no ViT",
        ),
    ],
)
def test_wrong_words_get_one_line(words, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        train(*SHORT, *words)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demos_probe_beats_that_of_an_untrained_encoder():
    """After a twelfth of the demo's pretraining, and a third of its probe."""
    first = "init_from='model=mae_nano norm=layernorm optim.lr=2e-3 trainer.max_steps=500 trainer.eval_every=500'"
    words = ["experiment=demo_mae", "norm=layernorm", "logger.mode=disabled", "trainer.max_epochs=3", first]
    pretrained, untrained = (train(*words, *more)[0]["final"]["val/top1"] for more in ([], ["init_from=null"]))
    assert pretrained > untrained + 0.05


def test_the_picture_shows_what_is_seen_made_and_true():
    model, _, task, config = made()
    data = open_data(config["data"])
    with torch.no_grad():
        found, picture = task.at_end(model.eval(), data, "val", torch.device("cpu"))
    assert found["top1_linear_pixels"] > 0.85 > found["top1_knn"] > 0.1 and found["top1_linear"] > 0.2  # untrained
    images, _ = next(iter(data.eval_batches("val", limit=1)))
    true = pixel_range(config["data"])[0](images[:1])
    zoom = 512 // (10 * 29 - 1)
    assert picture.size == ((10 * 29 - 1) * zoom, (3 * 29 - 1) * zoom)
    last = torch.tensor([[picture.getpixel((x * zoom, (58 + y) * zoom)) for x in range(28)] for y in range(28)])
    assert ((last / 127.5 - 1) - true[0, 0]).abs().max() < 0.01
