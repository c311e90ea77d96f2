"""Pictures of every mode and storage: scaled, laid on white, upright, or refused by file name."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dyt.config.compose import load
from dyt.data import open_data
from dyt.data.images import Pictures
from dyt.data.pictures import as_mode, of_pixels, opened

from .helpers import pictures_at

GREY = np.array([[0, 255], [128, 64]], dtype=np.uint8)


def stored(image: Image.Image, kind: str, **how) -> Image.Image:
    """The picture after it was written as `kind` and opened again."""
    stream = io.BytesIO()
    image.save(stream, kind, **how)
    return opened({"bytes": stream.getvalue(), "path": None})


def pixels(image: Image.Image, mode: str = "L") -> list:
    return np.asarray(as_mode(image, mode)).tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_grey_and_colour_come_out_as_they_went_in(kind):
    assert pixels(stored(Image.fromarray(GREY), kind)) == GREY.tolist()
    colour = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
    assert pixels(stored(Image.fromarray(colour), kind), "RGB") == colour.tolist()
    assert pixels(stored(Image.fromarray(GREY), kind), "RGB") == np.stack([GREY] * 3, axis=-1).tolist()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled(kind, order):
    deep = (GREY.astype(np.uint16) * 257).astype(order)
    image = Image.fromarray(deep)
    assert image.mode in ("I;16", "I;16B")
    assert pixels(stored(image, kind)) == GREY.tolist() == pixels(image)


def test_what_is_transparent_shows_a_white_ground():
    """A black digit on nothing is black on white, not black on black."""
    alpha = np.array([[0, 255], [0, 51]], dtype=np.uint8)
    black = np.zeros((2, 2), dtype=np.uint8)
    want = [[255, 0], [255, 204]]
    assert pixels(stored(Image.fromarray(np.stack([black, alpha], -1), "LA"), "PNG")) == want
    assert pixels(stored(Image.fromarray(np.stack([black] * 3 + [alpha], -1), "RGBA"), "PNG")) == want
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 10, 10, 10])
    palette.putdata([0, 1])
    for kind in ("PNG", "GIF"):
        assert pixels(stored(palette, kind, transparency=0)) == [[255, 10]]
    assert pixels(stored(Image.fromarray(GREY), "PNG", transparency=0)) == [[255, 255], [128, 64]]


def test_other_modes():
    assert pixels(stored(Image.fromarray(GREY > 100), "PNG")) == [[0, 255], [255, 0]]
    cmyk = stored(Image.new("CMYK", (1, 1), (0, 0, 0, 255)), "TIFF")
    assert cmyk.mode == "CMYK" and pixels(cmyk, "RGB") == [[[0, 0, 0]]]
    for mode, value in (("F", 0.5), ("I", 70000)):
        with pytest.raises(ValueError, match=f"mode {mode}: how much is white is not known"):
            as_mode(stored(Image.new(mode, (2, 2), value), "TIFF"), "L")


@pytest.mark.parametrize("storage", ["folder", "image column", "bytes column"])
def test_orientation_is_applied_wherever_a_picture_comes_from(storage, tmp_path):
    """Left half white, and EXIF says: turn by 90 degrees (6), so the top half is white."""
    import datasets

    exif = Image.Exif()
    exif[0x0112] = 6
    half = np.zeros((8, 8), dtype=np.uint8)
    half[:, :4] = 255
    stream = io.BytesIO()
    Image.fromarray(half).save(stream, "PNG", exif=exif)
    cells = [{"bytes": stream.getvalue(), "path": None}] * 8
    words = ["model=vit_nano", "data.img_size=8", "data.patch_size=4", "data.mean=[0]", "data.std=[1]"]
    words += ["data.val_fraction=0.25"]
    if storage == "folder":
        for i in range(8):
            (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / "ab"[i % 2] / f"{i}.png").write_bytes(stream.getvalue())
        words += ["data=imagefolder", "data.path=set"]
    else:
        column = cells if storage == "image column" else [c["bytes"] for c in cells]
        kind = datasets.Image() if storage == "image column" else datasets.Value("binary")
        features = datasets.Features({"image": kind, "label": datasets.Value("int64")})
        made = datasets.Dataset.from_dict({"image": column, "label": [0, 1] * 4}, features=features)
        made.to_parquet(tmp_path / "t.parquet")
        words += ["data=hf_image", "data.path=t.parquet"]
    images, _ = next(iter(open_data(load(words)["data"]).eval_batches("val")))
    assert images[0, 0, 0].tolist() == [1.0] * 8 and images[0, 0, -1].tolist() == [0.0] * 8


def test_a_float_picture_in_a_folder_is_refused_by_its_name(tmp_path):
    for label in "ab":
        for i in range(4):
            (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
            Image.new("F", (8, 8), 0.5).save(tmp_path / "set" / label / f"{label}{i}.tiff")
    words = ["model=vit_nano", "data=imagefolder", "data.path=set", "data.img_size=8", "data.patch_size=4"]
    words += ["data.workers=0"]
    with pytest.raises(ValueError, match=r"val image in row 0 \(.*set/a/a\d.tiff\) cannot be decoded: mode F") as error:
        next(iter(open_data(load([*words, "data.val_fraction=0.25"])["data"]).eval_batches("val")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "more", [["data.scale=null", "data.crop_pct=0.5"], ["data.scale=[0.5,1.0]"]], ids=["cropped", "augmented"]
)
def test_the_training_split_is_evaluated_the_same_whether_it_was_trained_on_or_not(more, tmp_path):
    """What training kept of a picture, resized or whole, is not what evaluation reads. MAE and DINO do both."""
    path = pictures_at(tmp_path / "set", "a", "b")
    words = ["model=vit_nano", "data=imagefolder", f"data.path={path}", "data.img_size=8", "data.patch_size=4"]
    fresh, trained = (open_data(load([*words, "data.workers=0", *more])["data"]) for _ in range(2))
    train = Pictures(trained, "train", 0).__getitems__([(0, 0), (0, 1)])[0]
    evaluated = Pictures(trained, "train", None).__getitems__([(0, 0), (0, 1)])[0]
    assert torch.equal(evaluated, Pictures(fresh, "train", None).__getitems__([(0, 0), (0, 1)])[0])
    assert torch.equal(train, Pictures(trained, "train", 0).__getitems__([(0, 0), (0, 1)])[0])
    assert torch.equal(train, Pictures(fresh, "train", 0).__getitems__([(0, 0), (0, 1)])[0])


def test_eval_names_a_broken_picture_in_one_line_from_a_loader_process_too(tmp_path, capsys):
    import eval as evaluation

    from .helpers import TINY_VIT, train

    for label, grey in (("a", 10), ("b", 200)):
        for split in ("train", "val"):
            for i in range(4):
                (tmp_path / "set" / split / label).mkdir(parents=True, exist_ok=True)
                Image.new("L", (8, 8), grey).save(tmp_path / "set" / split / label / f"{i}.png")
    words = [*TINY_VIT, "data=imagefolder", "data.path=set", "data.img_size=8", "data.patch_size=4", "norm=layernorm"]
    words += ["data.batch_size=4", "trainer.max_steps=1", "logger.mode=disabled", "data.workers=1"]
    _, run = train(*words)
    (tmp_path / "set/val/b/2.png").write_bytes(b"no picture")
    assert evaluation.main([f"run={run}", "data.path=set"]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("eval.py")]
    assert len(said) == 1 and "val/b/2.png) cannot be decoded" in said[0] and "Traceback" not in said[0]


def parts(*words, train):
    """The steps of the transform of a config's pictures, by name."""
    from dyt.data.images import build_transform

    steps = build_transform(load(["experiment=paper_imagenet", *words])["data"], train).transforms
    return {type(step).__name__: step for step in steps}


