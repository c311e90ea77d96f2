"""All results as a data set folder that ``datasets.load_dataset`` reads, with a card and sums. Needs no network.

python scripts/bundle.py                    writes build/bundle (as make bundle does)
python scripts/bundle.py --out FOLDER       writes it there
python scripts/bundle.py --check FOLDER     are all files of a bundle as its SHA256SUMS says?
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def main() -> int:
    from dyt.rundir.streams import steady

    with steady():
        return _main()


def _main() -> int:
    from dyt.studies.sharing import bundle

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bundle", metavar="FOLDER", help="where to write")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="check a bundle's sums; write nothing")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    try:
        if asked.check:
            wrong = bundle.differs(asked.check)
            print("\n".join(wrong) if wrong else f"{asked.check}: every file is as {bundle.SUMS} says")
            return 1 if wrong else 0
        bundle.write(asked.out, asked.results)
    except (ValueError, OSError) as error:
        print(f"bundle.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(asked.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
