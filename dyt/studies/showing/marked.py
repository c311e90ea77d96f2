"""README's numbers come from programs: each part stands between markers and is written by the one that made it."""

import re
from pathlib import Path

from dyt.rundir.files import write_text

README = Path(__file__).resolve().parents[3] / "README.md"


def _pattern(part: str) -> re.Pattern:
    return re.compile(rf"(<!-- {part}:[^>]*-->\n)(.*?)(<!-- /{part} -->)", re.DOTALL)


def between(part: str) -> str:
    """What stands between ``<!-- part: ... -->`` and ``<!-- /part -->``.

    Raises:
        ValueError: README has no such part.
    """
    found = _pattern(part).search(README.read_text())
    if not found:
        raise ValueError(f"README.md has no part <!-- {part}: ... --> ... <!-- /{part} -->")
    return found[2]


def fill(part: str, text: str) -> None:
    """Replaces what `between` returns.

    Raises:
        ValueError: README has no such part.
    """
    between(part)
    write_text(README, _pattern(part).sub(lambda m: m[1] + text.rstrip() + "\n" + m[3], README.read_text()))
