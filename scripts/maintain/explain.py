"""Trains the GPT of docs/explained.md (half a minute on a CPU), then writes the page's numbers and pictures.

With --draw it trains nothing and takes the token that results/explained/ has.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dyt.studies.showing import explain, explain_figures  # noqa: E402

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draw", action="store_true", help="train nothing")
    if not parser.parse_args().draw:
        explain.measure(ROOT / "results")
    for part in explain.PARTS:
        part.write(ROOT / "results")
    explain_figures.draw(ROOT / "results", ROOT / "docs" / "img")
    print(ROOT / "docs" / "explained.md")
