"""What was read is what was named: paths, folders, splits, classes and labels, each with a small set of its own."""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dyt.config.compose import load
from dyt.data import open_data
from dyt.data.sources import locate

from .helpers import TINY_GPT, TINY_VIT, one_line, pictures_at, python, train

TEXT = ["model=gpt_nano", "data=hf_text"]
FOLDER = ["model=vit_nano", "data=imagefolder", "data.img_size=8", "data.patch_size=4", "data.batch_size=4"]
TABLE = ["data=hf_image" if w == "data=imagefolder" else w for w in FOLDER]
SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "trainer.log_every=1", "logger.mode=disabled"]
WORDS = "".join(f"line {i} of a small text\n" for i in range(40))
CHEAP = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def data(*words, known=None):
    return open_data(load(list(words))["data"], 16, known)


def text_of(source) -> str:
    return "".join(bytes(source.tokens[s]).decode() for s in ("train", "val"))


# -- identity and content ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl"])
def test_a_file_rewritten_under_its_old_time_is_read_anew(ending, tmp_path):
    """rsync -t, cp -p and tar keep the modification time."""
    path = tmp_path / f"t.{ending}"
    head, row = {"txt": ("", "{}\n"), "csv": ("text\n", "{}\n"), "jsonl": ("", '{{"text": "{}"}}\n')}[ending]
    for word in ("first", "other"):
        path.write_text(head + row.format(word) * 60)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert text_of(data(*TEXT, f"data.path={path}")) == f"{word}\n" * 60


def test_a_table_of_pictures_rewritten_under_its_old_time_is_read_anew(tmp_path):
    path = tmp_path / "t.parquet"
    for grey in (0, 200):
        table(path, [grey] * 8, [0, 1] * 4)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        source = data(*TABLE, f"data.path={path}", "data.mean=[0]", "data.std=[1]", "data.val_fraction=0.5")
        assert float(next(iter(source.eval_batches("val")))[0].max()) == pytest.approx(grey / 255)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    from dyt.data import text

    path = tmp_path / "t.txt"
    path.write_text(WORDS)
    real = text.documents

    def grows(*about):
        yield from real(*about)
        path.write_text(WORDS.replace("small", "large"))

    monkeypatch.setattr(text, "documents", grows)
    with pytest.raises(ValueError, match="a file changed while it was read"):
        data(*TEXT, f"data.path={path}", f"data.cache_dir={tmp_path}/cache")
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_a_large_set_is_known_to_the_cache_by_its_files_times(tmp_path, monkeypatch):
    from dyt.data import sources

    monkeypatch.setattr(sources, "LARGE", 100)
    path = tmp_path / "t.txt"
    for word in ("first", "other"):
        path.write_text(f"{word}\n" * 60)
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert text_of(data(*TEXT, f"data.path={path}")) == f"{word}\n" * 60


# -- a path is a path --------------------------------------------------------------------------------------------------

ODD = [
    "notes[1].txt",
    "a b.txt",
    "a=b.txt",
    "a,b.txt",
    "#1.txt",
    "\u00fcn\u00ef.txt",
    "-x.txt",
    "x::y.txt",
    "a*?.txt",
    "{a}.txt",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_file_names_are_read_as_they_are(name, tmp_path):
    (tmp_path / name).write_text(WORDS)
    (tmp_path / "notes1.txt").write_text("wrong\n" * 80)
    assert text_of(data(*TEXT, f"data.path={name}")) == WORDS
    folder = tmp_path / f"folder {name}"
    for label, grey in (("[cats]", 0), ("dogs, 2", 255)):
        for i in range(5):
            picture(folder / label / f"{i} {name}.png", grey)
    assert data(*FOLDER, f"data.path={folder}", "data.val_fraction=0.4").spec.names == ("[cats]", "dogs, 2")


FILE_NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=12)


@given(FILE_NAMES)
@CHEAP
def test_any_file_name_gives_its_own_text_or_one_line(tmp_path, name):
    if name in (".", ".."):
        return
    path = tmp_path / f"{name}.txt"
    path.write_text(WORDS + name.replace("\r", "") + "\n" + "end\n" * 9)
    try:
        source = data(*TEXT, f"data.path={path}", "data.val_fraction=0.5")
    except ValueError as error:
        assert "\n" not in str(error) and ("${" in name)
        return
    finally:
        wrote = path.read_text()
        path.unlink()
    assert text_of(source) == wrote


