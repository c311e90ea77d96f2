"""Builds the documentation site, strictly and without a network: ``make docs``. It ends in build/docs/site.

Pages link to repository files as GitHub wants it, relative to the page: ``[dyt.yaml](../configs/norm/dyt.yaml)``. The
site has only what lies in docs/, so here each file that a page links to becomes a page of its own (``files/...``:
Markdown as it is, other text as a listing, pictures as they are) and the link is bent to it. So every link works on
both, and the site needs no address of the repository.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "docs"
CODE = re.compile(r"^ *(```|~~~).*?^ *\1 *$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"""(\]\(|\b(?:href|src)=")([^)"\s]+)""")
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".toml": "toml",
    ".json": "json",
    ".sh": "bash",
    ".cpp": "cpp",
    ".h": "cpp",
}
PICTURES = (".png", ".svg", ".jpg", ".webp", ".gif")


def outside_code(text: str, change) -> str:
    """`change` of each part of a Markdown text that is neither a fenced block nor a code span."""
    parts, at = [], 0
    for found in CODE.finditer(text):
        parts += [change(text[at : found.start()]), found[0]]
        at = found.end()
    return "".join(parts) + change(text[at:])


class Stage:
    """A copy of docs/ in which links to the rest of the repository lead to copies of those files."""

    def __init__(self, root: Path, to: Path):
        self.root, self.to = root, to
        self.done: set[Path] = set()
        shutil.rmtree(to, ignore_errors=True)
        for page in sorted((root / "docs").rglob("*")):
            if page.is_file():
                self.put(page, page.relative_to(root / "docs"))

    def put(self, file: Path, place: Path) -> None:
        """Copies `file` to `place` of the stage; once."""
        if place in self.done:
            return
        self.done.add(place)
        target = self.to / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            inside = [p for p in sorted(file.iterdir()) if not p.name.startswith((".", "__"))]
            lines = [f"- [{p.name}]({os.path.relpath(p, file)})" if p.is_file() else f"- {p.name}/" for p in inside]
            text = f"# {file.relative_to(self.root)}/\n\n" + "\n".join(lines) + "\n"
            target.write_text(self.bent(text, file / "x", place))
        elif file.suffix == ".md":
            target.write_text(self.bent(file.read_text(), file, place))
        elif place.suffix == ".md":
            fence = f"````{LANGUAGES.get(file.suffix, 'text')}"
            target.write_text(f"# {file.relative_to(self.root)}\n\n{fence}\n{file.read_text()}\n````\n")
        else:
            shutil.copy(file, target)

    def bent(self, text: str, source: Path, place: Path) -> str:
        """`text` of the file `source`, its links as they must be at `place`.

        Raises:
            ValueError: a link leads to nothing, or out of the repository.
        """

        def bend(link: re.Match) -> str:
            path, mark, anchor = link[2].partition("#")
            if not path or re.match(r"[a-z]+:", path):
                return link[0]
            file = Path(os.path.normpath(source.parent / unquote(path)))
            if not file.exists() or not file.is_relative_to(self.root):
                raise ValueError(f"{source.relative_to(self.root)}: the link {link[2]} leads to nothing")
            if file.is_relative_to(self.root / "docs"):
                to = file.relative_to(self.root / "docs")
            else:
                to = Path("files") / file.relative_to(self.root)
                if file.is_dir():
                    to = to / "index.md"
                elif file.suffix not in (".md", *PICTURES):
                    to, mark, anchor = to.with_name(to.name + ".md"), "", ""  # a listing has no #L10
                self.put(file, to)
            return link[1] + os.path.relpath(to, place.parent) + mark + anchor

        return outside_code(text, lambda part: LINK.sub(bend, part))


class Page(HTMLParser):
    """Of a built page: ids, links, and what the browser would load."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        found = dict(attributes)
        self.ids |= {found[k] for k in ("id", "name") if found.get(k)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("prev", "next", "canonical"):
            self.loads.append(found.get("href") or "")
        elif found.get("src"):
            self.loads.append(found["src"])
        if "mermaid" in (found.get("class") or "").split():
            self.loads.append("https://unpkg.com/mermaid")  # the theme's script would fetch it


def faults(site: Path) -> list[str]:
    """What is wrong with a built site: dead links and anchors, and what a browser would load from elsewhere."""
    pages = {p: Page(p.read_text()) for p in sorted(site.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute: it stands for any address
            continue
        for address in page.loads + page.links:
            loaded = address in page.loads
            if re.match(r"(https?:)?//", address):
                wrong += [f"{path.relative_to(site)}: loads {address} from elsewhere"] if loaded else []
                continue
            if re.match(r"(mailto|data|javascript):", address):
                continue
            to, _, anchor = unquote(address).partition("#")
            file = Path(os.path.normpath(path.parent / to)) if to else path
            if file.is_dir():
                file = file / "index.html"
            if not file.is_file():
                wrong.append(f"{path.relative_to(site)}: {address} leads to nothing")
            elif anchor and file in pages and anchor not in pages[file].ids and not anchor.startswith("__"):
                wrong.append(f"{path.relative_to(site)}: {address}: no such anchor")
    for sheet in sorted(site.rglob("*.css")):
        for address in re.findall(r"(?:url\(|@import )[\"']?((?:https?:)?//[^)\"']+)", sheet.read_text()):
            wrong.append(f"{sheet.relative_to(site)}: loads {address} from elsewhere")
    return wrong


def build() -> Path:
    """Stages, builds and checks the site; returns its folder.

    Raises:
        ValueError: a dead link, a docstring that does not render, or something loaded from elsewhere.
    """
    Stage(ROOT, BUILD / "docs")
    shutil.copy(ROOT / "zensical.toml", BUILD)
    shutil.rmtree(BUILD / "site", ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=BUILD,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    # A docstring whose parts do not fit its signature is one line of griffe's, which does not fail a strict build.
    if done.returncode or re.search(r"^griffe: ", said, re.MULTILINE):
        raise ValueError(said.split("Traceback")[0])
    if wrong := faults(BUILD / "site"):
        raise ValueError("\n".join(wrong))
    return BUILD / "site"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # no words
    try:
        print(build() / "index.html")
    except ValueError as error:
        print(f"docs.py: {error}", file=sys.stderr)
        sys.exit(1)
