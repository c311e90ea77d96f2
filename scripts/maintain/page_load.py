"""How fast the page is with many runs, synthetic ones, in headless Chromium.

    python scripts/maintain/page_load.py [runs=500] [points=2000] [rows=5000] [times=3]

Prints the size of the page's data for `runs` of `points` each, the time from opening the file to the first chart drawn
(the median of `times` openings), and to redraw it when a norm is hidden; then, for `rows` runs, the time to their table
and how often scrolling shows a gap. Needs chromium and chromedriver (apt-get install chromium-driver).
"""

import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NORMS = ("layernorm", "rmsnorm", "dyt", "derf", "none")
HIDE = """
const [done, began] = [arguments[0], performance.now()];
document.querySelector('[data-norm=dyt]').click();
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
"""
SCROLL = """
const done = arguments[0], holder = document.querySelector('.tabulator-tableholder');
const box = holder.getBoundingClientRect();
const frame = () => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));
(async () => {
  let gaps = 0, at = 0;
  for (let i = 0; i < 60; i++) {  // wheel's steps, a page at a time, and jumps
    at = i < 20 ? at + 120 : i < 40 ? at + box.height : (holder.scrollHeight * ((i * 37) % 100)) / 100;
    holder.scrollTop = at;
    await frame();
    const seen = [0.15, 0.5, 0.9].map((y) => document.elementFromPoint(box.left + 150, box.top + box.height * y));
    if (!seen.every((e) => e?.closest('.tabulator-row'))) gaps++;
  }
  done(gaps);
})();
"""
BUILT = "return Number(document.getElementById('runs')?.dataset.built)"
PAINTED = "return document.querySelector('.plot canvas') && Number(document.documentElement.dataset.painted)"


def write_runs(place: Path, runs: int, points: int) -> None:
    """Run directories with all that a real one has and the page reads."""
    import yaml

    dice = random.Random(0)
    for i in range(runs):
        norm, seed = NORMS[i % len(NORMS)], i // len(NORMS)
        folder = place / "default" / f"gpt_nano-{norm}-synthetic-s{seed}-{i:010x}"
        folder.mkdir(parents=True)
        config = {
            part: {"name": name} for part, name in (("model", f"gpt_{seed % 4}"), ("norm", norm), ("data", "text"))
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config | {"seed": seed}))
        (folder / "run.json").write_text(json.dumps({"config_hash": f"{i:010x}"}))
        (folder / "summary.json").write_text(json.dumps({"status": "finished", "max_steps": points}))
        with open(folder / "metrics.jsonl", "w") as stream:
            for step in range(1, points + 1):
                loss = 2 + 3 * math.exp(-step / 300) + dice.gauss(0, 0.1)
                row = {"step": step, "train/loss": loss, "grad_norm": abs(dice.gauss(1, 0.3)), "tokens": step * 768}
                row |= {"val/loss": loss + 0.1} if step % 100 == 0 else {}
                stream.write(json.dumps(row | {"time_s": step / 20}) + "\n")


def made(place: Path, runs: int, points: int) -> Path:
    """The index.html of a page of so many runs."""
    write_runs(place / "runs", runs, points)
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "scripts/report.py"), str(place / "runs"), "--out", str(place / "page")]
    subprocess.run(command, check=True, capture_output=True)
    size = (place / "page/data.js").stat().st_size / 1e6
    print(f"{runs} runs of {points} points: page made in {time.monotonic() - began:.1f} s, data {size:.1f} MB")
    return place / "page/index.html"


def opened(browser, index: Path, state: str, ready: str) -> float:
    """Seconds from opening the page at `state` until the script `ready` gives when that was."""
    browser.get("about:blank")
    browser.get(f"{index.as_uri()}#{state}")
    while not (when := browser.execute_script(ready)):
        time.sleep(0.01)
    return when / 1000


def main(words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    asked = {"runs": 500, "points": 2000, "rows": 5000, "times": 3}
    for word in words:
        key, _, value = word.partition("=")
        if key not in asked or not value.isdigit() or int(value) < 1:
            print(f"page_load.py: {word}: give runs=, points=, rows= or times= and a whole number", file=sys.stderr)
            return 1
        asked[key] = int(value)
    from shutil import which

    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        index = made(place / "curves", asked["runs"], asked["points"])
        table = made(place / "table", asked["rows"], 5)
        about = webdriver.ChromeOptions()
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
            about.add_argument(word)
        with webdriver.Chrome(options=about, service=Service(which("chromedriver"))) as browser:
            for seeds in ("band", "each"):
                first, again = [], []
                for _ in range(asked["times"]):
                    state = f"view=curves&metric=train/loss&seeds={seeds}"
                    first.append(opened(browser, index, state, PAINTED))
                    hidden = browser.execute_async_script(HIDE)
                    again.append(hidden / 1000)
                print(
                    f"seeds={seeds}: first chart {statistics.median(first):.2f} s after opening, "
                    f"a norm hidden in {statistics.median(again):.2f} s"
                )
            for fold, said in (("", "a row each"), ("1", "seeds folded")):
                took = [opened(browser, table, f"view=runs&fold={fold}", BUILT) for _ in range(asked["times"])]
                gaps = browser.execute_async_script(SCROLL)
                took = statistics.median(took)
                print(f"{asked['rows']} runs, {said}: table {took:.2f} s after opening, {gaps} gaps in 60 scrolls")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