def test_home_links_and_trailing_slashes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "real").mkdir()
    (tmp_path / "real/t.txt").write_text(WORDS)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/again").symlink_to(tmp_path / "real")  # a circle
    for path in ("~/real/t.txt", "~/real/", "link", "link/", "link/t.txt"):
        assert text_of(data(*TEXT, f"data.path={path}")) == WORDS
    (tmp_path / "real/gone.txt").symlink_to("nowhere")
    with pytest.raises(ValueError, match="gone.txt is a link to nothing"):
        data(*TEXT, "data.path=link")


def test_linked_class_folders_and_splits_are_followed(tmp_path):
    for label, grey in (("red", 10), ("green", 90)):
        for i in range(5):
            picture(tmp_path / "store" / label / f"{i}.png", grey)
    (tmp_path / "set").mkdir()
    for split in ("train", "val"):
        (tmp_path / "set" / split).symlink_to(tmp_path / "store")
    assert data(*FOLDER, "data.path=set").spec.sizes == {"train": 10, "val": 10}
    (tmp_path / "flat").mkdir()
    for label in ("red", "green"):
        (tmp_path / "flat" / label).symlink_to(tmp_path / "store" / label)
    assert data(*FOLDER, "data.path=flat", "data.val_fraction=0.2").spec.names == ("green", "red")


