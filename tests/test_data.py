"""Data: the same samples for the same (seed, step), splits apart, and clear words where something is missing."""

import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dyt.config.compose import load
from dyt.data import open_data
from dyt.data.order import Order, derive, pieces_of
from dyt.data.sources import STDLIB, locate
from dyt.data.text import Tokenizer

TEXT = ["model=gpt_nano"]
IMAGE = ["model=vit_nano"]
WORDS = "".join(f"line {i} of a small text with some words in it\n" for i in range(400))


def data(*words, context=16):
    return open_data(load(list(words))["data"], context)


def batches_of(source, start, stop, seed=0, **share):
    order = Order(source.samples, source.data["batch_size"], seed, **share)
    return list(source.train_batches(order, start, stop))


# -- order ---------------------------------------------------------------------------------------------------------


def test_each_epoch_is_one_permutation():
    order = Order(103, 10, seed=3)
    assert order.steps_per_epoch == 10
    epochs = [[key for s in range(e * 10, e * 10 + 10) for key in order.of_step(s)[0]] for e in range(2)]
    for e, keys in enumerate(epochs):
        assert {k[0] for k in keys} == {e} and len({k[1] for k in keys}) == 100
    assert [k[1] for k in epochs[0]] != [k[1] for k in epochs[1]]
    assert Order(103, 10, seed=3).of_step(17) == order.of_step(17) != Order(103, 10, seed=4).of_step(17)


def test_pieces_and_ranks_share_out_exactly_the_step():
    whole = Order(100, 12, seed=0).of_step(5)[0]
    shared = [Order(100, 12, 0, pieces=2, rank=r, world=3).of_step(5) for r in range(3)]
    assert sorted(k for rank in shared for piece in rank for k in piece) == sorted(whole)
    assert all(len(piece) == 2 for rank in shared for piece in rank)


def test_pieces_in_pairs_hold_each_sample_and_its_mirror_image():
    whole = Order(100, 24, seed=0).of_step(2)[0]
    assert Order(100, 24, 0, paired=True).of_step(2) == [whole]  # the whole step is as it was
    mirror = {a: b for a, b in zip(whole, reversed(whole), strict=True)}
    shared = [Order(100, 24, 0, pieces=2, rank=r, world=3, paired=True).of_step(2) for r in range(3)]
    assert sorted(k for rank in shared for piece in rank for k in piece) == sorted(whole)
    for piece in (piece for rank in shared for piece in rank):
        assert len(piece) == 4 and [mirror[k] for k in piece] == piece[::-1]
    assert [pieces_of(12, 1, n, paired=True) for n in (12, 6, 5, 4, 3, 2)] == [1, 2, 3, 3, 6, 6]


def test_order_refusals():
    with pytest.raises(ValueError, match=r"data.batch_size=20 is larger than the training set \(10\)"):
        Order(10, 20, 0)
    with pytest.raises(ValueError, match="divisible by trainer.accumulate x processes = 2 x 2"):
        Order(100, 10, 0, pieces=2, world=2)
    with pytest.raises(ValueError, match="data.batch_size=12 in 2 x 2 pieces of 3: mixup and cutmix need an even one"):
        Order(100, 12, 0, pieces=2, world=2, paired=True)


def test_derive_is_fixed_across_machines():
    assert derive(0, "order", 0) == 4819849257279361181


# -- images --------------------------------------------------------------------------------------------------------


def test_digits_are_stratified_and_apart():
    source = data(*IMAGE)
    assert source.spec.sizes == {"train": 4000, "val": 500, "test": 500} and source.spec.classes == 10
    for split, each in (("train", 400), ("val", 50), ("test", 50)):
        assert np.bincount(source.labels[split]).tolist() == [each] * 10
    seen = [np.asarray(rows["image"], dtype=np.uint8).tobytes() for rows in source.splits.values()]
    pictures = [{chunk[i : i + 784] for i in range(0, len(chunk), 784)} for chunk in seen]
    assert not pictures[0] & pictures[1] and not pictures[0] & pictures[2] and not pictures[1] & pictures[2]


