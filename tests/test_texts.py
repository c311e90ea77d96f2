"""Texts: every encoding and kind of file gives its own characters, or one line that names file, line and cause."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dyt.config.compose import load
from dyt.data import open_data

from .helpers import ROOT, TINY_GPT, one_line, python, train

TEXT = ["model=gpt_nano", "data=hf_text"]
SHORT = ["trainer.max_steps=2", "trainer.eval_batches=1", "trainer.log_every=1", "logger.mode=disabled"]
WORDS = "".join(f"caf\u00e9 number {i}\n" for i in range(40))
MARKED = {"utf-8-sig": "utf-8-sig", "utf-16": "utf-16", "utf-32": "utf-32"}


def data(*words, known=None):
    return open_data(load([*TEXT, *words])["data"], 16, known)


def text_of(source) -> str:
    return source.tokenizer.decode([i for s in ("train", "val") for i in source.tokens[s].tolist()])


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_says_the_encoding_and_is_no_token(encoding, tokenizer, tmp_path):
    (tmp_path / "t.txt").write_bytes(WORDS.encode(encoding))
    source = data("data.path=t.txt", f"data.tokenizer={tokenizer}")
    assert text_of(source) == WORDS
    assert sum(source.spec.sizes.values()) == len(WORDS.encode() if tokenizer == "byte" else WORDS)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_without_a_mark_the_word_to_type_is_named(encoding, tmp_path):
    (tmp_path / "t.txt").write_bytes(WORDS.encode(encoding))
    with pytest.raises(ValueError, match=f"t.txt looks like {encoding} .*; type data.encoding={encoding}"):
        data("data.path=t.txt")
    assert text_of(data("data.path=t.txt", f"data.encoding={encoding}")) == WORDS


def test_windows_text_is_named_by_line(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"plain\n" * 5 + WORDS.encode("cp1252"))
    with pytest.raises(ValueError, match="t.txt, line 6: byte 0xe9 is not utf-8; .* type data.encoding=cp1252"):
        data("data.path=t.txt")
    assert text_of(data("data.path=t.txt", "data.encoding=cp1252")) == "plain\n" * 5 + WORDS
    with pytest.raises(ValueError, match="data.encoding=cp9999: unknown; type e.g. utf-8"):
        data("data.path=t.txt", "data.encoding=cp9999")
    (tmp_path / "u.txt").write_bytes(WORDS.encode("utf-8-sig"))
    with pytest.raises(ValueError, match="the byte order mark of utf-8-sig; leave data.encoding=cp1252 out"):
        data("data.path=u.txt", "data.encoding=cp1252")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_are_kept(end, tmp_path):
    text = WORDS.replace("\n", end)
    (tmp_path / "t.txt").write_bytes(text.encode())
    source = data("data.path=t.txt")
    assert bytes(source.tokens["train"]) + bytes(source.tokens["val"]) == text.encode()


@pytest.mark.parametrize("tokenizer", ["byte", "char"])
def test_files_without_a_final_newline_do_not_become_one_word(tokenizer, tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    for name, text in {"a": "one\ntwo", "b": "", "c": "three\n", "d": "four\r", "e": "end"}.items():
        (folder / f"{name}.txt").write_bytes((text * 20).encode())
    source = data("data.path=train", f"data.tokenizer={tokenizer}", "data.val_fraction=0.2")
    assert text_of(source) == "one\ntwo" * 20 + "\n" + "three\n" * 20 + "four\r" * 20 + "end" * 20


@pytest.mark.parametrize("dtype", ["<u2", "<u4"])
@pytest.mark.parametrize("name", ["train.bin", "train.txt", "data/train.bin"])
def test_token_ids_are_no_text(dtype, name, tmp_path):
    import numpy as np

    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(np.tile(np.arange(65), 100).astype(dtype).tobytes())
    (file.parent / "meta.pkl").write_bytes(b"cos\nsystem\n(S'touch sprung'\ntR.")
    path = file.parent if "/" in name else file
    with pytest.raises(ValueError, match="token ids"):
        data(f"data.path={path}")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("ending", ["npy", "pt", "zip", "pdf", "arrow", "pkl"])
def test_other_files_say_what_they_are(ending, tmp_path):
    (tmp_path / f"t.{ending}").write_bytes(b"abc " * 200)
    with pytest.raises(ValueError, match=f"t.{ending} is (a|numbers)"):
        data(f"data.path=t.{ending}")


def rows_as(kind: str, rows: list[str]) -> bytes:
    if kind in ("csv", "tsv"):
        out = io.StringIO()
        csv.writer(out, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n").writerows([["id", "text"]])
        csv.writer(out, delimiter="\t" if kind == "tsv" else ",", lineterminator="\n").writerows(enumerate(rows))
        return out.getvalue().encode()
    made = [{"id": i, "text": row} for i, row in enumerate(rows)]
    return (json.dumps(made, indent=1) if kind == "json" else "".join(json.dumps(r) + "\n" for r in made)).encode()


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "ndjson", "parquet"])
def test_tables_of_every_kind_give_the_same_text(kind, mark, tmp_path):
    rows = [f'row {i}: "NA", 007, a\tb' for i in range(30)] + ["null", "1e5"]
    if kind == "parquet":
        import pandas

        pandas.DataFrame({"text": rows}).to_parquet(tmp_path / "t.parquet")
    else:
        (tmp_path / f"t.{kind}").write_bytes(mark + rows_as(kind, rows))
    assert text_of(data(f"data.path=t.{kind}")) == "".join(row + "\n" for row in rows)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("t.jsonl", '{"text": "a"}\n{"text": \n', "t.jsonl, line 2: no JSON"),
        ("t.ndjson", '{"text": "a"}\n"b"\n', "t.ndjson, line 2: str, not an object"),
        ("t.json", '[{"text": "a"}, 5]', "t.json, item 1: int, not an object"),
        ("t.csv", "id,text\n1,a\n2,b,c\n", "t.csv, line 3: 3 fields, and the first line has 2"),
        ("t.csv", 'id,text\n1,"a\n', "t.csv, line 2: unexpected end of data"),
        ("t.csv", "id,body\n1,a\n", "data.text_key=text: no such column in train; it has id, body"),
        ("t.jsonl", '{"text": 5}\n', "data.text_key=text: holds int, not text, in train (t.jsonl, line 1)"),
        ("t.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n', "t.jsonl, line 2: holds half a character"),
        ("t.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "type git lfs pull"),
        ("t.txt", "abc\nde\0f\n", "t.txt holds NUL bytes"),
    ],
)
def test_a_fault_names_file_line_and_cause(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError) as error:
        data(f"data.path={name}")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_packed_text_and_a_packed_text_that_is_cut_off(tmp_path):
    import bz2
    import lzma

    for ending, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        (tmp_path / f"t.txt.{ending}").write_bytes(pack(WORDS.encode()))
        assert text_of(data(f"data.path=t.txt.{ending}")) == WORDS
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(WORDS.encode())[:-9])
    with pytest.raises(ValueError, match="cut.txt.gz cannot be unpacked"):
        data("data.path=cut.txt.gz")


CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")


@given(
    st.text(CHARACTERS, min_size=1, max_size=30),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "cp1252", "latin-1"]),
    st.sampled_from(["byte", "char"]),
    st.sampled_from(["txt", "csv", "jsonl"]),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_text_in_is_text_out(tmp_path, text, encoding, tokenizer, kind):
    text = text.replace("\r", "") if kind == "csv" else text
    rows = [text, "filling " * 40]
    whole = "".join(row + "\n" for row in rows)
    stored = whole if kind == "txt" else rows_as(kind, rows).decode()
    try:
        (tmp_path / f"t.{kind}").write_bytes(stored.encode(encoding))
    except UnicodeEncodeError:
        return  # not in this encoding
    typed = [] if encoding in ("utf-8", *MARKED) else [f"data.encoding={encoding}"]
    if kind == "csv" and not text.strip("\n"):
        return
    want = whole if kind == "txt" else "".join(row if row.endswith("\n") else row + "\n" for row in rows)
    assert text_of(data(f"data.path=t.{kind}", f"data.tokenizer={tokenizer}", *typed)) == want


@pytest.mark.parametrize("kind, pieces", [("gpt2", ["a\n\n", "\nb\n", "c"]), ("byte", ["a\n", "\n", "\n", "b\n", "c"])])
def test_a_tokenizer_of_words_gets_lines_joined(kind, pieces, tmp_path, monkeypatch):
    """GPT-2's pairs go over the ends of lines, in a prompt and in prepare_data.py too."""
    import numpy as np

    from dyt.data import text

    got = []

    class Stub:
        dtype, separator = np.uint8, "\n"

        def __init__(self, *_):
            pass

        def encode(self, of):
            got.append(of)
            return np.frombuffer(of.encode(), np.uint8)

        def to_json(self):
            return {}

    monkeypatch.setattr(text, "Tokenizer", Stub)
    monkeypatch.setattr(text, "PIECE", 3)
    (tmp_path / "t.txt").write_text("a\n\n\nb\nc")
    config = load([*TEXT, "data.path=t.txt", "data.val_fraction=0.5"])["data"] | {"tokenizer": kind}
    text._tokenize(config, text.locate(config), tmp_path, None)
    assert got == pieces


