"""Writes docs/configuration.md from the typed config, its checks and the yaml comments: after any change to a key."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dyt.report.reference import PAGE, page  # noqa: E402
from dyt.rundir.files import write_text  # noqa: E402

if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # no words
    try:
        write_text(PAGE, page())
    except ValueError as error:
        print(f"configuration.py: {error}", file=sys.stderr)
        sys.exit(1)
    print(PAGE)
