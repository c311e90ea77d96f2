"""Every claim is one command: run a study's missing runs, then write its rows, curves, table, figure and verdicts.

    python scripts/reproduce.py --list                          every study: claims, cost, present verdicts
    python scripts/reproduce.py depth gain_init                 on 2 CPU cores (--scale small is the default)
    python scripts/reproduce.py --scale smoke --jobs 2          all of them, in seconds each
    python scripts/reproduce.py --scale paper --dry-run         the papers' own recipes: parameters, FLOPs, hours
    python scripts/reproduce.py depth --launcher slurm hydra.launcher.partition=gpu     runs as jobs of a cluster
    python scripts/reproduce.py --report                        tables and figures anew from committed rows; no training
    python scripts/reproduce.py depth --data shakespeare=tinyshakespeare/ logger.mode=disabled
    python scripts/reproduce.py --check                         are README, the pages and all tables what the rows say?
    python scripts/reproduce.py --readme                        writes them from the rows that are there; runs nothing

A word with = is an override for every run; it may only be one that changes no number (data.workers, logger.mode,
out_root, trainer.device ...). Exit codes as train.py's: 0, 1 (a run failed, bad input, or --check found something), 75.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# What is heard beside an action. Without one a study's runs are made, and all of it is.
BESIDE = {
    "list": (),
    "check": ("scale",),
    "report": ("scale", "readme"),
    "merge": ("scale", "readme", "seeds", "data", "words"),
    "dry_run": ("scale", "seeds", "data", "words", "jobs", "launcher"),
    "readme": (),
}
OPTIONS = (*BESIDE, "scale", "rerun", "seeds", "data", "jobs", "launcher")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="STUDY|KEY=VALUE", help="studies (none: all) and overrides")
    parser.add_argument("--scale", help="smoke, small (default), medium, gpu or paper")
    parser.add_argument("--jobs", type=int, default=None, help="worker processes (default: CPU cores, or 1 on a GPU)")
    parser.add_argument("--launcher", metavar="NAME", help="send runs as jobs: slurm, submitit_slurm, submitit_local")
    parser.add_argument("--seeds", type=int, default=None, help="seeds a run (default: the study's own)")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=PATH", help="where a data set's files are")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help=argparse.SUPPRESS)
    parser.add_argument("--dry-run", action="store_true", help="print runs, parameters, FLOPs and hours; run nothing")
    parser.add_argument("--list", action="store_true", help="every study with its claims, cost and present verdict")
    parser.add_argument("--check", action="store_true", help="fail when a page or table is not what the rows say")
    parser.add_argument("--report", action="store_true", help="write tables, verdicts and figures anew from their rows")
    parser.add_argument("--readme", action="store_true", help="write README and the pages; without a STUDY run nothing")
    parser.add_argument("--rerun", action="store_true", help="run again what is finished; old runs are moved aside")
    parser.add_argument("--merge", type=Path, metavar="FILE", help="add another machine's runs.csv to one study's rows")
    return parser.parse_intermixed_args()


def main() -> int:
    from dyt.rundir.streams import steady

    with steady():
        return _main()


def _main() -> int:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return reproduce(arguments())
    except (ValueError, OSError) as error:
        if os.environ.get("DYT_TRACEBACK"):
            raise
        print(f"reproduce.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 75


# Keys outside a run's hash that are a study's own all the same, or a run's name.
OF_A_STUDY = "experiment tag study resume init_from model.name norm.name data.name data.path data.mix".split()


def refuse_unheard(asked: argparse.Namespace) -> None:
    """Raises ValueError where an option was typed that the action beside it does not look at."""
    typed = [name for name in OPTIONS if getattr(asked, name) not in (None, False, [])]
    typed += ["words"] if any("=" in word for word in asked.words) else []
    studies = any("=" not in word for word in asked.words)
    action = next((name for name in BESIDE if name in typed and (name != "readme" or not studies)), None)
    unheard = [name for name in typed if action and name != action and name not in BESIDE[action]]
    if unheard:
        first = (
            next(w for w in asked.words if "=" in w) if unheard[0] == "words" else "--" + unheard[0].replace("_", "-")
        )
        raise ValueError(f"{first} does nothing beside --{action.replace('_', '-')}; leave one of the two out")


def reproduce(asked: argparse.Namespace) -> int:
    from dyt.config.arguments import closest
    from dyt.config.compose import options
    from dyt.config.identity import NOT_HASHED
    from dyt.rundir.streams import STOPS, heard
    from dyt.studies import runner, written
    from dyt.studies.running.study import SCALES, Study, names
    from dyt.studies.sharing.counter import seeds_in
    from dyt.studies.showing import explain_figures, front, marked, overview

    refuse_unheard(asked)
    scales = [asked.scale] if asked.scale else list(SCALES)  # of --check and --report
    asked.scale = asked.scale or "small"
    if asked.scale not in SCALES:
        raise ValueError(f"--scale {asked.scale}: {closest(asked.scale, SCALES)}choose from {', '.join(SCALES)}")
    for name, value in (("--jobs", asked.jobs), ("--seeds", asked.seeds)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: must be at least 1")
    extra = [w for w in asked.words if "=" in w]
    settings = [w for w in extra if w.startswith("hydra.launcher.") and asked.launcher]
    extra = [w for w in extra if w not in settings]
    for word in extra:
        key = word.partition("=")[0]
        if key == "trainer.dry_run":
            raise ValueError(f"{word}: type --dry-run, which says what a study's runs would cost")
        if key in OF_A_STUDY or not any(key == k or key.startswith(k + ".") for k in NOT_HASHED):
            raise ValueError(
                f"{word}: a study fixes what changes numbers; only keys such as logger.mode, out_root, trainer.device "
                "or data.workers may be given here, and --data NAME=PATH for a data set's files"
            )
    paths = {}
    for text in asked.data:
        name, _, path = text.partition("=")
        if not path or name not in options("data"):
            raise ValueError(f"--data {text}: give NAME=PATH, NAME one of {', '.join(options('data'))}")
        paths[name] = path
    chosen = [w for w in asked.words if "=" not in w]
    studies = [Study(name) for name in dict.fromkeys(chosen or names())]
    overview.check_claims()
    if asked.list:
        print(overview.listing(studies, asked.results, everything=not chosen))
        return 0
    if not chosen and not asked.report and not asked.check:  # all that have this scale
        studies = [s for s in studies if asked.scale in s.scales]
    if asked.check:
        from dyt.report import reference

        wrong = written.check([(s, scale) for s in studies for scale in s.scales if scale in scales], asked.results)
        if not chosen:
            wrong += marked.differs(parts(asked.results), asked.results) + front.differs(asked.results)
            wrong += explain_figures.differs(asked.results, marked.ROOT / "docs" / "img") + reference.differs()
        said = f"tables of {', '.join(chosen)} are" if chosen else "README, pages and tables are"
        print("\n".join(wrong) if wrong else f"{said} what the rows say")
        return 1 if wrong else 0
    if asked.report:
        made = [written.report(s, scale, asked.results) for s in studies for scale in s.scales if scale in scales]
        print("\n".join(str(path) for path in made if path))
        if asked.readme:
            write_pages(asked.results)
        return 0
    if asked.readme and not chosen:
        write_pages(asked.results)
        return 0
    if asked.dry_run:
        from dyt.studies.running.cost import dry_run

        print("\n\n".join(dry_run(s, asked.scale, asked.seeds, asked.results, paths) for s in studies))
        return 0
    if asked.merge and len(chosen) != 1:
        raise ValueError("--merge FILE: name the one study that the rows are of")
    for number in filter(heard, STOPS):
        signal.signal(number, _interrupt)
    seeds = asked.seeds
    if asked.merge and seeds is None:
        theirs, own = seeds_in(asked.merge, studies[0]), studies[0].scale(asked.scale)["seeds"]
        seeds = theirs if theirs > own else None  # they may be further ones
    made = [
        runner.StudyAt(s, asked.scale, seeds=seeds, extra=extra, paths=paths, results=asked.results) for s in studies
    ]
    if asked.merge:
        print("\n".join(made[0].merge(asked.merge)))
        if asked.readme:
            write_pages(asked.results)
        return 0
    launcher = [asked.launcher, *settings] if asked.launcher else None
    code = runner.reproduce(made, asked.jobs or _jobs(), asked.rerun, launcher)
    if asked.readme and code == 0:
        write_pages(asked.results)
    return code


def parts(results: Path) -> list:
    """Every part of README and the pages that a program writes."""
    from dyt.efficiency import tables
    from dyt.studies.showing import demo, explain, overview, rungs, soak

    return [*overview.PARTS, *tables.parts(results), *explain.PARTS, demo.PART, soak.PART, rungs.PART]


def write_pages(results: Path) -> None:
    """Every such part, and README's picture, from what is in `results`."""
    from dyt.studies.showing import front

    for part in parts(results):
        part.write(results)
    front.write(results)


def _jobs() -> int:
    import torch

    return 1 if torch.cuda.is_available() else os.cpu_count() or 1


def _interrupt(number, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