def test_a_sample_is_a_function_of_seed_and_step():
    whole = batches_of(data(*IMAGE), 0, 4)
    resumed = batches_of(data(*IMAGE), 2, 4)
    for (a, la), (b, lb) in zip(whole[2:], resumed, strict=True):
        assert torch.equal(a, b) and torch.equal(la, lb)
    other = batches_of(data(*IMAGE), 0, 1, seed=1)
    assert not torch.equal(other[0][0], whole[0][0])


def test_workers_change_nothing():
    alone, helped = data(*IMAGE), data(*IMAGE, "data.workers=2")
    for (a, la), (b, lb) in zip(batches_of(alone, 0, 3), batches_of(helped, 0, 3), strict=True):
        assert torch.equal(a, b) and torch.equal(la, lb)


def test_augmentation_moves_training_images_only():
    source = data(*IMAGE)
    (a, _), (b, _) = (next(iter(source.eval_batches("val"))) for _ in range(2))
    assert torch.equal(a, b) and a.shape == (256, 1, 28, 28)
    order = Order(4000, 4000, seed=0)  # one batch is the set, so the second epoch shows the same digits
    first, second = (
        {i: x for (_, i), x in zip(order.of_step(e)[0], images, strict=True)}
        for e, (images, _) in enumerate(source.train_batches(order, 0, 2))
    )
    moved = sum(not torch.equal(first[i], second[i]) for i in range(200))
    assert moved > 150


def test_every_validation_image_is_counted_once_over_all_ranks():
    source = data(*IMAGE, "data.eval_batch_size=64")
    labels = [torch.cat([y for _, y in source.eval_batches("val", rank, 3)]) for rank in range(3)]
    assert sum(map(len, labels)) == 500 and torch.cat(labels).bincount().tolist() == [50] * 10
    assert sum(len(y) for _, y in source.eval_batches("val", limit=2)) == 128


def test_a_part_of_a_split_sorted_by_class_has_all_classes():
    """The first 32 held-out digits are all zeros: limited evaluations and the probe take evenly chosen ones."""
    source = data("data=mnist5k", "data.eval_batch_size=64")
    whole = torch.cat([labels for _, labels in source.eval_batches("val")])
    assert len(whole) == 500 and whole[:32].tolist() == [0] * 32  # the order that makes it matter
    ((pictures, labels),) = source.eval_batches("val", limit=1)
    assert len(labels) == 64 and set(torch.bincount(labels).tolist()) == {6, 7}
    assert torch.equal(torch.cat([y for _, y in source.eval_batches("val", limit=99)]), whole)
    halves = [list(source.eval_batches("val", rank, 2, limit=2)) for rank in (0, 1)]
    both = list(source.eval_batches("val", limit=2))
    assert all(torch.equal(half[0][0], batch[0]) for half, batch in zip(halves, both, strict=True))
    _, few = source.some("val", 32)
    other = data("data=mnist5k", "data.eval_batch_size=16").some("val", 32)
    assert set(few.tolist()) == set(range(10)) and torch.equal(few, other[1])


