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
    """A part of README or a page: its name, the command that makes its rows, and what it must say of ``results/``.

    `file` is where below ``results/`` the same text stands, if anywhere.
    """

    name: str
    command: str
    text: Callable[[Path], str]
    file: str | None = None

    def write(self, results: Path) -> None:
        """Fills the part, wherever it stands, and its file."""
        text = self.text(results)
        if self.file:
            write_text(results / self.file, text)
        fill(self.name, text)


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
    text = {name: part.text(results).rstrip() + "\n" for name, part in known.items()}
    found = [(f"{file.relative_to(ROOT)}: part {name}", name, inside) for file, name, inside in _found()]
    for name, part in known.items():
        if part.file:
            inside = (results / part.file).read_text() if (results / part.file).is_file() else ""
            found.append((f"{results.name}/{part.file}: part {name}", name, inside))
    wrong = []
    for where, name, inside in found:
        if name not in known:
            wrong.append(f"{where} is written by no program")
        elif inside.rstrip() + "\n" != text[name]:
            command = known[name].command
            anew = "" if command == WRITES else f" ({command} measures anew)"
            wrong.append(f"{where} is not what the rows say; type {WRITES}{anew}")
    seen = {name for _, name, _ in _found()}
    return wrong + [f"part {name} stands neither in README.md nor in docs/" for name in known if name not in seen]