def test_pictures_of_the_imagenet_recipe_are_augmented_as_it_says():
    found = parts(train=True)
    assert list(found)[:3] == ["RandomResizedCropAndInterpolation", "RandomHorizontalFlip", "RandAugment"]
    assert found["RandomResizedCropAndInterpolation"].scale == (0.08, 1.0)
    assert found["RandomResizedCropAndInterpolation"].size == (224, 224)
    assert found["RandomHorizontalFlip"].p == 0.5
    assert {(op.magnitude, op.magnitude_std) for op in found["RandAugment"].ops} == {(9, 0.5)}
    assert found["Normalize"].mean.tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert found["Normalize"].std.tolist() == pytest.approx([0.229, 0.224, 0.225])
    erasing = found["RandomErasing"]
    assert (erasing.probability, erasing.mode, list(found)[-1]) == (0.25, "pixel", "RandomErasing")
    # timm leaves colours to RandAugment; without it they are jittered by the config's 0.4.
    jitter = parts("data.auto_augment=null", train=True)["ColorJitter"]
    assert jitter.brightness == jitter.contrast == jitter.saturation == pytest.approx((0.6, 1.4))
    assert "ColorJitter" not in found | parts("data.auto_augment=null", "data.color_jitter=0", train=True)


def test_pictures_of_the_imagenet_recipe_are_evaluated_on_the_centre_of_256():
    found = parts(train=False)
    assert list(found) == ["Resize", "CenterCrop", "MaybeToTensor", "Normalize"]
    assert (found["Resize"].size, found["CenterCrop"].size) == (256, (224, 224))
    assert parts("data.crop_pct=1", train=False)["Resize"].size == 224


