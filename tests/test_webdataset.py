"""WebDataset's tar shards: the pictures and classes that lie in them, by any worker, exact when resumed."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dyt.config.compose import load
from dyt.data import open_data
from dyt.data.order import Order

WORDS = ["model=vit_nano", "data=imagefolder", "data.img_size=16", "data.patch_size=8", "data.batch_size=4"]


def png(value: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, dtype=np.uint8)).save(out, "png")
    return out.getvalue()


def tar(path, members: dict[str, bytes]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            out.addfile(about, io.BytesIO(content))
    return path


def shards(root, label="cls") -> None:
    """Two shards of training and one of validation; picture i is of class i % 3 and brightness 10 i."""
    for name, ids in (("set-train-0000", range(6)), ("set-train-0001", range(6, 12)), ("set-val-00", range(12, 18))):
        members: dict[str, bytes] = {}
        for i in ids:
            members[f"s{i:02d}.png"] = png(10 * i)
            members[f"s{i:02d}.{label}"] = (
                str(i % 3).encode() if label == "cls" else json.dumps({"label": i % 3}).encode()
            )
        tar(root / f"{name}.tar", members)


def data(path, *words):
    return open_data(load([*WORDS, f"data.path={path}", "data.scale=null", "data.hflip=0", *words])["data"], None)


@pytest.mark.parametrize("label", ["cls", "json"])
def test_pictures_and_classes_come_out_of_tars(label, tmp_path):
    shards(tmp_path / "set", label)
    source = data(tmp_path / "set")
    assert source.spec.sizes == {"train": 12, "val": 6} and source.spec.names == ("0", "1", "2")
    images, labels = next(iter(source.eval_batches("val")))
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]
    mean, std = (torch.tensor(source.data[k])[:, None, None] for k in ("mean", "std"))
    assert torch.allclose(
        (images * std + mean) * 255, torch.arange(120, 180, 10.0)[:, None, None, None].expand(6, 3, 16, 16), atol=1e-3
    )


def test_workers_and_a_later_start_change_nothing(tmp_path):
    shards(tmp_path / "set")
    whole = list(data(tmp_path / "set").train_batches(Order(12, 4, 0), 0, 6))
    later = list(data(tmp_path / "set", "data.workers=2").train_batches(Order(12, 4, 0), 3, 6))
    for (a, la), (b, lb) in zip(whole[3:], later, strict=True):
        assert torch.equal(a, b) and torch.equal(la, lb)


def test_a_set_that_was_moved_or_copied_is_read_where_it_is(tmp_path, monkeypatch):
    """Under the same relative path and in the same cache; the place it came from is gone, or holds something else."""
    shards(tmp_path / "first" / "set")
    for project in ("first", "second", "third"):
        monkeypatch.chdir(tmp_path / project)
        source = data("set", f"data.cache_dir={tmp_path / 'cache'}")
        batch, _ = next(iter(source.eval_batches("val")))
        assert {Path(row["image"]["tar"]).parent for row in source.splits["val"]} == {tmp_path / project / "set"}
        if project == "first":
            want = batch
            shutil.copytree(tmp_path / "first", tmp_path / "second")
        if project == "second":
            (tmp_path / "second").rename(tmp_path / "third")
            for file in (tmp_path / "first" / "set").glob("*.tar"):
                file.write_bytes(b"0" * file.stat().st_size)
        assert torch.equal(batch, want)


def test_faults_are_named(tmp_path):
    tar(tmp_path / "a" / "x.tar", {"s1.png": png(1), "s1.cls": b"0", "s2.png": png(2)})
    with pytest.raises(
        ValueError, match=r"s2 in x.tar has no label \(a .cls, or label in a .json\); data.on_error=skip"
    ):
        data(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "y.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match="y.tar is no plain tar"):
        data(tmp_path / "b")
    shards(tmp_path / "c")
    cut = (tmp_path / "c" / "set-train-0001.tar").read_bytes()
    (tmp_path / "c" / "set-train-0001.tar").write_bytes(cut[:3000])
    with pytest.raises(ValueError, match="set-train-0001.tar is no plain tar"):
        data(tmp_path / "c")
    members = {f"s{i}.png": png(i) if i else b"broken" for i in range(20)} | {
        f"s{i}.cls": b"%d" % (i % 2) for i in range(20)
    }
    tar(tmp_path / "d" / "z.tar", members)
    source = data(tmp_path / "d")
    with pytest.raises(ValueError, match=r"image in row \d+ \(.*z.tar\) cannot be decoded"):
        list(source.train_batches(Order(18, 18, 0), 0, 1)), list(source.eval_batches("val"))
