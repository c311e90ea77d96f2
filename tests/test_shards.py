"""Shards: the same bytes whatever the workers and however often killed; training on them as on the text itself."""

import contextlib
import errno
import gc
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dyt.config.compose import load
from dyt.data import open_data, prepare, tokenizing
from dyt.data.inputs import inputs_of
from dyt.data.order import Order
from dyt.data.tokenizer import Tokenizer
from dyt.data.tokenizing import batches
from dyt.rundir.files import sha256_of

from .helpers import ROOT, one_line, python, rows_of, train

sys.path.insert(0, str(ROOT / "scripts"))
import prepare_data  # noqa: E402

WORDS = "".join(f"line {i} of a small text with some words in it: né, 漢字\n" for i in range(3000))
GPT = ["model=gpt_nano", "model.dim=16", "model.depth=2", "model.heads=2", "model.context=16", "trainer.threads=1"]
PLAIN = {"path": None, "hub": None, "name": "", "cache_dir": None, "text_key": None, "encoding": None}
PLAIN |= {"on_error": "raise", "hub_config": None, "revision": None}


def bpe(path: Path) -> Path:
    """A small BPE with GPT-2's way of cutting words, trained on the text itself."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(WORDS.splitlines(keepends=True), trainer)
    made.save(str(path))
    return path


def texts(folder: Path) -> Path:
    """A folder with three splits, in as many storages."""
    folder.mkdir()
    (folder / "train-1.jsonl").write_text("".join(json.dumps({"text": w}) + "\n" for w in WORDS.splitlines()))
    (folder / "train-2.jsonl.gz").write_bytes(gzip.compress((folder / "train-1.jsonl").read_bytes()))
    (folder / "validation.jsonl").write_text("".join(json.dumps({"text": w}) + "\n" for w in WORDS.splitlines()[:500]))
    return folder


def made(source, out, tokenizer="byte", workers=1, **more) -> dict:
    data = PLAIN | {k: v for k, v in more.items() if k in PLAIN}
    size = {"size": more["size"]} if "size" in more else {}
    return prepare.prepare([str(source)], Tokenizer.named(str(tokenizer)), Path(out), workers, data, **size)


def sums(folder: Path) -> dict[str, str]:
    return {f.name: sha256_of(f) for f in sorted(Path(folder).iterdir())}


def opened(*words, context=16):
    return open_data(load([*GPT, "data=shards", *words])["data"], context)


# -- what is written -----------------------------------------------------------------------------------------------


def test_the_bytes_are_the_same_whatever_the_workers_and_batches_cross_no_end(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "BATCH", 5000)  # many batches, also in the workers' parent alone
    texts(tmp_path / "in")
    tokenizer = bpe(tmp_path / "tokenizer.json")
    index = made(tmp_path / "in", "one", tokenizer, size=20_000)
    made(tmp_path / "in", "two", tokenizer, workers=2, size=20_000)
    assert sums("one") == sums("two") and len(sums("one")) > 8
    train = index["splits"]["train"]
    assert index["dtype"] == "uint16" and len(train["shards"]) > 2 and train["documents"] == 2 * 3000
    # Every document comes back, ended by the tokenizer's own mark, and the ends say where.
    ids = np.concatenate([np.fromfile(f"one/{s['file']}", "<u2") for s in train["shards"]])
    ends, off = [], 0
    for shard in train["shards"]:
        assert sha256_of(Path("one") / shard["file"]) == shard["sha256"]
        found = np.fromfile(f"one/{shard['file'].replace('.bin', '.ends')}", "<u8").astype(int)
        ends += (found + off).tolist()
        off += shard["tokens"]
    known = Tokenizer.named(str(tokenizer))
    cuts = [ids[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    assert all(cut[-1] == known.end for cut in cuts) and ends[-1] == len(ids)
    assert [known.decode(cut[:-1]) for cut in cuts] == 2 * WORDS.splitlines()


def test_a_start_at_the_end_of_any_batch_gives_the_later_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "BATCH", 7000)
    (tmp_path / "t.txt").write_text(WORDS)
    inputs = [*inputs_of([str(texts(tmp_path / "in"))], PLAIN), *inputs_of([str(tmp_path / "t.txt")], PLAIN)]
    whole = list(batches(inputs, PLAIN, (0, 0)))
    assert len(whole) > 50
    for i in range(0, len(whole), 7):
        later = list(batches(inputs, PLAIN, whole[i].then))
        assert [(b.texts, b.ends, b.then) for b in later] == [(b.texts, b.ends, b.then) for b in whole[i + 1 :]]


@pytest.mark.parametrize("save_s, batches_a_start", [(0.0, 5), (1e9, 8), (1e9, 13)])
def test_ended_after_any_batch_and_started_again_it_gives_the_same_sums(save_s, batches_a_start, tmp_path, monkeypatch):
    """Noted after each batch, or at the ends of shards alone: then what was written since is written again."""
    monkeypatch.setattr(tokenizing, "BATCH", 20_000)
    texts(tmp_path / "in")
    whole = made(tmp_path / "in", "whole", size=100_000)
    count = 0

    class Ended(BaseException):
        """As abrupt as a kill: nothing is noted."""

    def tell(progress):
        nonlocal count
        count += 1
        if count % batches_a_start == 0:
            raise Ended

    monkeypatch.setattr(prepare, "SAVE_S", save_s)
    while not Path("cut/index.json").exists():
        with contextlib.suppress(Ended):
            prepare.prepare([str(tmp_path / "in")], Tokenizer("byte"), Path("cut"), 1, PLAIN, 100_000, tell)
    assert count >= 20 and sums("cut") == sums("whole") and whole["splits"]["train"]["documents"] == 6000


def test_stopped_while_a_shard_is_closed_it_gives_the_same_sums(tmp_path, monkeypatch):
    """Ctrl-C within a batch: that it was added is not noted, or all of it is."""
    monkeypatch.setattr(tokenizing, "BATCH", 20_000)
    texts(tmp_path / "in")
    made(tmp_path / "in", "whole", size=100_000)
    fsync = os.fsync
    for which in range(1, 13):
        left = which

        def stopping(number):
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            fsync(number)

        monkeypatch.setattr(os, "fsync", stopping)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "in", f"cut-{which}", size=100_000)
        monkeypatch.setattr(os, "fsync", fsync)
        made(tmp_path / "in", f"cut-{which}", size=100_000)
        assert sums(f"cut-{which}") == sums("whole"), which


@pytest.mark.parametrize("name", ["index.json", "progress.json"])
def test_a_full_disk_at_any_file_is_gone_on_from(name, tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text(WORDS)
    made("t.txt", "whole")
    replace = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(prepare, "SAVE_S", 0.0)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        made("t.txt", "cut")
    monkeypatch.setattr(os, "replace", replace)
    made("t.txt", "cut")
    assert sums("cut") == sums("whole")


def test_an_open_shard_that_lost_its_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "BATCH", 20_000)
    (tmp_path / "t.txt").write_text(WORDS)

    def tell(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(["t.txt"], Tokenizer("byte"), Path("cut"), 1, PLAIN, tell=tell)
    part = Path("cut/train-00000.bin.part")
    os.truncate(part, part.stat().st_size - 1)
    with pytest.raises(ValueError, match=r"train-00000.bin.part is shorter than progress.json says; type another"):
        made("t.txt", "cut")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_started_again_it_gives_the_same_sums(workers, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(3):
        (tmp_path / "in" / f"copy-{i}.txt").write_text(WORDS * 40)
    command = ["in", "--tokenizer", str(bpe(tmp_path / "tokenizer.json")), "--workers", str(workers)]
    command += ["--shard-tokens", "500000"]
    script = str(ROOT / "scripts" / "prepare_data.py")
    assert python(script, *command, "--out", "whole").returncode == 0
    for i in range(4):
        running = subprocess.Popen([sys.executable, script, *command, "--out", "cut"], stderr=subprocess.DEVNULL)
        seen = _progress("cut")
        while running.poll() is None and _progress("cut") == seen:
            time.sleep(0.002)
        time.sleep(0.04 * i)  # and has written more since it noted how far it is
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        children = children.read_text().split() if children.exists() else []
        running.send_signal(signal.SIGKILL)
        running.wait()
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}").exists() and not _zombie(pid) for pid in children):
            assert time.monotonic() < deadline, "a worker outlives its parent"
            time.sleep(0.01)
    assert not (Path("cut") / "index.json").exists()
    assert python(script, *command, "--out", "cut").returncode == 0
    assert sums("cut") == sums("whole")


def _progress(out: str) -> str | None:
    file = Path(out) / "progress.json"
    try:
        return json.loads(file.read_text())["then"]
    except (OSError, ValueError):
        return None


def _zombie(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except OSError:
        return True


def test_memory_is_flat_in_the_size_of_the_input(tmp_path, monkeypatch):
    import tracemalloc

    from dyt.data import documents

    monkeypatch.setattr(tokenizing, "BATCH", 20_000)
    monkeypatch.setattr(documents, "BLOCK", 20_000)
    peaks = []
    for times in (2, 10):
        (tmp_path / "t.txt").write_text(WORDS * times)
        tracemalloc.start()
        made(tmp_path / "t.txt", f"out-{times}", size=100_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 10 * len(WORDS)


def test_a_hub_set_is_streamed_document_by_document(tmp_path, monkeypatch):
    import datasets

    rows = datasets.Dataset.from_dict({"text": WORDS.splitlines()})
    rows.to_parquet(tmp_path / "train.parquet")
    real, asked = datasets.load_dataset, []

    def load_dataset(name, *more, **named):
        asked.append((name, named["streaming"]))
        return real("parquet", data_files={"train": str(tmp_path / "train.parquet")}, streaming=True)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    index = prepare.prepare(["owner/name"], Tokenizer("byte"), tmp_path / "out", 1, PLAIN)
    assert asked == [("owner/name", True)] and index["splits"]["train"]["documents"] == 3000
    assert np.fromfile(tmp_path / "out/train-00000.bin", "<u2").astype(np.uint8).tobytes().decode() == WORDS
    # It goes on at a document, as where files are read.
    inputs = inputs_of(["owner/name"], PLAIN)
    later = next(batches(inputs, PLAIN, (0, 2990)))
    assert later.texts == WORDS.splitlines()[2990:]


# -- what is refused -----------------------------------------------------------------------------------------------


def refused(*words: str, **environment) -> str:
    return one_line(python(str(ROOT / "scripts" / "prepare_data.py"), *words, **environment))


def test_bad_input_is_one_line(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "t.jsonl").write_text('{"body": "a"}\n')
    (tmp_path / "null.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    to = ["--out", "out", "--workers", "1", "--tokenizer"]
    assert "nowhere: no such file or folder, and no name of the hub" in refused("nowhere", *to, "byte")
    assert "without a network name files or folders" in refused("owner/name", *to, "byte", HF_HUB_OFFLINE="1")
    assert "choose from byte, gpt2, a tokenizer.json" in refused("t.txt", *to, "gpt5")
    assert "no tokenizer.json of Hugging Face" in refused("t.txt", *to, "none.json")
    assert "type --encoding cp1252" in refused("bad.txt", *to, "byte")
    assert "--text-key text: no such column in train; it has body" in refused("t.jsonl", *to, "byte")
    assert "line 2 has no text; --on-error skip leaves such rows out" in refused("null.jsonl", *to, "byte")
    assert made("t.txt", "other")["splits"]["train"]["tokens"] == len(WORDS.encode())
    assert "made with text_key null, and this is" in refused(
        "t.txt", "--text-key", "b", "--tokenizer", "byte", "--out", "other"
    )
    assert "made with inputs" in refused("null.jsonl", "--on-error", "raise", "--tokenizer", "byte", "--out", "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    assert "holds letter.txt; type a folder that is empty" in refused("t.txt", "--tokenizer", "byte", "--out", "full")


def test_gpt2_without_its_files_says_what_to_fetch(monkeypatch, tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    said = refused("t.txt", "--tokenizer", "gpt2", "--out", "out", TIKTOKEN_CACHE_DIR=str(tmp_path / "empty"))
    assert "pip install tiktoken" in said or "TIKTOKEN_CACHE_DIR" in said


def test_a_disk_too_small_is_found_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text(WORDS)
    need = 2 * len(WORDS.encode())
    usage = type("usage", (), {"free": need - 1000})
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="the tokens take about .* GiB more, and .* GiB are free"):
        made("t.txt", "out")
    assert not list(Path("out").glob("*.bin*"))
    usage.free = need + 1000
    assert made("t.txt", "out")["splits"]["train"]["tokens"] * 2 == need


def touching(action) -> str:
    """The command that a refusal names."""
    with pytest.raises(ValueError, match="t.txt: was written since; type another folder, or, .*, touch -d") as refused:
        action()
    typed = re.search("touch .*", str(refused.value))[0]
    del refused
    gc.collect()  # and with the error goes the lock of what was refused, as at the end of a process
    return typed


def test_an_input_that_was_written_since_is_looked_at_again(tmp_path):
    """Edited in its middle, at the same size, it read as what the shards were made from."""
    file = tmp_path / "t.txt"
    file.write_text(WORDS)
    ready = made(file, "out")
    os.utime(file, ns=(1, 1))  # copied here again, for one
    assert made(file, "out") == ready
    text = file.read_text()
    file.write_text(text.replace("line 1500 ", "LINE 1500 "))
    with pytest.raises(ValueError, match="t.txt: holds something else than what was read; type another folder"):
        made(file, "out")
    file.write_text(text)
    assert made(file, "out") == ready
    index = Path("out/index.json")
    index.write_text(json.dumps({k: v for k, v in ready.items() if k != "input_sums"}))  # as of one not read to its end
    typed = touching(lambda: made(file, "out"))
    subprocess.run(typed, shell=True, check=True)
    assert made(file, "out")["splits"] == ready["splits"]
    ready["settings"]["inputs"][0].pop()  # as older folders are
    index.write_text(json.dumps(ready))
    os.utime(file, ns=(1, 1))
    assert made(file, "out") == ready


def test_a_second_process_in_the_same_folder_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    first = prepare.Shards(tmp_path / "out", {}, "uint16", 100)
    with pytest.raises(ValueError, match="another prepare_data.py writes there"):
        prepare.Shards(tmp_path / "out", {}, "uint16", 100)
    first.lock.close()


def test_shards_that_are_missing_cut_or_altered_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizing, "BATCH", 20_000)
    (tmp_path / "t.txt").write_text(WORDS)
    made("t.txt", "set", size=1 << 16)
    shard = Path("set/train-00001.bin")
    whole = shard.read_bytes()
    assert opened("data.path=set").spec.vocab_size == 256
    shard.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(ValueError, match=r"the content of train-00001.bin is not what was written \(sha256 differs\)"):
        opened("data.path=set")
    assert opened("data.path=set", "data.verify=false").spec.vocab_size == 256
    shard.write_bytes(whole[:-2])
    with pytest.raises(ValueError, match="the shard train-00001.bin has .* bytes, and its index says"):
        opened("data.path=set")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="the shard train-00001.bin is missing"):
        opened("data.path=set")
    shard.write_bytes(whole)
    assert sum(opened("data.path=set").spec.sizes.values()) == len(WORDS.encode())
    with pytest.raises(ValueError, match="holds neither index.json nor train.bin"):
        opened("data.path=t.txt")


def test_a_vocabulary_larger_than_the_models_is_refused(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    made("t.txt", "set", bpe(tmp_path / "tokenizer.json"))
    done = python("train.py", *GPT, "data=shards", "data.path=set", "model.vocab_size=300", "trainer.max_steps=1")
    assert "model.vocab_size=300 is smaller than the data's 400" in one_line(done)


# -- what is read --------------------------------------------------------------------------------------------------


def test_a_run_on_shards_is_the_run_on_the_text(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train.txt").write_text(WORDS)
    (tmp_path / "in" / "validation.txt").write_text(WORDS[:4000])
    made("in", "set", size=50_000)
    words = [*GPT, "trainer.max_steps=4", "trainer.eval_every=2", "trainer.log_every=1", "data.eval_batch_size=7"]
    _, text = train(*words, "data=hf_text", "data.path=in", out="a")
    _, shards = train(*words, "data=shards", "data.path=set", out="b")
    assert rows_of(text) == rows_of(shards) and len(rows_of(text)) == 4


def test_a_run_on_a_mixture_goes_on_to_the_bit(tmp_path, capsys):
    for name in ("web", "code"):
        (tmp_path / f"{name}.txt").write_text(WORDS if name == "web" else WORDS[::-1])
        made(f"{name}.txt", f"sets/{name}")
    words = [*GPT, "data=shards", "data.path=sets", "data.mix={web: 0.7, code: 0.3}", "trainer.log_every=1"]
    _, whole = train(*words, "trainer.max_steps=6", "trainer.eval_every=3", out="whole")
    done = python(
        "train.py", *words, "trainer.max_steps=6", "trainer.eval_every=3", "out_root=cut", "trainer.save_every=2"
    )
    assert done.returncode == 0, done.stderr
    cut = next(Path("cut/default").iterdir())
    last = list((cut / "checkpoints").glob("step-000000006*"))
    assert last
    for checkpoint in last:
        checkpoint.unlink()
    for checkpoint in (cut / "checkpoints").glob("best-*"):
        checkpoint.unlink()
    (cut / "summary.json").unlink()
    capsys.readouterr()
    _, again = train(*words, "trainer.max_steps=6", "trainer.eval_every=3", "trainer.save_every=2", out="cut")
    assert "resumed at step 4" in capsys.readouterr().out
    assert again.resolve() == cut.resolve() and rows_of(again) == rows_of(whole)


def test_a_mixture_has_of_each_set_its_share_and_each_window_once(tmp_path):
    sizes = {"web": 40_000, "code": 30_000}
    for name, start in (("web", 0), ("code", 128)):
        folder = tmp_path / "sets" / name
        folder.mkdir(parents=True)
        ids = start + np.arange(sizes[name]) % 100
        ids.astype("<u2").tofile(folder / "train.bin")
        ids[:100].astype("<u2").tofile(folder / "val.bin")
    mixed = opened("data.path=sets", "data.mix={web: 3, code: 1}", "data.vocab=256")
    order = Order(mixed.samples, 100, seed=0)
    windows = mixed.windows(0)
    # The web is the scarcer for its share: an epoch shows each of its windows once, and a third as many of the code.
    assert windows.counts[0] == windows.parts[0].size and windows.counts[1] == windows.counts[0] // 3
    seen = [windows.row(0, i) for i in range(windows.size)]
    of_web = [row for row in seen if row[0] < 128]
    assert len(of_web) == windows.counts[0] and len({row.tobytes() for row in of_web}) > 20
    share = np.mean([int(x[0, 0] < 128) for x, _ in mixed.train_batches(order, 0, 20) for x in x[:, None]])
    assert abs(share - 0.75) < 0.05
    # What the first epoch left of the code comes in the second.
    firsts = [int(windows.row(epoch, windows.size - windows.counts[1])[0]) for epoch in (0, 1)]
    assert firsts[0] != firsts[1] or windows.counts[1] % 100 == 0
    assert mixed.spec.sizes == {"train": 70_000, "val": 200}
    # Part of an evaluation has of both sets, in turn; all of it has one after the other.
    one_each = [bool((x < 128).all()) for x, _ in mixed.eval_batches("val", limit=2)]
    assert one_each == [True, False]
    everything = [bool((x < 128).all()) for x, _ in mixed.eval_batches("val")]
    assert everything == sorted(everything, reverse=True) and len(everything) > 2
    with pytest.raises(ValueError, match="needs a share above 0 for each set"):
        opened("data.path=sets", "data.mix={web: 1, code: 0}")
    with pytest.raises(FileNotFoundError, match="data.mix: sets/books: no such folder"):
        opened("data.path=sets", "data.mix={web: 1, books: 1}")


def test_the_identity_of_a_mixture_is_its_content_and_shares(tmp_path):
    from dyt.data.sources import locate

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.arange(4000, dtype="<u2").tofile(tmp_path / name / "train.bin")
    (tmp_path / "b" / "train.bin").write_bytes(np.arange(4000, dtype="<u2")[::-1].tobytes())

    def sha(*words):
        return locate(load([*GPT, "data=shards", *words])["data"]).sha256

    assert sha("data.mix={a: 1, b: 1}") == sha("data.mix={a: 2, b: 2}") != sha("data.mix={a: 2, b: 1}")
    before = sha("data.path=a")
    (tmp_path / "a").rename(tmp_path / "c")
    assert sha("data.path=c") == before != sha("data.path=b")


def test_nanogpts_files_are_read_as_what_they_are(tmp_path):
    ids = np.tile(np.arange(65), 100).astype("<u2")
    for name in ("train", "val"):
        ids.tofile(tmp_path / f"{name}.bin")
    (tmp_path / "meta.pkl").write_bytes(b"cos\nsystem\n(S'touch sprung'\ntR.")
    source = opened(f"data.path={tmp_path}")
    assert source.spec.vocab_size == 65 and source.tokenizer.decode([3, 64]) == "3 64"
    inputs, targets = next(iter(source.eval_batches("val")))
    assert torch.equal(inputs[0], torch.arange(16)) and torch.equal(targets[0], torch.arange(1, 17))
    assert not (tmp_path / "sprung").exists()
    assert opened(f"data.path={tmp_path}", "data.vocab=100").spec.vocab_size == 100
    assert opened(f"data.path={tmp_path}", "data.tokenizer=byte").tokenizer.decode([64]) == "@"
    with pytest.raises(ValueError, match="data.vocab=10: .* holds the id 64, .* type data.vocab=65"):
        opened(f"data.path={tmp_path}", "data.vocab=10")
    (tmp_path / "val.bin").unlink()
    ids[0] = 50256
    ids.tofile(tmp_path / "train.bin")
    source = opened(f"data.path={tmp_path}")  # the last tenth is validation
    assert source.spec.vocab_size == 50257 and source.spec.sizes == {"train": 5850, "val": 650}
    (tmp_path / "train.bin").write_bytes((20240520).to_bytes(4, "little") + ids.tobytes())
    with pytest.raises(ValueError, match="has llm.c's header"):
        opened(f"data.path={tmp_path}")


def test_text_refuses_token_ids_and_names_the_word(tmp_path):
    np.arange(4000, dtype="<u2").tofile(tmp_path / "train.bin")
    with pytest.raises(ValueError, match="train.bin is token ids .* type data=shards"):
        open_data(load([*GPT, "data=hf_text", f"data.path={tmp_path}"])["data"], 16)


def test_a_trained_run_writes_text_of_its_own_tokens(tmp_path):
    (tmp_path / "t.txt").write_text(WORDS)
    made("t.txt", "set", bpe(tmp_path / "tokenizer.json"))
    _, run = train(*GPT, "data=shards", "data.path=set", "trainer.max_steps=2")
    done = python("eval.py", f"run={run}", "sample=5", "prompt=line 1 of")
    assert done.returncode == 0 and done.stdout.startswith("line 1 of"), done.stderr


@pytest.mark.parametrize("ending", ["zst", "gz"])
def test_zst_is_unpacked_as_gz_is(ending, tmp_path):
    import pyarrow as pa

    packed = pa.compress(WORDS.encode(), "zstd", asbytes=True) if ending == "zst" else gzip.compress(WORDS.encode())
    (tmp_path / f"t.txt.{ending}").write_bytes(packed)
    source = open_data(load([*GPT, "data=hf_text", f"data.path=t.txt.{ending}"])["data"], 16)
    assert bytes(source.tokens["train"]) + bytes(source.tokens["val"]) == WORDS.encode()
    (tmp_path / f"cut.txt.{ending}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match="cannot be unpacked"):
        open_data(load([*GPT, "data=hf_text", f"data.path=cut.txt.{ending}"])["data"], 16)


def test_the_script_says_how_far_it_is_and_what_it_made(tmp_path, capsys):
    (tmp_path / "t.txt").write_text(WORDS)
    assert prepare_data.main(["t.txt", "--tokenizer", "byte", "--out", "out", "--workers", "1"]) == 0
    assert f"train: {len(WORDS.encode()):,} tokens, 1 documents, 1 shards (uint16)" in capsys.readouterr().out
    progress = prepare.Progress(10**9, prepare.Shards(tmp_path / "p", {}, "uint16", 100))
    progress.began -= 10
    progress.seen(10**8, 10**7)
    said = r"10% of about 1,000 MB: 10,000,000 tokens, 10\.0 MB/s, (999|1,000),\d{3} tokens/s, (89|90) s left"
    assert re.fullmatch(said, str(progress))
    assert os.path.exists("out/index.json") and not os.path.exists("out/progress.json")


def test_a_dry_run_reckons_with_the_ids_as_they_are_stored(tmp_path):
    """Bytes: of a text, which is kept as one byte a token; and of shards, which have two, or four where told so."""
    from dyt.forecast.reckon import data_of, sample_bytes

    def stored(path, *words):
        config = load([*GPT, f"data.path={path}", *words])
        return sample_bytes(config, data_of(config)[0])

    (tmp_path / "a.txt").write_text(WORDS)
    assert stored(tmp_path / "a.txt", "data=hf_text") == (16, "token ids")
    prepare.prepare([str(tmp_path / "a.txt")], Tokenizer("byte"), tmp_path / "out", 1, PLAIN)
    assert stored(tmp_path / "out", "data=shards") == (32, "token ids")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    for file in (tmp_path / "out").glob("*.bin"):
        file.write_bytes(np.fromfile(file, dtype="<u2").astype("<u4").tobytes())
    (tmp_path / "out" / "index.json").write_text(json.dumps(index | {"dtype": "uint32"}))
    assert stored(tmp_path / "out", "data=shards", "data.verify=false") == (64, "token ids")
    config = load(["model=dt_nano", "data.episodes=12", "model.context=4"])
    data, _ = data_of(config)
    batch, real = data.windows(np.array([0]))
    numbers = sum(part.numel() for part in batch if part.is_floating_point())  # returns to come stand for rewards
    assert sample_bytes(config, data) == (4 * numbers, "32-bit numbers")
