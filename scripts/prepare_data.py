"""Text to shards of token ids, once, for many runs: ``train.py data=shards data.path=DIR`` trains on them.

    python scripts/prepare_data.py texts/ --tokenizer byte --out DIR
    python scripts/prepare_data.py web.jsonl.zst code.parquet --tokenizer tokenizer.json --out DIR --workers 8
    python scripts/prepare_data.py HuggingFaceFW/fineweb-edu --hub-config sample-10BT --tokenizer gpt2 --out DIR

SOURCE is a file or folder (text, csv, jsonl, Parquet; .gz, .bz2, .xz, .zst) or a name of the Hugging Face hub, which is
streamed. Document by document, in parallel; the bytes are the same with any --workers. Killed and started again it goes
on where it was. Exit codes: 0 finished, 1 bad input, 75 interrupted (Ctrl-C, SIGTERM).
"""

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="files, folders, or names of the hub")
    parser.add_argument("--tokenizer", required=True, help="byte, gpt2, a tokenizer.json or a folder that has one")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the shards")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes that tokenize; default: all cores"
    )
    parser.add_argument("--text-key", default=None, help="column of the texts; default: text")
    parser.add_argument("--encoding", default=None, help="of text files, e.g. cp1252; default: UTF-8")
    parser.add_argument(
        "--on-error", choices=["raise", "skip"], default="raise", help="skip: leave out rows without text"
    )
    parser.add_argument("--shard-tokens", type=int, default=None, help="tokens after which a shard ends; default: 2^27")
    parser.add_argument("--hub-config", default=None, help="the hub set's configuration")
    parser.add_argument("--revision", default=None, help="the hub set's revision, a commit or a tag")
    given = parser.parse_args(words)
    for name in ("workers", "shard_tokens"):
        if (value := getattr(given, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value}: type 1 or more")
    return given


def teller():
    """What prints how far it is: on one line of a terminal, else a line every ten seconds."""
    told, terminal = [time.monotonic()], sys.stderr.isatty()

    def tell(progress) -> None:
        if time.monotonic() - told[0] > (0.5 if terminal else 10):
            told[0] = time.monotonic()
            print(
                f"\r\033[K{progress}" if terminal else progress,
                end="" if terminal else "\n",
                file=sys.stderr,
                flush=True,
            )

    return tell


def in_words(error: Exception) -> str:
    """An error with the words of this command in place of a config's keys."""
    text = " ".join(str(error).split()).replace("data.path=", "")
    return re.sub(r"\bdata\.(\w+)(?:=| )", lambda m: f"--{m[1].replace('_', '-')} ", text)


def _interrupt(number, frame):
    raise KeyboardInterrupt


def main(words: list[str] | None = None) -> int:
    given = parsed(words)
    from dyt.data.documents import check_encoding
    from dyt.data.prepare import SHARD, prepare
    from dyt.data.tokenizer import Tokenizer

    signal.signal(signal.SIGTERM, _interrupt)
    data = {"path": None, "hub": None, "name": "", "cache_dir": None}
    data |= {key: getattr(given, key) for key in ("text_key", "encoding", "on_error", "hub_config", "revision")}
    began = time.monotonic()
    try:
        check_encoding(given.encoding)
        tokenizer = Tokenizer.named(given.tokenizer)
        made = prepare(given.sources, tokenizer, given.out, given.workers, data, given.shard_tokens or SHARD, teller())
    except (ValueError, OSError) as error:
        print(f"prepare_data.py: {in_words(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nprepare_data.py: interrupted; the same command goes on", file=sys.stderr)
        return 75
    if sys.stderr.isatty():
        print(file=sys.stderr)
    for split, of in made["splits"].items():
        count = f"{of['tokens']:,} tokens, {of['documents']:,} documents"
        print(f"{split}: {count}, {len(of['shards'])} shards ({made['dtype']})")
    if made["left_out"]:
        print(f"{made['left_out']:,} rows without text left out")
    print(f"{given.out}: ready after {time.monotonic() - began:.1f} s; python train.py model=gpt_mini data=shards "
          f"data.path={given.out}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
