"""Numbers in README and the pages come from programs: each part stands between markers, ``<!-- part: ... -->`` and
``<!-- /part -->``, and is written by the one that made it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dyt.rundir.files import write_text

ROOT = Path(__file__).resolve().parents[3]
WRITES = "python scripts/reproduce.py --readme"  # every part, from the rows that are committed
PART = re.compile(r"(<!-- (?P<name>[\w-]+):[^>]*-->\n)(?P<text>.*?)(<!-- /(?P=name) -->)", re.DOTALL)


@dataclass(frozen=True)
class Part:
    """A part of README or a page: its name, the command that makes its rows, and what it must say of ``results/``."""

    name: str
    command: str
    text: Callable[[Path], str]

    def write(self, results: Path) -> None:
        fill(self.name, self.text(results))


def files() -> list[Path]:
    """README and every page."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _found() -> list[tuple[Path, str, str]]:
    """File, name and text of every part."""
    return [(file, m["name"], m["text"]) for file in files() for m in PART.finditer(file.read_text())]


def between(part: str) -> str:
    """What stands between a part's markers.

    Raises:
        ValueError: no such part in README or a page.
    """
    for _, name, text in _found():
        if name == part:
            return text
    raise ValueError(f"neither README.md nor a page of docs/ has a part <!-- {part}: ... --> ... <!-- /{part} -->")


def fill(part: str, text: str) -> None:
    """Replaces what `between` returns.

    Raises:
        ValueError: no such part in README or a page.
    """
    between(part)
    for file in {file for file, name, _ in _found() if name == part}:
        new = PART.sub(lambda m: m[1] + text.rstrip() + "\n" + m[4] if m["name"] == part else m[0], file.read_text())
        write_text(file, new)


def differs(parts: Iterable[Part], results: Path) -> list[str]:
    """One line for each part that is not what `results` says, that no program writes, or that stands nowhere."""
    known = {part.name: part for part in parts}
    wrong, seen = [], set()
    for file, name, text in _found():
        where = f"{file.relative_to(ROOT)}: part {name}"
        seen.add(name)
        if name not in known:
            wrong.append(f"{where} is written by no program")
        elif text != known[name].text(results).rstrip() + "\n":
            command = known[name].command
            anew = "" if command == WRITES else f" ({command} measures anew)"
            wrong.append(f"{where} is not what {results.name}/ says; type {WRITES}{anew}")
    wrong += [f"part {name} stands neither in README.md nor in docs/" for name in known if name not in seen]
    return wrong