@pytest.mark.parametrize(
    "array, want",
    [
        (GREY, GREY),
        (GREY[None], GREY),
        (GREY[..., None], GREY),
        (GREY.astype(np.int64), GREY),
        (GREY.astype(np.uint16) * 257, GREY),
        (GREY > 100, (GREY > 100) * 255),
    ],
)
def test_arrays_of_pixels(array, want):
    assert np.asarray(of_pixels(array)).tolist() == np.asarray(want).tolist()


@pytest.mark.parametrize(
    "array, message",
    [
        (GREY / 255, "how much is white is not known"),
        (GREY.astype(int) - 1, "below 0"),
        (GREY.astype(int) + 70000, "above 65535"),
        (GREY.astype(int) + 200, "store them as uint16"),
        (np.zeros((2, 2, 5), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((0, 2), np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(array, message):
    with pytest.raises(ValueError, match=message):
        of_pixels(array)


@pytest.mark.parametrize("kind", ["uint16", "uint8", "int64"])
@pytest.mark.parametrize("column", ["array", "lists"])
def test_how_bright_a_column_of_pixels_is_does_not_depend_on_the_picture(column, kind, tmp_path):
    """Its cells come as lists of int64. Dark pictures of 16 bits were taken for 8 once: 257 times too bright."""
    import datasets

    shades = [200, 60000] if kind == "uint16" else [200, 100]
    numbers = datasets.List(datasets.List(datasets.Value(kind)))
    features = {"image": datasets.Array2D((8, 8), kind) if column == "array" else numbers}
    features = datasets.Features({**features, "label": datasets.Value("int64")})

    def read(shades) -> list:
        made = {"image": [np.full((8, 8), shade) for shade in shades] * 4, "label": [0, 1] * 4}
        datasets.Dataset.from_dict(made, features=features).to_parquet(tmp_path / "t.parquet")
        words = ["model=vit_nano", "data=hf_image", "data.path=t.parquet", "data.img_size=8", "data.patch_size=4"]
        words += ["data.mean=[0]", "data.std=[1]", "data.val_fraction=0.25", "data.workers=0"]
        images, labels = next(iter(open_data(load(words)["data"]).eval_batches("val")))
        return [images[labels == label].mean().item() for label in (0, 1)]

    white = 65535 if kind == "uint16" else 255
    assert read(shades) == pytest.approx([shade / white for shade in shades], abs=1 / 255)
    if kind == "int64":
        with pytest.raises(ValueError, match="pixels of kind int64 above 255: .*store them as uint16") as refused:
            read([200, 60000])
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("cell", [None, "a text", {"bytes": None, "path": None}])
def test_cells_that_hold_no_picture_are_refused(cell):
    with pytest.raises((ValueError, OSError)):
        opened(cell)


@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B", "I", "F", "YCbCr", "HSV", "LAB"]),
    st.sampled_from(["PNG", "TIFF", "array"]),
    st.sampled_from(["L", "RGB"]),
    st.integers(0, 255),
)
@settings(max_examples=80, deadline=None)
def test_content_in_is_content_out_or_one_line(mode, storage, out, value):
    """A picture of one grey value, in any mode that can hold it, comes out as that value."""
    grey = np.full((3, 4), value, dtype=np.uint8)
    if mode in ("I;16", "I;16B"):
        image = Image.fromarray((grey.astype(np.uint16) * 257).astype("<u2" if mode == "I;16" else ">u2"))
    elif mode in ("I", "F"):
        image = Image.fromarray(grey).convert(mode)
    elif mode == "LAB":
        image = Image.new("LAB", (4, 3))
    else:
        image = Image.fromarray(grey).convert(mode)
    try:
        image = stored(image, storage) if storage != "array" else of_pixels(np.asarray(image))
    except (OSError, ValueError):
        return  # Pillow does not write this mode in this format, or the array says nothing of white
    if storage == "array" and mode not in ("L", "RGB", "RGBA", "I;16", "I;16B"):
        return  # an array does not say which colour model it is in
    try:
        seen = np.asarray(as_mode(image, out))
    except (ValueError, OSError) as error:
        assert "\n" not in str(error) and (mode in ("F", "I", "LAB") or (mode, storage) == ("YCbCr", "TIFF"))
        return
    if mode == "I":
        return  # a PNG of 16 bits: its white is 65535, and this one is nearly black
    want = (255 if value > 127 else 0) if mode == "1" else value
    slack = 2 if mode in ("YCbCr", "HSV", "CMYK", "P") else 0
    assert mode == "1" or abs(seen.astype(int) - want).max() <= slack
    assert seen.shape[:2] == (3, 4)