def image_folder(root, per_class=10, splits=("",)):
    generator = np.random.default_rng(0)
    for split in splits:
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(per_class):
                Image.fromarray(generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return root


FOLDER = ["model=vit_nano", "data=imagefolder", "data.img_size=16", "data.patch_size=8", "data.batch_size=4"]


def test_image_folders_with_and_without_splits(tmp_path):
    plain = data(*FOLDER, f"data.path={image_folder(tmp_path / 'a')}")
    assert plain.spec.sizes == {"train": 18, "val": 2} and plain.spec.classes == 2
    split = data(*FOLDER, f"data.path={image_folder(tmp_path / 'b', splits=('train', 'val', 'test'))}")
    assert split.spec.sizes == {"train": 20, "val": 20, "test": 20}
    images, labels = batches_of(split, 0, 1)[0]
    assert images.shape == (4, 3, 16, 16) and images.dtype == torch.float32 and labels.dtype == torch.int64
    # Names carry the labels, so renaming a class is other data.
    before = split.spec.sha256
    (tmp_path / "b/train/cat").rename(tmp_path / "b/train/cow")
    assert locate(load([*FOLDER, f"data.path={tmp_path / 'b'}"])["data"]).sha256 != before


def parquet(path, rows=20, image="picture", label="kind"):
    import datasets

    pictures = [Image.fromarray(np.full((16, 16, 3), i, dtype=np.uint8)) for i in range(rows)]
    features = datasets.Features({image: datasets.Image(), label: datasets.ClassLabel(names=["a", "b"])})
    made = datasets.Dataset.from_dict({image: pictures, label: [i % 2 for i in range(rows)]}, features=features)
    made.to_parquet(path)
    return path


def test_parquet_columns_by_type_or_by_name(tmp_path):
    path = parquet(tmp_path / "x.parquet")
    words = ["model=vit_nano", "data=hf_image", f"data.path={path}", "data.img_size=16", "data.patch_size=8"]
    assert data(*words).spec.sizes == {"train": 18, "val": 2}
    assert data(*words, "data.image_key=picture", "data.label_key=kind").spec.classes == 2
    with pytest.raises(ValueError, match="data.label_key=lable: no such column; choose from picture, kind"):
        data(*words, "data.label_key=lable")
    grey = data(*words, "data.mean=[0.5]", "data.std=[0.5]")
    assert grey.spec.channels == 1 and next(iter(grey.eval_batches("val")))[0].shape[1] == 1


def test_stray_files_beside_images_and_unlabelled_tests(tmp_path, caplog):
    folder = image_folder(tmp_path / "a", splits=("train", "val"))
    (folder / "labels.csv").write_text("file,label\n1.png,cat\n")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.png").write_bytes(b"not data")
    (folder / "test").mkdir()
    (folder / "train/cat/0.png").rename(folder / "test/0.png")
    source = data(*FOLDER, f"data.path={folder}")
    assert source.spec.sizes == {"train": 19, "val": 20} and source.spec.classes == 2
    assert "test has 1 images in no class folder: left out" in caplog.text
    (folder / "train" / "loose.png").write_bytes(b"")
    with pytest.raises(ValueError, match="train/loose.png lies in no class folder"):
        data(*FOLDER, f"data.path={folder}")


def test_an_unlabelled_test_split_is_left_out(tmp_path):
    import datasets

    for split, labels in (("train", [0, 1]), ("validation", [1, 0]), ("test", [-1, -1])):
        pictures = [Image.new("RGB", (16, 16), i) for i in range(6)]
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
        made = datasets.Dataset.from_dict({"image": pictures, "label": labels * 3}, features=features)
        made.to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    words = ["model=vit_nano", "data=imagenet1k", f"data.path={tmp_path}", "data.img_size=16", "data.patch_size=8"]
    assert data(*words).spec.sizes == {"train": 6, "val": 6}


@pytest.mark.parametrize("word", ["data.scale=5", "data.interpolation=foo", "data.auto_augment=foo"])
def test_unusable_augmentation_is_one_line(word):
    with pytest.raises(ValueError, match="timm cannot use them"):
        data(*IMAGE, word)


def test_mixup_and_random_augmentation_are_functions_of_the_step(tmp_path):
    words = [*FOLDER, f"data.path={image_folder(tmp_path / 'a')}", "data.auto_augment=rand-m9-mstd0.5-inc1"]
    words += ["data.random_erase=0.5", "data.color_jitter=0.4", "data.scale=[0.3,1.0]"]
    for (a, _), (b, _) in zip(batches_of(data(*words), 2, 4), batches_of(data(*words), 0, 4)[2:], strict=True):
        assert torch.equal(a, b)


# -- text ----------------------------------------------------------------------------------------------------------


def test_stdlib_splits_are_apart_and_in_every_interpreter():
    source = locate(load(TEXT)["data"])
    names = [f for files in source.files.values() for f in files]
    assert len(names) == len(set(names)) == len(STDLIB) > 100
    text = data(*TEXT, context=64)
    assert text.spec.vocab_size == 256 and text.spec.sizes["train"] > 2_000_000
    head = bytes(text.tokens["train"][:200]).decode()
    assert head == open(source.files["train"][0]).read()[:200]


def test_windows_cover_the_text_and_targets_are_one_later(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    source = data(*TEXT, "data=hf_text", f"data.path={tmp_path}/t.txt", "data.batch_size=4")
    x, y = batches_of(source, 0, 1)[0]
    assert x.shape == y.shape == (4, 16) and torch.equal(x[:, 1:], y[:, :-1])
    train, val = source.tokens["train"], source.tokens["val"]
    assert bytes(train).decode() + bytes(val).decode() == WORDS  # nothing lost, nothing twice
    assert sum(t.numel() for _, t in source.eval_batches("val")) == len(val) - 1
    joined = torch.cat([t.flatten() for _, t in source.eval_batches("val")])
    assert bytes(joined.tolist()) == bytes(val[1:])
    per_rank = [sum(t.numel() for _, t in source.eval_batches("val", r, 3)) for r in range(3)]
    assert sum(per_rank) == len(val) - 1


def test_resumed_text_is_what_it_would_have_been(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    source = data(*TEXT, "data=hf_text", f"data.path={tmp_path}/t.txt", "data.batch_size=50")
    whole, late = batches_of(source, 0, 45), batches_of(source, 30, 45)  # past the first epoch
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[30:], late, strict=True))


def test_splits_by_file_name_gzip_and_char_tokens(tmp_path):
    for name, text in (("train", WORDS), ("validation", WORDS[:4000] + "\u00e9"), ("test", WORDS[:2000])):
        with gzip.open(tmp_path / f"{name}.txt.gz", "wt", encoding="utf-8") as f:
            f.write(text)
    (tmp_path / "README.md").write_text("not data")
    source = data(*TEXT, "data=shakespeare", f"data.path={tmp_path}")
    assert source.spec.vocab_size == len(set(WORDS) | {"\u00e9"})
    assert {k: len(v) for k, v in source.tokens.items()} == {"train": len(WORDS), "val": 4001, "test": 2000}
    assert source.tokenizer.decode(source.tokens["val"][-5:]) == WORDS[3996:4000] + "\u00e9"


def test_parquet_and_json_rows_are_parted(tmp_path):
    import pandas

    pandas.DataFrame({"body": ["first text" * 20, "", "second text" * 20]}).to_parquet(tmp_path / "x.parquet")
    source = data(
        *TEXT, "data=hf_text", f"data.path={tmp_path}/x.parquet", "data.text_key=body", "data.val_fraction=0.3"
    )
    text = bytes(source.tokens["train"]).decode() + bytes(source.tokens["val"]).decode()
    assert text == "first text" * 20 + "\n" + "second text" * 20 + "\n"
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({"text": f"row {i} " * 9}) + "\n" for i in range(50)))
    assert data(*TEXT, "data=hf_text", f"data.path={tmp_path}/x.jsonl").spec.sizes["train"] > 2000


