"""How fast the page is with many runs: 500 synthetic ones of 2,000 points each, in headless Chromium.

    python scripts/maintain/page_load.py [runs=500] [points=2000] [times=3]

Prints the size of the page's data, the time from opening the file to the first chart drawn (the median of `times`
openings), and to redraw it when a norm is hidden. Needs chromium and chromedriver (apt-get install chromium-driver).
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


def main(words: list[str]) -> int:
    asked = {"runs": 500, "points": 2000, "times": 3}
    for word in words:
        key, _, value = word.partition("=")
        if key not in asked or not value.isdigit() or int(value) < 1:
            print(f"page_load.py: {word}: give runs=, points= or times= and a whole number", file=sys.stderr)
            return 1
        asked[key] = int(value)
    from shutil import which

    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_runs(place / "runs", asked["runs"], asked["points"])
        began = time.monotonic()
        command = [sys.executable, str(ROOT / "scripts/report.py"), str(place / "runs"), "--out", str(place / "page")]
        subprocess.run(command, check=True, capture_output=True)
        size = (place / "page/data.js").stat().st_size / 1e6
        print(f"page made in {time.monotonic() - began:.1f} s, data {size:.1f} MB")
        about = webdriver.ChromeOptions()
        for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
            about.add_argument(word)
        with webdriver.Chrome(options=about, service=Service(which("chromedriver"))) as browser:
            for seeds in ("band", "each"):
                first, again = [], []
                for _ in range(asked["times"]):
                    browser.get("about:blank")
                    state = f"view=curves&metric=train/loss&seeds={seeds}"
                    browser.get((place / "page/index.html").as_uri() + "#" + state)
                    while not (drawn := browser.execute_script(PAINTED)):
                        time.sleep(0.01)
                    first.append(drawn / 1000)
                    hidden = browser.execute_async_script(HIDE)
                    again.append(hidden / 1000)
                print(
                    f"seeds={seeds}: first chart {statistics.median(first):.2f} s after opening, "
                    f"a norm hidden in {statistics.median(again):.2f} s"
                )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
