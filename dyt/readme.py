"""README's numbers come from programs: each part stands between markers and is written by the one that made it."""

import re
from pathlib import Path

from dyt.manifest import write_text

README = Path(__file__).resolve().parent.parent / "README.md"


def fill(part: str, text: str) -> None:
    """Replaces what stands between ``<!-- part: ... -->`` and ``<!-- /part -->``.

    Raises:
        ValueError: README has no such part.
    """
    pattern = re.compile(rf"(<!-- {part}:[^>]*-->\n).*?(<!-- /{part} -->)", re.DOTALL)
    old = README.read_text()
    if not pattern.search(old):
        raise ValueError(f"README.md has no part <!-- {part}: ... --> ... <!-- /{part} -->")
    write_text(README, pattern.sub(lambda m: m[1] + text.rstrip() + "\n" + m[2], old))
