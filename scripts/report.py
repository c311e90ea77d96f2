"""One page to look and know: verdicts, curves, layers and runs. It works from disk, with no network and no account.

    python scripts/report.py                       every study of results/ and every run under runs/
    python scripts/report.py depth gain_init       these studies
    python scripts/report.py runs/default/gpt*     these runs (run directories, or folders of them)
    python scripts/report.py --watch               serves it on this machine and refreshes while runs go on

Writes results/report/index.html and prints its path; --open opens it in a browser. Runs with TensorBoard files are
linked under the page's names: tensorboard --logdir results/report/tensorboard
"""

import argparse
import contextlib
import functools
import hashlib
import http.server
import shutil
import sys
import threading
import time
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "dyt/report/page"


def build(out: Path, results: Path, places: list[Path], studies: list[str] | None, watch: bool = False) -> dict:
    """Writes the page; returns the data it shows.

    Raises:
        ValueError: there is nothing to show, or `out` holds something else.
    """
    from dyt.report.collect import as_script, collect, scurves
    from dyt.rundir.files import write_text

    data = collect(results, places, studies)
    if not data["runs"]:
        raise ValueError("no runs to show; train one first, for instance: python train.py norm=dyt")
    data |= {"scurves": scurves(results) if studies is None or "ln_scurve" in studies else []}
    data |= {"made": time.strftime("%F %T"), "version": str(time.time_ns()) if watch else ""}
    refuse_other(out)
    out.mkdir(parents=True, exist_ok=True)
    shutil.copytree(PAGE, out, dirs_exist_ok=True)
    for study in data["studies"]:
        if study["figure"]:
            (out / "figures").mkdir(exist_ok=True)
            shutil.copy(results / study["name"] / study["scale"] / "figure.png", out / study["figure"])
    for run in data["runs"]:
        if run.get("picture"):
            run["picture"] = copied(Path(run["picture"]), out, run["id"])
    name_for_tensorboard(data["runs"], out / "tensorboard")
    write_text(out / "data.js", as_script(data))
    write_text(out / "version.txt", data["version"])
    return data


def refuse_other(out: Path) -> None:
    """Raises ValueError where `out` holds what is no part of a page, or other files of its names: it would be lost."""
    from dyt.report.collect import BEGINS

    ours = {*(file.name for file in PAGE.iterdir()), "data.js", "version.txt", "figures", "samples", "tensorboard"}
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: is a file; give a folder")
    here = sorted(file.name for file in out.iterdir() if not file.name.startswith(".")) if out.is_dir() else []
    data = out / "data.js"
    if here and not (data.is_file() and data.open("rb").read(len(BEGINS)) == BEGINS.encode()):
        ours = set()
    if other := [name for name in here if name not in ours]:
        raise ValueError(f"--out {out}: {other[0]} is there, which is no part of a page; give another folder")


def copied(picture: Path, out: Path, of: str) -> str:
    """A run's picture beside the page, anew where it changed; its address there."""
    place = out / "samples" / f"{hashlib.sha256(of.encode()).hexdigest()[:16]}{picture.suffix}"
    place.parent.mkdir(exist_ok=True)
    shutil.copy2(picture, place)
    return place.relative_to(out).as_posix()


def name_for_tensorboard(runs: list[dict], folder: Path) -> None:
    """Links to the runs' TensorBoard files under the names that the page has: ``gpt_norms small/DyT, seed 0``."""
    for link in folder.glob("*/*"):
        if link.is_symlink():
            link.unlink()
    for group in folder.glob("*/"):
        with contextlib.suppress(OSError):  # something else is in it
            group.rmdir()
    for run in runs:
        place = Path(run["dir"] or "-") / "tensorboard"
        for scope, about in run["in"].items() if place.is_dir() else ():
            words = (scope.replace("/", " "), f"{about['variant']}, seed {run['seed']}, {about['place']}")
            group, name = (word.replace("/", "\u2215")[:80] for word in words)
            (folder / group).mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # the same settings, run twice
                (folder / group / name).symlink_to(place)