# -- the tokenizer travels with weights --------------------------------------------------------------------------------


def test_letters_go_by_name_from_weights_to_a_run(tmp_path):
    """Other letters of equal number are refused; the same letters keep their rows, whatever else the text lacks."""
    (tmp_path / "a.txt").write_text("abcdefgh \n" * 60)
    (tmp_path / "b.txt").write_text("klmnopqr \n" * 60)
    (tmp_path / "c.txt").write_text("hgfe\n" * 90)
    words = [*TINY_GPT, *SHORT, "data=hf_text", "data.tokenizer=char", "norm=layernorm"]
    _, run = train(*words, "data.path=a.txt")
    with pytest.raises(ValueError, match="characters outside the vocabulary: 'k' 'l'"):
        train(*words, "data.path=b.txt", f"init_from={run}")
    with pytest.raises(ValueError, match="its weights know char tokens, .* type data.tokenizer=char"):
        train(*words, "data.path=a.txt", "data.tokenizer=byte", f"init_from={run}")
    done = python(str(ROOT / "scripts/export.py"), f"run={run}")
    assert done.returncode == 0, done.stderr
    from safetensors import safe_open

    with safe_open(run / "export/model.safetensors", "pt") as file:
        about = file.metadata()
    assert about["format"] == "pt" and json.loads(about["tokenizer"])["chars"] == "\n abcdefgh"
    assert json.loads((run / "export/tokenizer.json").read_text())["kind"] == "char"
    for source in (run, run / "export/model.safetensors"):
        summary, folder = train(*words, "data.path=c.txt", f"init_from={source}")
        assert summary["status"] == "finished"
        assert json.loads((folder / "tokenizer.json").read_text())["chars"] == "\n abcdefgh"
    with pytest.raises(ValueError, match="characters outside the vocabulary"):
        train(*words, "data.path=b.txt", f"init_from={run / 'export/model.safetensors'}")


def test_of_a_text_that_is_cut_the_first_tokens_are_learned_from_and_the_rest_is_as_it_was(tmp_path):
    text = "".join(f"line {i}\n" for i in range(4000))
    (tmp_path / "t.txt").write_text(text)
    uncut, cut = (data(f"data.path={tmp_path}/t.txt", f"data.train_tokens={n}") for n in ("null", 20000))
    kept = int(len(text) * 0.9)
    assert uncut.spec.sizes == {"train": kept, "val": len(text) - kept} and kept > 20000
    assert cut.spec.sizes == {"train": 20000, "val": len(text) - kept}
    assert bytes(cut.tokens["train"]).decode() == text[:20000]
    assert bytes(cut.tokens["val"]).decode() == bytes(uncut.tokens["val"]).decode() == text[kept:]
    assert cut.samples == (20000 - 16) // 16


def test_a_bad_text_is_one_line_and_exit_1(tmp_path):
    (tmp_path / "t.txt").write_bytes(WORDS.encode("cp1252"))
    assert "type data.encoding=cp1252" in one_line(python("train.py", *TINY_GPT, "data=hf_text", "data.path=t.txt"))