def test_stray_files_beside_text_are_refused_by_name(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "book.txt").write_text(WORDS)
    (folder / "metadata.json").write_text('{"text": "no"}')
    with pytest.raises(ValueError, match="files of several kinds .json, text.; point at one kind"):
        data(*TEXT, "data=hf_text", f"data.path={folder}")
    (folder / "metadata.json").unlink()
    (folder / "train.txt").write_text(WORDS)
    with pytest.raises(ValueError, match="book.txt is named for no split beside train"):
        data(*TEXT, "data=hf_text", f"data.path={folder}")
    (tmp_path / "x.jsonl").write_text('{"text": {"a": 1}}\n' * 50)
    with pytest.raises(ValueError, match="data.text_key=text: holds dict, not text"):
        data(*TEXT, "data=hf_text", f"data.path={tmp_path}/x.jsonl")


def test_a_damaged_token_cache_is_made_anew(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    words = [*TEXT, "data=hf_text", f"data.path={tmp_path}/t.txt", f"data.cache_dir={tmp_path}/cache"]
    before = bytes(data(*words).tokens["train"])
    (file,) = (tmp_path / "cache").glob("tokens/*/train.bin")
    file.write_bytes(file.read_bytes()[:100])
    assert bytes(data(*words).tokens["train"]) == before
    (file.parent / "meta.json").write_text("{")
    assert bytes(data(*words).tokens["train"]) == before


def test_other_content_is_another_cache(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text(WORDS)
    words = [*TEXT, "data=hf_text", f"data.path={path}"]
    first = data(*words).spec.sha256
    path.write_text(WORDS.replace("line 3", "LINE 3"))
    second = data(*words)
    assert second.spec.sha256 != first and b"LINE 3" in bytes(second.tokens["train"])


def test_tokenizers():
    char = Tokenizer("char", "abc\n")
    assert char.encode("cab").tolist() == [2, 0, 1] and char.decode([2, 0, 1, 9]) == "cab\ufffd"
    with pytest.raises(ValueError, match="outside the vocabulary: 'x' 'z'"):
        char.encode("abxz")
    byte = Tokenizer("byte")
    assert byte.decode(byte.encode("h\u00e9")) == "h\u00e9" and byte.vocab_size == 256
    with pytest.raises(ValueError, match="choose from byte, char, gpt2"):
        Tokenizer("bpe")


# -- what is missing or broken -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words, message",
    [
        ([*TEXT, "data.path=nowhere.txt"], "data.path=nowhere.txt: no such file or folder"),
        ([*TEXT, "data=hf_text"], "data=hf_text needs data.path=<file or folder> or data.hub="),
        ([*IMAGE, "data=imagefolder"], "data=imagefolder needs data.path="),
        ([*TEXT, "data=openwebtext"], "data.hub=Skylion007/openwebtext: could not be loaded"),
        ([*IMAGE, "data=cifar10"], "set data.path=<local file or folder> to work without the hub"),
        ([*TEXT, "data.path=empty.txt"], "empty.txt: empty"),
        ([*TEXT, "data.path=folder"], "data.path=folder: no file to read"),
        ([*IMAGE, "data=imagefolder", "data.path=folder"], "no Parquet file, no tar and no image below this folder"),
        ([*TEXT, "data.path=short.txt"], "less than two windows of model.context=16"),
        ([*TEXT, "data.path=bad.parquet"], "data.path=bad.parquet: unreadable as parquet"),
        ([*IMAGE, "data=hf_image", "data.path=bad.parquet"], "data.path=bad.parquet: unreadable as parquet"),
        ([*IMAGE, "data=hf_image", "data.path=text.parquet"], "data.image_key=None: no such column; choose from text"),
        (
            [*TEXT, "data.path=text.parquet", "data.text_key=body"],
            "data.text_key=body: no such column in train; it has text",
        ),
        ([*TEXT, "data.path=val_only"], "found val but no train"),
        ([*TEXT, "data.path=text.parquet", "data.tokenizer=bpe"], "data.tokenizer=bpe: choose from byte, char, gpt2"),
        ([*IMAGE, "data.val_fraction=0", "data=hf_image", "data.path=ok.parquet"], "leaves one side empty"),
        ([*TEXT, "data.path=latin.txt"], "data.path=latin.txt: unreadable as text"),
    ],
)
def test_bad_data_gets_one_line(words, message, tmp_path):
    import pandas

    (tmp_path / "empty.txt").touch()
    (tmp_path / "short.txt").write_text("too short")
    (tmp_path / "latin.txt").write_bytes("caf\u00e9 ".encode("latin-1") * 100)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    (tmp_path / "folder").mkdir()
    (tmp_path / "val_only").mkdir()
    (tmp_path / "val_only" / "val.txt").write_text(WORDS)
    pandas.DataFrame({"text": [WORDS]}).to_parquet(tmp_path / "text.parquet")
    parquet(tmp_path / "ok.parquet")
    with pytest.raises((ValueError, OSError)) as error:
        data(*words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_corrupt_image_names_its_row(tmp_path):
    folder = image_folder(tmp_path / "a")
    (folder / "cat" / "3.png").write_bytes(b"not a picture")
    source = data(*FOLDER, f"data.path={folder}", "data.val_fraction=0.5")
    with pytest.raises(ValueError, match=r"(train|val) image in row \d+.* cannot be decoded"):
        for _ in source.eval_batches("val"):
            pass
        batches_of(source, 0, 2)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["data.crop_padding=0"],
        ["data.hflip=0.5"],
        ["data.hflip=1", "data.mean=[0.5]"],
        ["data.img_size=16", "model.patch_size=4"],
        ["data.img_size=32", "model.patch_size=4", "data.hflip=0.5"],
    ],
)
def test_the_short_way_for_small_pictures_gives_the_same_bits(words):
    from torchvision.transforms import Compose

    from dyt.data.images import ImageData, Pictures

    config = load(["model=vit_nano", *words])["data"]
    for split, seed in (("train", 3), ("val", None)):
        short, whole = (Pictures(ImageData(config), split, seed) for _ in range(2))
        assert short.short
        whole.short, whole.resized = False, Compose([])
        for epoch in range(2):
            keys = [(epoch, index) for index in range(5, 69)]
            for ours, theirs in zip(short.__getitems__(keys), whole.__getitems__(keys), strict=True):
                assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype and ours.stride() == theirs.stride()


