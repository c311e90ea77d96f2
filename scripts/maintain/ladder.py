"""Reckons the rungs of docs/ladder.md by dry runs (a minute on an idle machine) and writes its table."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dyt.studies.showing import rungs  # noqa: E402

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # no words
    rungs.measure(ROOT / "results")
    rungs.PART.write(ROOT / "results")
    print(ROOT / "docs" / "ladder.md")