def stamp(results: Path, places: list[Path]) -> tuple:
    """Changes when anything does that the page shows: files written, copied, removed; runs that began or ended."""
    from dyt.report.collect import SAMPLES, run_directories
    from dyt.rundir.lock import held

    files = [*results.glob("*/*/runs.csv"), *results.glob("*/*/verdicts.json")]
    runs = [run for place in places for run in run_directories(place)]
    files += [run / name for run in runs for name in ("metrics.jsonl", "summary.json", *SAMPLES)]
    seen = []
    for file in files:
        try:
            seen.append((str(file), file.stat().st_mtime_ns, file.stat().st_size))
        except OSError:
            seen.append((str(file), 0, 0))
    return (*seen, *((run.name, held(run)) for run in runs))


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


def serve(out: Path, port: int, again, now, seen) -> None:
    """Serves `out` on loopback and calls `again` when ``now()`` is no longer `seen`, until Ctrl-C.

    Raises:
        ValueError: the port is taken.
    """
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(out)))
    except OSError as error:
        raise ValueError(f"--port {port}: {error.strerror}; give another, or 0 for any free one") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
    try:
        while True:
            time.sleep(2)
            if (found := now()) != seen:
                seen = found
                try:
                    again()
                except (ValueError, OSError) as problem:  # a file half-way replaced: the next look has it
                    print(f"report.py: {problem}", file=sys.stderr)
    except KeyboardInterrupt:
        server.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="RUN|STUDY", help="run directories, folders of them, or studies")
    parser.add_argument("--out", type=Path, default=ROOT / "results/report", help="where the page goes")
    parser.add_argument("--results", type=Path, default=ROOT / "results", help=argparse.SUPPRESS)
    parser.add_argument("--open", action="store_true", help="open it in a browser")
    parser.add_argument("--watch", action="store_true", help="serve it on loopback and refresh while runs go on")
    parser.add_argument("--port", type=int, default=8765, help="for --watch (0: any free one)")
    asked = parser.parse_args()
    if not 0 <= asked.port <= 65535:
        raise ValueError(f"--port {asked.port}: give a number from 0 (any free one) to 65535")
    from dyt.config.arguments import closest
    from dyt.report.collect import run_directories
    from dyt.studies.running.study import names

    places, studies = [], []
    for word in asked.words:
        if word in names():
            studies.append(word)
        elif not Path(word).exists():
            known = ", ".join(names())
            raise ValueError(f"{word}: {closest(word, names())}neither a run directory nor a study; studies: {known}")
        elif not run_directories(Path(word)):
            raise ValueError(f"{word}: no run directory there (no run.json)")
        else:
            places.append(Path(word))
            if (Path(word) / "run.json").is_file() and not (Path(word) / "metrics.jsonl").is_file():
                raise ValueError(f"{word}: a run without metrics.jsonl; it has nothing to show yet")
    if not asked.words:
        places = [Path("runs")]
    places = [place.resolve() for place in places]
    chosen = studies if asked.words else None
    again = functools.partial(build, asked.out, asked.results, places, chosen, asked.watch)
    now = functools.partial(stamp, asked.results, places)
    before = now() if asked.watch else None  # what is written while the page is made shows the next time
    data = again()
    left_out = f"; {data['left_out']} run directories without metrics or config left out" if data["left_out"] else ""
    print(f"{len(data['runs'])} runs, {len(data['studies'])} studies at their scales{left_out}", file=sys.stderr)
    page = asked.out / "index.html"
    print(page)
    if asked.open:
        webbrowser.open(page.resolve().as_uri())
    if asked.watch:
        serve(asked.out, asked.port, again, now, before)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as problem:
        print(f"report.py: {' '.join(str(problem).split())}", file=sys.stderr)
        sys.exit(1)