@pytest.mark.parametrize("shape", [(32, 32), (40, 24)])
def test_a_picture_is_brought_to_size_alike_in_training_and_evaluation(shape):
    from dyt.data.images import build_transform

    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    data = load(["model=vit_nano", "data=cifar10", "data.img_size=64", "data.crop_padding=0", "data.hflip=0"])["data"]
    trained, evaluated = (build_transform(data, train)(Image.fromarray(noise)) for train in (True, False))
    assert torch.equal(trained, evaluated) and trained.shape == (3, 64, 64)


def test_augmented_pictures_take_the_long_way():
    from dyt.data.images import ImageData, Pictures

    for word in ("data.auto_augment=rand-m9-mstd0.5-inc1", "data.scale=[0.5,1.0]", "data.random_erase=0.5"):
        assert not Pictures(ImageData(load(["model=vit_nano", word])["data"]), "train", 0).short


def test_what_a_killed_process_left_in_the_cache_stops_nobody_and_is_removed_in_time(tmp_path, monkeypatch):
    from dyt.data import cache

    def make(place):
        (place / "a").write_text("x")
        return {"n": 1}

    def killed(place):
        (place / "a").write_text("half")
        monkeypatch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept(tmp_path / "c", ("one",), killed)
    monkeypatch.undo()
    (left,) = (tmp_path / "c").iterdir()
    folder, meta = cache.kept(tmp_path / "c", ("one",), make)  # by a process of the same number
    assert meta["n"] == 1 and (folder / "a").read_text() == "x" and left.is_dir()
    (folder / "meta.json").unlink()
    monkeypatch.setattr(cache, "STALE_S", -1.0)
    cache.kept(tmp_path / "c", ("one",), make)
    assert list((tmp_path / "c").iterdir()) == [folder]


