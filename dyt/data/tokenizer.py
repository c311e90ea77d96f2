"""Text to token ids and back: bytes, characters, GPT-2's BPE, or a tokenizer.json. No torch: many processes load it."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>")  # what tokenizers call a document's end
GPT2_FILES = "run once with a network, or set TIKTOKEN_CACHE_DIR to a folder that has it, or type data.tokenizer=byte"


class Tokenizer:
    """byte (256 tokens), char (the characters of the set), gpt2 (50,257, through tiktoken), json (a tokenizer.json).

    A fifth kind, ids, stands for tokens of which only the numbers are known: it encodes nothing.

    Args:
        chars: of the kind char, its characters in order.
        text: of the kind json, the content of its tokenizer.json.
        size: of the kind ids, how many tokens there are.

    Raises:
        ValueError: an unknown kind, a package or a vocabulary file that is missing, or a tokenizer.json that is none.
    """

    def __init__(self, kind: str, chars: str = "", text: str = "", size: int = 0):
        if kind not in ("byte", "char", "gpt2", "json", "ids"):
            raise ValueError(f"data.tokenizer={kind}: choose from byte, char, gpt2")
        if not isinstance(chars, str) or not isinstance(text, str) or not isinstance(size, int):
            raise ValueError("a tokenizer's characters must be a text, and its size a number")
        self.kind, self.chars, self.text = kind, chars, text
        self.separator, self.end = "\n", 10 if kind == "byte" else None  # what parts documents, and its one id
        self.vocab_size = {"byte": 256, "char": len(chars), "gpt2": 50257, "ids": size}.get(kind, 0)
        if kind == "char":
            points = np.array([ord(c) for c in chars], dtype=np.int64)
            self._index = np.full(int(points.max()) + 1 if chars else 1, -1, dtype=np.int64)
            self._index[points] = np.arange(len(chars))
        if kind == "gpt2":
            self.separator, self.end = "<|endoftext|>", 50256
            self._bpe = _gpt2()
        if kind == "json":
            self._bpe = _of_json(text)
            self.vocab_size = max(self._bpe.get_vocab(with_added_tokens=True).values(), default=-1) + 1
            found = next((name for name in ENDS if self._bpe.token_to_id(name) is not None), None)
            self.separator, self.end = (found or "\n", self._bpe.token_to_id(found) if found else None)

    @classmethod
    def named(cls, name: str) -> "Tokenizer":
        """byte, gpt2, or the tokenizer of a tokenizer.json, given itself or its folder.

        Raises:
            ValueError: it is none of them.
        """
        if name in ("byte", "gpt2"):
            return cls(name)
        path = Path(name).expanduser()
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(
                f"data.tokenizer={name}: choose from byte, gpt2, a tokenizer.json or a folder that has one"
            )
        try:
            return cls("json", text=path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise ValueError(f"data.tokenizer={name}: no tokenizer.json of Hugging Face's tokenizers") from error

    @property
    def dtype(self):
        return np.uint8 if self.vocab_size <= 256 else np.uint16 if self.vocab_size <= 65536 else np.uint32

    def encode(self, text: str) -> np.ndarray:
        """Text as ids, shape (T,).

        Raises:
            ValueError: a character that the char tokenizer does not know, or the kind ids.
        """
        if self.kind == "byte":
            return np.frombuffer(text.encode(), dtype=np.uint8)
        if self.kind == "gpt2":
            return np.array(self._bpe.encode(text, allowed_special="all"), dtype=self.dtype)
        if self.kind == "json":
            return np.array(self._bpe.encode(text, add_special_tokens=False).ids, dtype=self.dtype)
        if self.kind == "ids":
            raise ValueError(
                "of these tokens only the numbers are known; type data.tokenizer=gpt2 where they are GPT-2's"
            )
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
        ids = np.where(points < len(self._index), self._index[np.minimum(points, len(self._index) - 1)], -1)
        if (ids < 0).any():
            unknown = sorted({chr(p) for p in points[ids < 0]})
            raise ValueError(f"characters outside the vocabulary: {' '.join(map(repr, unknown[:10]))}")
        return ids.astype(self.dtype)

    def encode_all(self, texts: list[str]) -> list[np.ndarray]:
        """Each text as ids, as by `encode`."""
        if self.kind != "json":
            return [self.encode(text) for text in texts]
        return [np.array(e.ids, dtype=self.dtype) for e in self._bpe.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids as text; broken UTF-8 shows as the replacement character, and padding ids of the vocabulary too."""
        ids = [int(i) for i in ids]
        if self.kind == "byte":
            return bytes(i for i in ids if i < 256).decode(errors="replace")
        if self.kind in ("gpt2", "json"):
            return self._bpe.decode([i for i in ids if i < self.vocab_size])
        if self.kind == "ids":
            return " ".join(map(str, ids))
        return "".join(self.chars[i] if i < len(self.chars) else "\ufffd" for i in ids)

    def to_json(self) -> dict:
        """The arguments that make it again."""
        more = {"text": self.text} if self.kind == "json" else {"size": self.vocab_size} if self.kind == "ids" else {}
        return {"kind": self.kind, "chars": self.chars, **more}


def _gpt2():
    try:
        import tiktoken

        return tiktoken.get_encoding("gpt2")
    except ImportError as error:
        raise ValueError("data.tokenizer=gpt2 needs the package tiktoken: pip install tiktoken") from error
    except Exception as error:  # requests' whole family, where its file cannot be fetched
        raise ValueError(f"data.tokenizer=gpt2: tiktoken could not fetch its vocabulary file; {GPT2_FILES}") from error


def _of_json(text: str):
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError("a tokenizer.json needs the package tokenizers: pip install tokenizers") from error
    try:
        json.loads(text)["model"]
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises Exception itself
        raise ValueError(
            f"data.tokenizer: no tokenizer.json of Hugging Face's tokenizers ({' '.join(str(error).split())[:120]})"
        ) from error
