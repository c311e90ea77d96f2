"""Every code block of docs/guide/ runs, page by page, in the order of the page."""

import re

import pytest
import torch

from .helpers import ROOT

PAGES = sorted((ROOT / "docs" / "guide").glob("*.md"))


def blocks(page) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def test_every_page_is_in_the_sites_navigation_and_has_blocks():
    nav = (ROOT / "zensical.toml").read_text()
    assert len(PAGES) == 7
    for page in PAGES:
        assert f'"guide/{page.name}"' in nav and blocks(page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    text = "\n".join(blocks(page))
    if "import transformers" in text or "from transformers" in text:
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    text = text.replace("/tmp/dyt_guide_file", str(tmp_path / "rendezvous"))
    exec(compile(text, str(page), "exec"), {"__name__": page.stem})