# -- the hub -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, said",
    [
        (["validation", "test"], "has validation, test, but no train; save its rows as files called train.*"),
        (["test"], "has test, but no train"),
        (["en", "de"], "has en, de, but no train"),
        (["train", "dev", "validation"], "dev and validation are both val"),
    ],
)
def test_no_split_of_a_hub_set_is_read_as_another(names, said, tmp_path, monkeypatch):
    import datasets

    from dyt.data.inputs import inputs_of

    table = {name: datasets.Dataset.from_dict({"text": [WORDS]}) for name in names}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    with pytest.raises(ValueError, match=f"^data.hub=a/b: {said}"):
        data(*TEXT, "data=hf_text", "data.hub=a/b", f"data.cache_dir={tmp_path}")
    settings = load([*TEXT, "data=hf_text"])["data"]
    with pytest.raises(ValueError, match=f"^a/b: {said}"):
        inputs_of(["a/b"], settings)


@pytest.mark.parametrize("names", [["train"], ["all"], ["train", "unsupervised", "test"], ["train", "valid"]])
def test_the_splits_of_a_hub_set_are_apart(names, tmp_path, monkeypatch):
    import datasets

    table = {name: datasets.Dataset.from_dict({"text": [f"{name} {i}" * 9 for i in range(90)]}) for name in names}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: table)
    found = data(*TEXT, "data=hf_text", "data.hub=a/b", f"data.cache_dir={tmp_path}").tokens
    texts = {split: bytes(tokens[:]).decode() for split, tokens in found.items()}
    assert set(texts) == {"train", "val"} | {"test"} & set(names)
    assert texts["train"].startswith(f"{names[0]} 0") and "unsupervised" not in "".join(texts.values())
    assert not any(line in texts["train"].splitlines() for line in texts["val"].splitlines()[1:])
    if "test" in names:
        assert texts["test"].startswith("test 0") and "test" not in texts["train"]
