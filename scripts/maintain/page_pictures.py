"""Pictures of the page, in headless Chromium: those of README and the pages, or every view to look at.

    python scripts/maintain/page_pictures.py                    the pictures of results/page, anew
    python scripts/maintain/page_pictures.py FOLDER [INDEX]     every view, wide and phone, light and dark, into FOLDER

INDEX is a page's index.html; without it the page of results/ is made first. Needs chromium and chromedriver
(apt-get install chromium-driver) and selenium.
"""

import base64
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parents[2]
VIEWS = ("answer", "curves", "tuning", "layers", "runs", "studies")
SIZES = {"tall": (1300, 1600), "wide": (1920, 1080), "phone": (390, 844)}
PICTURES = {  # of results/page: state, size
    "answer": ("view=answer", (1300, 1500)),
    "wide": ("view=curves&study=gpt_norms/small", (1300, 1150)),
    "phone": ("view=answer&theme=dark", (390, 844)),
}


def browser():
    """A headless Chromium; `with` ends it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    about = webdriver.ChromeOptions()
    about.binary_location = which("chromium") or which("chromium-browser") or ""
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        about.add_argument(word)
    return webdriver.Chrome(options=about, service=Service(which("chromedriver")))


def take(driver, index: Path, state: str, size: tuple[int, int], file: Path, whole: bool = False) -> None:
    """A picture of the page at `state` in a window of `size`; `whole`: of all that there is to scroll to."""
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    driver.get("about:blank")
    driver.get(f"{index.resolve().as_uri()}#{state}")
    painted = (
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 400)))"
    )
    driver.execute_async_script(painted)
    asked = {"format": "png", "captureBeyondViewport": whole}
    if whole:
        high = driver.execute_script("return document.documentElement.scrollHeight")
        asked["clip"] = {"x": 0, "y": 0, "width": size[0], "height": min(high, 6000), "scale": 1}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]))
    print(file, flush=True)


def page(folder: Path) -> Path:
    """The page of results/ alone, made in `folder`."""
    studies = sorted({file.parts[-3] for file in ROOT.glob("results/*/*/verdicts.json")})
    command = [sys.executable, str(ROOT / "scripts/report.py"), *studies, "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "index.html"


def main(words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(__doc__)
        return 0
    if len(words) > 2 or any(word.startswith("-") for word in words):
        print(__doc__, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as scratch, browser() as driver:
        index = Path(words[1]) if len(words) > 1 else page(Path(scratch))
        if not words:
            for name, (state, size) in PICTURES.items():
                take(driver, index, state, size, ROOT / "results" / "page" / f"{name}.png")
            return 0
        for (name, size), theme, view in itertools.product(SIZES.items(), ("light", "dark"), VIEWS):
            file = Path(words[0]) / f"{view}-{name}-{theme}.png"
            take(driver, index, f"view={view}&theme={theme}", size, file, whole=name != "wide")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