def test_a_folder_that_holds_the_runs_and_the_cache_is_read_without_them(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    words = [*TINY_GPT, *SHORT, "data=hf_text", "data.path=.", "data.cache_dir=cache"]
    first, folder = train(*words)
    again, same = train(*words)
    assert first["data_sha256"] == again["data_sha256"] and same == folder
    assert locate(load(words)["data"]).files == {"train": ["t.txt"]}


def test_evaluation_measures_the_runs_own_file_wherever_it_is_started(tmp_path):
    for folder, word in (("here", "abcd "), ("there", "zyxw ")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.txt").write_text(word * 200 + "\n")
    os.chdir(tmp_path / "here")
    _, run = train(*TINY_GPT, *SHORT, "data=hf_text", "data.path=t.txt", "norm=layernorm")
    run = run.absolute()
    from eval import evaluate_run, parse

    own, _ = evaluate_run(parse([f"run={run}"]))
    os.chdir(tmp_path / "there")
    assert evaluate_run(parse([f"run={run}"])) == (own, None)
    other, _ = evaluate_run(parse([f"run={run}", "data.path=t.txt"]))
    assert other["data_sha256"] != other["run_data_sha256"] == own["data_sha256"]
    (tmp_path / "here/t.txt").write_text("other " * 200)
    with pytest.raises(ValueError, match="is not the data that the run learned from .* type data.path="):
        evaluate_run(parse([f"run={run}"]))


@pytest.mark.parametrize("words", [["data.path="], ["init_from="], ["tag="]])
def test_an_unset_variable_is_refused(words, tmp_path):
    assert "it is empty, as where a shell variable is not set" in one_line(python("train.py", *words))
    assert not (tmp_path / "runs").exists()


def test_eval_refuses_an_unset_variable():
    from eval import parse

    with pytest.raises(ValueError, match="data.path=: is empty"):
        parse(["run=x", "data.path="])


# -- folders -----------------------------------------------------------------------------------------------------------


def picture(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)


def layout(root, *names):
    for name in names:
        picture(root / name, len(name) * 7 % 256)
    return root


@pytest.mark.parametrize(
    "names, classes, sizes",
    [
        (["cats/indoor/1.png", "cats/outdoor/2.png", "dogs/outdoor/3.png"], ("cats", "dogs"), 3),
        (["train/1.png", "car/2.png", "bus/3.png"], ("bus", "car", "train"), 3),
        (["train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png"], ("a", "b"), 2),
        (["Train/a/1.png", "Train/b/2.png", "Valid/a/3.png"], ("a", "b"), 2),
        (["training/0/1.png", "training/1/2.png", "testing/0/3.png"], ("0", "1"), 2),
        (["cars/1.png", "test_tubes/2.png", "train/3.png"], ("cars", "test_tubes", "train"), 3),
        (["cars/1.png", "license_plates/license_1.png", "license_plates/readme.png"], ("cars", "license_plates"), 3),
    ],
)
def test_classes_and_splits_by_folder(names, classes, sizes, tmp_path):
    files = locate(load([*FOLDER, f"data.path={layout(tmp_path / 'set', *names)}"])["data"])
    assert tuple(sorted({c for labels in files.labels.values() for c in labels})) == classes
    assert len(files.files["train"]) == sizes


@pytest.mark.parametrize(
    "names, message",
    [
        (
            ["train/a/1.png", "train/b/2.png", "val/a/3.png", "holdout/a/4.png"],
            "holdout is no split (train, val, test)",
        ),
        (["a/1.png", "b/2.png", "b/deep/3.png"], "b/deep/3.png is not as deep as a/1.png"),
        (["train/a/1.png", "train/b/2.png", "train/b/x/3.png"], "train/b/x/3.png is not as deep as"),
        (["1.png", "a/2.png"], "1.png lies in no class folder"),
        (["train/1.png", "test/2.png"], "lies in no class folder"),
        (
            ["seg_train/a/1.png", "seg_test/a/2.png"],
            "seg_test and seg_train look like the splits of one set; call them",
        ),
        (["train1/a/1.png", "train2/b/2.png", "test1/a/3.png"], "test1 and train1 and train2 look like the splits"),
        (["val/a/1.png", "test/b/2.png"], "found test, val but no train"),
        (["val/a/1.png", "valid/a/1.png", "train/a/2.png"], "val, valid: two of them name one split"),
        (["a/1.png", "a/2.png", "a/3.png"], "one class only (a)"),
        (["train/a/1.png", "train/b/2.png", "val/c/3.png"], "val has the class c, which train has not (a, b)"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_by_name(names, message, tmp_path):
    with pytest.raises(ValueError) as error:
        data(*FOLDER, f"data.path={layout(tmp_path / 'set', *names)}", "data.val_fraction=0.5")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_an_empty_class_and_metadata_and_save_to_disk_are_a_line_each(tmp_path):
    import datasets

    root = layout(tmp_path / "set", "a/1.png", "b/2.png")
    (root / "empty").mkdir()
    with pytest.raises(ValueError, match="the folder empty has no picture"):
        data(*FOLDER, f"data.path={root}")
    (root / "empty/x.heic").touch()
    with pytest.raises(ValueError, match="the folder empty has no picture"):
        data(*FOLDER, f"data.path={root}")
    flat = layout(tmp_path / "flat", "1.png", "2.png")
    (flat / "metadata.csv").write_text("file_name,label\n1.png,a\n")
    with pytest.raises(ValueError, match="1.png lies in no class folder .labels in metadata.csv are not read."):
        data(*FOLDER, f"data.path={flat}")
    rows = datasets.Dataset.from_dict({"text": ["a"] * 9})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "many")
    for name in ("one", "many"):
        with pytest.raises(ValueError, match=r"a save_to_disk folder; write it as Parquet first: .*to_parquet"):
            data(*TEXT, f"data.path={tmp_path / name}")


def test_pictures_with_the_default_data_set_say_what_to_type(tmp_path):
    root = layout(tmp_path / "set", "a/1.png", "b/2.png")
    with pytest.raises(ValueError, match="data=mnist5k reads its own file; .* type data=imagefolder"):
        data("data.path=set")
    table(tmp_path / "t.parquet", [1, 2], [0, 1])
    with pytest.raises(ValueError, match="type data=hf_image"):
        data("data.path=t.parquet")
    (tmp_path / "t.txt").write_text(WORDS)
    with pytest.raises(ValueError, match="type model=gpt_nano data=hf_text"):
        data("data.path=t.txt")
    with pytest.raises(ValueError, match="pictures, no text; type model=vit_tiny data=imagefolder"):
        data(*TEXT, f"data.path={root}")


@pytest.mark.parametrize(
    "names, split",
    [
        (["train-journeys.txt", "voyages.txt", "walks.txt"], {"train": 3}),
        (["test-drive.txt"], {"train": 1}),
        (["wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"], {"train": 1, "val": 1, "test": 1}),
        (["train-00000-of-00002.txt", "train-00001-of-00002.txt", "test-00000-of-00001.txt"], {"train": 2, "test": 1}),
        (["train/a.txt", "validation/b.txt"], {"train": 1, "val": 1}),
        (["a/train.txt.gz", "a/dev.txt.gz"], {"train": 1, "val": 1}),
        (["train1.txt", "train2.txt", "test1.txt"], {"train": 2, "test": 1}),
        (["training.txt", "testing.txt"], {"train": 1, "test": 1}),
        (["trainset.txt", "testset.txt"], {"train": 1, "test": 1}),
        (["corpus_train1.txt", "corpus_val1.txt"], {"train": 1, "val": 1}),
        (["trains.txt", "tests.txt"], {"train": 2}),
    ],
)
def test_a_split_is_one_when_the_whole_set_of_names_says_so(names, split, tmp_path):
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(WORDS)
    found = locate(load([*TEXT, "data.path=set"])["data"]).files
    assert {name: len(files) for name, files in found.items()} == split


@pytest.mark.parametrize(
    "names, message",
    [
        (["train.txt", "val.txt", "book.txt"], "book.txt is named for no split beside train, val"),
        (["train-journeys.txt", "test-drive.txt"], "cannot tell whether"),
        (["val.txt", "test.txt"], "found test, val but no train"),
    ],
)
def test_names_that_say_no_whole_set_are_refused(names, message, tmp_path):
    (tmp_path / "set").mkdir()
    for name in names:
        (tmp_path / "set" / name).write_text(WORDS)
    with pytest.raises(ValueError, match=message):
        locate(load([*TEXT, "data.path=set"])["data"])


# -- labels ------------------------------------------------------------------------------------------------------------


def table(path, greys, labels, names=None, **more):
    """A Parquet of small grey pictures."""
    import datasets

    pictures = [Image.new("L", (8, 8), int(grey)) for grey in greys]
    features = {"image": datasets.Image()} | ({"label": datasets.ClassLabel(names=names)} if names else {})
    made = datasets.Dataset.from_dict({"image": pictures, "label": labels})
    made = made.cast(datasets.Features({**made.features, **features}))
    for name, values in more.items():
        made = made.add_column(name, values)
    made.to_parquet(path)
    return path


LABELS = {
    "text": (["dog", "cat", "dog", "cat"], ("cat", "dog"), [1, 0, 1, 0]),
    "booleans": ([True, False, True, False], ("false", "true"), [1, 0, 1, 0]),
    "from one": ([1, 2, 2, 1], ("1", "2"), [0, 1, 1, 0]),
    "whole floats": ([0.0, 2.0, 0.0, 2.0], ("0", "2"), [0, 1, 0, 1]),
    "large": ([10**12, 5, 10**12, 5], ("5", str(10**12)), [1, 0, 1, 0]),
    "by number": (["10", "9", "10", "9"], ("9", "10"), [1, 0, 1, 0]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_storage(kind, tmp_path):
    values, names, want = LABELS[kind]
    for split in ("train", "validation"):
        table(tmp_path / "set" / f"{split}.parquet", range(4), values) if (tmp_path / "set").mkdir(
            exist_ok=True
        ) is None else 0
    source = data(*TABLE, "data.path=set")
    assert source.spec.names == names and source.labels["train"].tolist() == source.labels["val"].tolist() == want


def test_classes_have_one_order_whatever_the_set_gives_first():
    """1 and 01 were alike once, and their numbers changed with PYTHONHASHSEED; --1 ended in int()'s own error."""
    from dyt.data.labels import _order

    want = ["-2", "-1", "01", "1", "2", "10", "--1", "1-", "9" * 5000, "a", "\u0661"]
    for names in (want, want[::-1]):
        assert sorted(names, key=_order) == want


@pytest.mark.parametrize(
    "values", [[0, None, 1, 1, 0, 1], ["a", None, "b", "b", "a", "b"], [0.0, None, 1.0, 1.0, 0.0, 1.0]]
)
def test_a_missing_label_names_its_row_or_is_left_out_and_counted(values, tmp_path, caplog):
    table(tmp_path / "t.parquet", range(6), values)
    words = [*TABLE, "data.path=t.parquet", "data.val_fraction=0.4"]
    with pytest.raises(ValueError, match="data.label_key=label: row 1 of train has no label; data.on_error=skip"):
        data(*words)
    source = data(*words, "data.on_error=skip")
    assert sum(source.spec.sizes.values()) == 5 and source.spec.classes == 2
    assert "train: 1 rows without a label left out" in caplog.text


@pytest.mark.parametrize(
    "values, message",
    [
        ([0.5, 1.0, 0.0], "train holds 0.5, which is no class"),
        ([-7, 1, 0], "train holds the negative label -7"),
        (list(range(40)), "40 different labels in 40 rows are no classes"),
        ([3, 3, 3], "one class only (3)"),
        ([-1, 1, -1, 1], "one class only (1): nothing to tell apart; 2 rows have none (null or -1); number classes"),
        ([[1], [2], [3]], "data.label_key=label: holds list"),
    ],
)
def test_what_is_no_class_is_refused(values, message, tmp_path):
    table(tmp_path / "t.parquet", range(len(values)), values)
    with pytest.raises(ValueError) as error:
        data(*TABLE, "data.path=t.parquet")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_classes_go_by_name_between_splits(tmp_path):
    (tmp_path / "set").mkdir()
    table(tmp_path / "set/train.parquet", range(4), [0, 1, 0, 1], names=["cat", "dog"])
    table(tmp_path / "set/validation.parquet", range(4), [0, 0, 1, 1], names=["dog", "cat"])
    source = data(*TABLE, "data.path=set")
    assert source.spec.names == ("cat", "dog") and source.labels["val"].tolist() == [1, 1, 0, 0]
    table(tmp_path / "set/validation.parquet", range(4), [0, 0, 1, 1], names=["dog", "cow"])
    with pytest.raises(ValueError, match="val has the class cow, which train has not"):
        data(*TABLE, "data.path=set")
    table(tmp_path / "set/validation.parquet", range(2), [0, 1], names=["cat", "dog"])
    table(tmp_path / "set/train-2.parquet", range(4), [0, 0, 1, 1], names=["dog", "cat"])
    with pytest.raises(ValueError, match="has other class names, or in another order, than"):
        data(*TABLE, "data.path=set")


@pytest.mark.parametrize("names", ["a b h", "0 1 7", "9 10 11"])
def test_a_class_that_training_lacks_is_refused_be_it_a_word_or_a_number(names, tmp_path):
    first, second, other = names.split()
    train = [f"train/{name}" for name in (first, second)]
    pictures_at(tmp_path / "set", *train, f"val/{first}", f"val/{other}", count=2)
    said = f"label: val has the class {other}, which train has not \\({first}, {second}\\)"
    with pytest.raises(ValueError, match=said):
        data("model=vit_nano", "data=imagefolder", "data.path=set")
    (tmp_path / "tables").mkdir()
    table(tmp_path / "tables/train.parquet", range(4), [first, second] * 2)
    table(tmp_path / "tables/validation.parquet", range(2), [first, other])
    with pytest.raises(ValueError, match=said):
        data(*TABLE, "data.path=tables")


def test_image_and_label_come_before_mask_and_coarse_label(tmp_path):
    import datasets

    made = datasets.Dataset.from_dict(
        {
            "mask": [Image.new("L", (8, 8), 255)] * 4,
            "image": [Image.new("L", (8, 8), i) for i in range(4)],
            "coarse_label": [0, 0, 1, 1],
            "label": [0, 1, 0, 1],
        }
    )
    names = {"coarse_label": datasets.ClassLabel(names=["x", "y"]), "label": datasets.ClassLabel(names=["a", "b"])}
    made.cast(datasets.Features({**made.features, **names})).to_parquet(tmp_path / "t.parquet")
    source = data(*TABLE, "data.path=t.parquet", "data.val_fraction=0.5")
    assert (source.image_key, source.label_key, source.spec.names) == ("image", "label", ("a", "b"))
    made = made.rename_columns({"image": "left", "mask": "right"})
    made.to_parquet(tmp_path / "two.parquet")
    with pytest.raises(ValueError, match="data.image_key: choose from right, left"):
        data(*TABLE, "data.path=two.parquet")


@given(
    st.lists(st.sampled_from("ab"), min_size=4, max_size=10).filter(lambda x: len(set(x)) == 2),
    st.sampled_from(["text", "class", "int", "float", "bool"]),
)
@CHEAP
def test_labels_in_are_labels_out(tmp_path, letters, kind):
    from dyt.data.labels import numbered
    from dyt.data.tables import picture_table

    number = [letter == "b" for letter in letters]
    stored = {"text": letters, "class": [int(n) for n in number], "int": [5 + 3 * n for n in number]}
    stored |= {"float": [float(n) for n in number], "bool": number}
    path = table(
        tmp_path / "t.parquet", range(len(letters)), stored[kind], names=["a", "b"] if kind == "class" else None
    )
    config = load([*TABLE, f"data.path={path}"])["data"]
    found, names = numbered(picture_table(config, locate(config)), "label", config, None)
    want = {"text": "ab", "class": "ab", "int": ["5", "8"], "float": ["0", "1"], "bool": ["false", "true"]}[kind]
    assert [names[i] for i in found["train"]] == [want[n] for n in number]


# -- classes are kept with the run -------------------------------------------------------------------------------------


@pytest.fixture
def coloured(tmp_path):
    """A folder of two classes and a run on it."""
    for label, grey in (("red", 20), ("yellow", 220)):
        for i in range(8):
            picture(tmp_path / "set" / label / f"{i}.png", grey + i)
    words = [*TINY_VIT, *SHORT, *FOLDER[1:], "data.path=set", "norm=layernorm", "data.val_fraction=0.25"]
    _, run = train(*words)
    return words, run


def test_a_run_is_evaluated_on_its_classes_by_name(coloured, tmp_path):
    from eval import evaluate_run, parse

    _, run = coloured
    own, _ = evaluate_run(parse([f"run={run}", "device=cpu"]))
    os.rename("set/red", "set/zred")  # the order of names changes, and the names do
    with pytest.raises(ValueError, match="class zred is unknown to the weights, whose classes are red, yellow"):
        evaluate_run(parse([f"run={run}", "data.path=set"]))
    os.rename("set/zred", "set/red")
    for i in range(8):
        picture(tmp_path / "less" / "train" / "yellow" / f"{i}.png", 220 + i)
        picture(tmp_path / "less" / "val" / "yellow" / f"{i}.png", 220 + i)
    less = open_data(load([*FOLDER, "data.path=less"])["data"], known={"classes": ["red", "yellow"]})
    assert set(less.labels["val"].tolist()) == {1} and less.spec.classes == 2
    assert own["data_sha256"] == own["run_data_sha256"]


def test_init_from_goes_by_class_name_or_is_refused(coloured, tmp_path):
    words, run = coloured
    for label, grey in (("green", 20), ("red", 220)):
        for i in range(8):
            picture(tmp_path / "other" / label / f"{i}.png", grey + i)
    words = [w.replace("data.path=set", "data.path=other") for w in words]
    with pytest.raises(ValueError, match="class green is unknown to the weights, whose classes are red, yellow"):
        train(*words, f"init_from={run}")
    assert data(*FOLDER, "data.path=set", known={"classes": ["yellow", "red"]}).spec.names == ("yellow", "red")


def test_a_share_of_few_pictures_a_class_is_still_a_share():
    """Ten per cent of five in each of four classes: two rows, not none."""
    from dyt.data.images import hold_out

    kept, held = hold_out(np.repeat(np.arange(4), 5), 0.1)
    assert len(held) == 2 and len(kept) == 18 and not set(kept) & set(held)
    with pytest.raises(ValueError, match="of 4 training samples leaves one side empty"):
        hold_out(np.arange(4), 0.1)
