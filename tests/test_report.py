"""The page, in a real browser: it shows what is on disk, every control does what it says, and nothing leaves."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time

import pytest

from dyt.config import variants
from dyt.report.answer import about_study
from dyt.report.collect import as_script, collect, pack
from dyt.studies.judging.rules import asked
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import Study

from .helpers import ROOT, TINY_GPT, TINY_VIT, one_line, python, rows_of, train

REPORT = str(ROOT / "scripts/report.py")
VIEWS = ("answer", "curves", "tuning", "layers", "runs", "studies")
EVIL = "<img src=x onerror=\"document.title='sprung'\">&\"'"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of two norms of a GPT, a ViT, a diverged run; one has a broken line and a name full of HTML."""
    place = tmp_path_factory.mktemp("report")
    short = ["trainer.max_steps=30", "trainer.log_every=1", "trainer.eval_every=10", "trainer.eval_batches=1"]
    short += ["logger.mode=disabled", f"out_root={place / 'runs'}"]
    from dyt.config import compose, identity
    from dyt.run import execute

    for words in (
        *([*TINY_GPT, f"norm={norm}", f"seed={seed}"] for norm in ("dyt", "layernorm") for seed in (0, 1)),
        [*TINY_VIT, "norm=dyt", "trainer.probe_every=10"],
        [*TINY_GPT, "norm=none", "optim.lr=1e6", "optim.clip_grad=null", "optim.warmup_steps=0"],
    ):
        execute(identity.plan(compose.load([*words, *short]), [*words, *short]))
    (place / "runs/default/damaged").mkdir()
    (place / "runs/default/damaged/run.json").write_text("{")
    odd = next(place.glob("runs/default/gpt*-dyt-*-s1-*"))
    (odd / "metrics.jsonl").open("a").write('{"step": 31, "train')
    text = (odd / "config.yaml").read_text()
    (odd / "config.yaml").write_text(text.replace("tag: null", "tag: " + json.dumps(EVIL)))
    odd.rename(odd.with_name(f"{EVIL.replace('/', '_')}-s1-{odd.name[-10:]}"))
    return place


@pytest.fixture(scope="module")
def page(runs):
    done = python(REPORT, "runs", "--out", str(runs / "page"), cwd=runs)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- the data ----------------------------------------------------------------------------------------------------------


def test_the_data_is_what_the_runs_wrote(runs):
    data = collect(ROOT / "results", [runs / "runs"], [])
    assert len(data["runs"]) == 6 and data["left_out"] == 1
    for run in data["runs"]:
        rows = [r for r in rows_of_whole_lines(run["dir"]) if r.get("train/loss") is not None]
        steps, values = data["curves"][run["id"]]["train/loss"]
        assert steps == [r["step"] for r in rows]
        assert values == pytest.approx([r["train/loss"] for r in rows], rel=1e-5)
    assert sorted(r["status"] for r in data["runs"]) == ["diverged", *["finished"] * 5]
    assert [r["broken"] for r in data["runs"] if r["broken"]] == [1]


def rows_of_whole_lines(folder):
    from pathlib import Path

    from dyt.tracking.metrics import read_metrics

    return read_metrics(Path(folder) / "metrics.jsonl")


def test_runs_at_two_depths_are_all_found(tmp_path):
    from dyt.report.collect import run_directories

    for place in ("a-s0-1", "b-s1-2", "old/c-s2-3", "old/d.replaced-1"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "run.json").write_text("{}")
    assert [str(p.relative_to(tmp_path)) for p in run_directories(tmp_path)] == ["a-s0-1", "b-s1-2", "old/c-s2-3"]


def test_thinning_keeps_spikes_and_the_budget():
    run = {"norm": "dyt", "final": {}, "best": {}}
    points = [(step, 100.0 if step == 777 else 1.0) for step in range(1, 2001)]
    data = pack([], [run | {"id": str(i)} for i in range(500)], {str(i): {"train/loss": points} for i in range(500)})
    steps, values = data["curves"]["7"]["train/loss"]
    assert len(steps) < 2000 and 777 in steps and max(values) == 100.0
    assert len(as_script(data)) < 20e6


def test_every_committed_study_is_there_without_run_directories():
    data = collect(ROOT / "results", [])
    shown = {s["name"] for s in data["studies"] if s["tests"]}
    assert shown == {p.parent.parent.name for p in ROOT.glob("results/*/small/verdicts.json")}
    assert all(s["figure"] for s in data["studies"] if s["tests"])
    assert {r["id"] for r in data["runs"]} >= set(data["curves"]) and len(data["curves"]) > 300


@pytest.mark.parametrize(
    "words, says",
    [
        (["nowhere"], "neither a run directory nor a study"),
        (["dept"], "did you mean 'depth'?"),
        (["empty"], "no run directory there"),
        (["bare"], "a run without metrics.jsonl"),
        (["--results", "empty"], "no runs to show; train one first, for instance: python train.py norm=dyt"),
    ],
)
def test_bad_input_gets_one_line(words, says, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "run.json").write_text("{}")
    assert says in one_line(python(REPORT, *words, "--out", "page"))


@pytest.mark.parametrize(
    "file, content",
    [
        ("summary.json", '{"best": {"val/loss": 3}}'),
        ("metrics.jsonl", '{"step": 1, "train/loss": 2.0, "tokens": null}'),
        ("metrics.jsonl", '{"step": 1, "train/loss": 1' + "0" * 400 + "}"),
        ("config.yaml", "model: {name: a}\nnorm: {name: b}\ndata: {name: c}\nseed: 0\ntag: 2026-01-01\nx: .inf"),
        ("summary.json", '{"wall_s": NaN, "status": ["odd"]}'),
        ("config.yaml", "a: ["),
    ],
)
def test_one_odd_directory_harms_no_other(file, content, runs, tmp_path):
    shutil.copytree(runs / "runs", tmp_path / "runs")
    odd = next(tmp_path.glob("runs/default/gpt*-layernorm-*-s0-*"))
    (odd / file).write_text(content)
    data = json.loads(as_script(collect(ROOT / "results", [tmp_path / "runs"], [])).removeprefix("window.DYT = ")[:-2])
    assert len(data["runs"]) + data["left_out"] == 7 and len(data["runs"]) >= 5
    assert python(str(ROOT / "scripts/runs.py")).returncode == 0


def test_a_port_in_use_is_one_line(runs):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [str(runs / "runs"), "--watch", "--port", str(taken.getsockname()[1]), "--out", str(runs / "other")]
        done = python(REPORT, *words)
    assert done.returncode == 1 and "Address already in use; give another" in done.stderr
    assert "Traceback" not in done.stderr


def made_in(folder, *words) -> dict:
    """The data of the page that another process makes of the runs in `folder`: it sees who holds which."""
    done = python(REPORT, "--results", "none", "--out", "page", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "page/data.js").read_text().removeprefix("window.DYT = ")[:-2])


def test_a_studys_run_under_way_is_named_as_its_rows_will_be(tmp_path):
    from dyt.studies.running.study import Study

    run = next(r for r in Study("gpt_norms").runs("small") if r.cell["norm"] == "derf")
    going = Going(run, tmp_path / "runs")
    going.step(1)
    made = made_in(tmp_path, "gpt_norms", "runs")
    going.lock.__exit__()
    (mine,) = made["runs"]
    rows = {r["id"]: r for r in collect(ROOT / "results", [], ["gpt_norms"])["runs"]}
    theirs = next(r for r in rows.values() if r["norm"] == "derf" and r["seed"] == run.seed
                  and r["in"]["gpt_norms/small"]["cell"].items() <= run.cell.items())  # fmt: skip
    assert mine["studies"] == ["gpt_norms/small"] and mine["in"]["gpt_norms/small"] == theirs["in"]["gpt_norms/small"]
    assert [s["name"] for s in made["studies"] if s["under_way"]] == ["gpt_norms"]
    twice = made_in(
        tmp_path, "gpt_norms", "runs", "--results", str(ROOT / "results")
    )  # the study has that run already: this is another
    assert [r["studies"] for r in twice["runs"] if r["id"] == mine["id"]] == [[]]


def test_verdicts_that_are_no_differences_have_a_scale_of_their_own():
    data = collect(ROOT / "results", [], ["depth", "stability", "alpha_tracks_std", "gradient_depth"])
    by = {t["says"]: t for s in data["studies"] for t in s["tests"]}
    assert all((t["units"] is None) != (t.get("scale_of") is None) for t in by.values())
    falls = by["with DyT deeper is better (2 to 24 layers)"]["scale_of"]
    assert falls["on"] == "rank" and falls["claimed"] == "-" and falls["ends"] == [-0.82048, -0.95739, -0.3825]
    assert by["LayerNorm fails there too"]["scale_of"] == {"on": "count", "lost": 0, "of": 3}
    rho = by["GPT: over layers, alpha rises with 1 / std of its input at the end"]["scale_of"]
    assert rho["on"] == "rank" and rho["claimed"] == "+"


@pytest.mark.parametrize("name", ["depth", "coupling"])  # coupling: further seeds at the level that was chosen only
def test_a_complete_study_has_as_many_runs_as_it_asks_for(name):
    (study,) = (s for s in collect(ROOT / "results", [], [name])["studies"] if s["scale"] == "small")
    assert len((ROOT / f"results/{name}/small/runs.csv").read_text().splitlines()) - 1 == study["asked"]


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chromium-browser")
    if not driver or not chromium:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    folder = tmp_path_factory.mktemp("downloads")
    about = webdriver.ChromeOptions()
    about.binary_location = chromium
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        about.add_argument(word)
    about.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    about.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    with webdriver.Chrome(options=about, service=Service(driver)) as made:
        made.downloads = folder
        yield made


def show(browser, page: str, state: str = "") -> None:
    browser.get("about:blank")
    browser.get_log("browser")  # of the page before: a watched one whose server has ended complains
    browser.get(f"file://{page}#{state}")
    soon(lambda: browser.execute_script("return document.documentElement.dataset.drawn"))


def find(browser, selector: str):
    return browser.find_element("css selector", selector)


def text(browser, selector: str = "main") -> str:
    return browser.execute_script("return document.querySelector(arguments[0]).innerText", selector)


def soon(condition) -> None:
    """Waits until it holds: the page draws after a click, and not at once on a busy machine."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 30
        time.sleep(0.02)


def lines(browser) -> list[dict]:
    """Name and points of every line of the first chart, as the charting library has them."""
    return browser.execute_script(
        "return [...charts][0].getOption().series.filter((s) => s.type === 'line')"
        ".map((s) => ({name: s.name, data: s.data, dash: s.lineStyle.type}))"
    )


def built(browser) -> None:
    """Waits for the table of runs."""
    began = time.monotonic()
    while not browser.execute_script("return document.getElementById('runs').dataset.built"):
        assert time.monotonic() - began < 30
        time.sleep(0.02)


def cells(browser, field: str) -> list[str]:
    """A column of the table of runs, as it is read."""
    found = browser.find_elements("css selector", f"#runs .tabulator-cell[tabulator-field={field}]")
    return [cell.text for cell in found]


def downloaded(browser, name: str) -> str:
    path = browser.downloads / name
    began = time.monotonic()
    while not path.exists():
        assert time.monotonic() - began < 60, f"{name} never came"
        time.sleep(0.02)
    content = path.read_text()
    path.unlink()
    return content


def test_each_view_draws_with_no_error_and_no_request(browser, page):
    browser.get_log("performance")
    for view in VIEWS:
        show(browser, page, f"view={view}")
        assert find(browser, f'nav a[href="#view={view}"]').get_attribute("aria-current") == "page"
    assert browser.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file:", "data:", "about:", "blob:")) for url in asked), asked


def test_own_runs_have_an_answer_too(browser, page):
    show(browser, page)
    told = text(browser)
    assert "Your own runs" in told and "gpt_nano on stdlib" in told and "ends lowest" in told
    assert "4 of 5 runs finished. 1 diverged or failed: why" in told
    browser.find_element("partial link text", "diverged or failed").click()
    soon(lambda: "view=runs" in browser.current_url and "1 of 6 runs" in text(browser, "#count"))


def test_curves_hide_a_norm_change_the_axis_and_are_kept_in_the_address(browser, page):
    show(browser, page, "view=curves&metric=train/loss&q=gpt_nano")
    assert sorted(line["name"].split(",")[0] for line in lines(browser)) == ["DyT", "LayerNorm", "no norm"]
    find(browser, '.legend [data-norm="layernorm"]').click()
    assert "LayerNorm" not in {line["name"] for line in lines(browser)}
    assert find(browser, '.legend [data-norm="layernorm"]').get_attribute("aria-pressed") == "true"
    find(browser, "#check-log").click()
    axis = "return [...charts][0].getOption()"
    assert browser.execute_script(f"{axis}.yAxis[0].type") == "log"
    browser.execute_script(
        "const s = document.getElementById('choose-x'); s.value = 'samples'; s.dispatchEvent(new Event('change'))"
    )
    assert browser.execute_script(f"{axis}.xAxis[0].name") == "tokens"
    assert lines(browser)[0]["data"][0][0] == 12 * 16  # tokens of the first step
    linked = browser.current_url
    assert "hide=layernorm" in linked and "log=1" in linked and "x=samples" in linked
    before = lines(browser)
    browser.get("about:blank")
    browser.get(linked)
    assert lines(browser) == before and browser.execute_script(f"{axis}.yAxis[0].type") == "log"


def test_seeds_one_by_one_or_as_a_band(browser, page):
    show(browser, page, "view=curves&metric=train/loss&q=layernorm")
    (mean,) = lines(browser)
    show(browser, page, "view=curves&metric=train/loss&q=layernorm&seeds=each")
    a, b = lines(browser)
    for (x, y), (_, p), (_, q) in zip(mean["data"], a["data"], b["data"], strict=True):
        assert y == pytest.approx((p + q) / 2) and x > 0
    show(browser, page, "view=curves&metric=train/loss&q=layernorm&seeds=each&smooth=0.9")
    assert lines(browser)[0]["data"][-1] != a["data"][-1]


def test_hover_says_run_seed_and_value(browser, page):
    from selenium.webdriver import ActionChains

    show(browser, page, "view=curves&metric=train/loss&q=layernorm&seeds=each")
    point = lines(browser)[0]["data"][15]
    at = browser.execute_script("return [...charts][0].convertToPixel({gridIndex: 0}, arguments[0])", point)
    plot = find(browser, ".plot")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", plot)
    size = plot.size
    ActionChains(browser).move_to_element_with_offset(
        plot, int(at[0] - size["width"] / 2), int(at[1] - size["height"] / 2)
    ).perform()
    tip = text(browser, "#tip")
    assert "layernorm, seed " in tip and f"step {point[0]}: train/loss " in tip


def test_csv_holds_the_numbers_of_metrics_jsonl(browser, page, runs):
    show(browser, page, "view=curves&metric=train/loss&q=layernorm")
    find(browser, "#csv").click()
    rows = list(csv.DictReader(io.StringIO(downloaded(browser, "train_loss.csv"))))
    assert {r["seed"] for r in rows} == {"0", "1"}
    for folder in runs.glob("runs/default/gpt*-layernorm-*"):
        theirs = {r["step"]: r["train/loss"] for r in rows_of(folder)}
        ours = {int(r["step"]): float(r["train/loss"]) for r in rows if r["run"] == folder.name}
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_pictures_are_downloaded(browser, page):
    show(browser, page, "view=curves&metric=train/loss&q=layernorm")
    find(browser, ".facet .svg").click()
    svg = downloaded(browser, "gpt_nano_on_stdlib.svg")
    assert svg.startswith("<svg") and "LayerNorm" in svg and svg.count("<path") > 3
    find(browser, ".facet .png").click()
    began = time.monotonic()
    while not (png := browser.downloads / "gpt_nano_on_stdlib.png").exists():
        assert time.monotonic() - began < 60
        time.sleep(0.02)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_the_table_filters_sorts_and_compares(browser, page):
    show(browser, page, "view=runs")
    box = find(browser, "#filter")
    box.send_keys("norm.name=dyt -vit_nano")
    began = time.monotonic()
    while "2 of 6" not in text(browser, "#count"):
        assert time.monotonic() - began < 30
        time.sleep(0.02)
    show(browser, page, "view=runs&fold=&sort=seed:down")
    built(browser)
    seeds = cells(browser, "seed")
    assert seeds == sorted(seeds, reverse=True) and len(seeds) == 6
    assert "diverged" in text(browser, "#runs") and "1 broken lines left out" in text(browser, "#runs")
    ticks = browser.find_elements("css selector", "#runs input[type=checkbox]")
    ticks[0].click()
    ticks[-1].click()
    assert "seed" in text(browser, "#compare") and "settings differ" in text(browser, "#compare")


def test_names_full_of_html_are_shown_as_text(browser, page):
    for view in ("runs&fold=", "curves&metric=train/loss&seeds=each", "layers"):
        show(browser, page, f"view={view}")
        assert browser.title != "sprung"
        assert browser.execute_script("return document.querySelectorAll('main img').length") == 0
    show(browser, page, "view=runs&fold=")
    built(browser)
    assert "<img src=x onerror=" in text(browser, "#runs")


def test_layers_and_their_slider(browser, page):
    show(browser, page, "view=layers&stat=alpha")
    names = [line["name"] for line in lines(browser)]
    assert "blocks.0.norm1" in names and "1/std of blocks.0.norm1" in names
    show(browser, page, "view=layers&stat=alpha&layer=1")
    assert "1/std of blocks.0.norm2" in [line["name"] for line in lines(browser)]
    show(browser, page, "view=layers&stat=saturated")
    assert "share with |alpha x| > 2" in text(browser)


def test_what_models_make_is_shown_text_as_text_and_pictures_beside(browser, runs, tmp_path):
    import base64

    shutil.copytree(runs / "runs", tmp_path / "runs")
    (written,) = tmp_path.glob("runs/default/gpt*-layernorm-*-s0-*")
    wrote = (written / "samples.txt").read_text()
    assert len(wrote) > 100  # a run of a language model leaves a text
    (odd,) = tmp_path.glob("runs/default/gpt*-dyt-*-s0-*")
    (odd / "samples.txt").write_text(EVIL)
    (vit,) = tmp_path.glob("runs/default/vit*")
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    (vit / "samples.png").write_bytes(base64.b64decode(dot))
    done = python(REPORT, str(tmp_path / "runs"), "--out", str(tmp_path / "page"))
    show(browser, done.stdout.strip(), "view=layers&more=1")
    told = text(browser, "#samples")
    assert EVIL in told and browser.title != "sprung"
    texts = browser.execute_script("return [...document.querySelectorAll('#samples pre')].map((p) => p.textContent)")
    assert wrote in texts
    picture = find(browser, "#samples img")
    assert "DyT" in picture.get_attribute("alt") and picture.get_attribute("src").startswith("file:")
    browser.execute_script("arguments[0].scrollIntoView()", picture)
    soon(lambda: browser.execute_script("return arguments[0].naturalWidth", picture) == 1)
    assert browser.get_log("browser") == []


def test_tensorboard_finds_runs_under_the_pages_names(runs, tmp_path):
    shutil.copytree(runs / "runs", tmp_path / "runs")
    (one,) = tmp_path.glob("runs/default/gpt*-layernorm-*-s1-*")
    (one / "tensorboard").mkdir()
    (one / "tensorboard/events.out.tfevents.1").write_text("")
    done = python(REPORT, str(tmp_path / "runs"), "--out", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    (link,) = (tmp_path / "page/tensorboard").glob("*/*")
    assert link.parent.name == "runs" and link.name.startswith("LayerNorm") and ", seed 1, gpt_nano on " in link.name
    assert link.resolve() == (one / "tensorboard").resolve()
    shutil.rmtree(one)
    (tmp_path / "page/tensorboard/mine").mkdir()
    (tmp_path / "page/tensorboard/mine/events.out.tfevents.2").write_text("")
    assert python(REPORT, str(tmp_path / "runs"), "--out", str(tmp_path / "page")).returncode == 0
    left = [path.name for path in (tmp_path / "page/tensorboard").rglob("*")]
    assert left == ["mine", "events.out.tfevents.2"]  # the link of a run that is gone goes, what is no link stays


def test_a_page_is_never_written_over_something_else(runs, tmp_path):
    (run,) = runs.glob("runs/default/gpt*-layernorm-*-s1-*")
    before = sorted(run.iterdir())
    (tmp_path / "own").mkdir()
    for name in ("index.html", "thesis.txt"):
        (tmp_path / "own" / name).write_text("mine")
    for out, name in ((tmp_path / "own", "index.html"), (run, before[0].name)):
        said = one_line(python(REPORT, str(run), "--out", str(out)))
        assert said == f"report.py: --out {out}: {name} is there, which is no part of a page; give another folder"
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("mine")  # no page of ours: there is no data.js of it
    said = one_line(python(REPORT, str(run), "--out", str(tmp_path / "site")))
    assert "index.html is there, which is no part of a page" in said
    assert (tmp_path / "site/index.html").read_text() == "mine"
    file = tmp_path / "own" / "thesis.txt"
    said = one_line(python(REPORT, str(run), "--out", str(file)))
    assert said == f"report.py: --out {file}: is a file; give a folder" and file.read_text() == "mine"
    assert (tmp_path / "own/index.html").read_text() == "mine" and sorted(run.iterdir()) == before


def test_themes_and_a_phone(browser, page):
    show(browser, page, "view=curves")
    back = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(back)
    find(browser, "#theme").click()
    assert browser.execute_script(back) != light and "theme=dark" in browser.current_url
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        for view in VIEWS:
            show(browser, page, f"view={view}")
            assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), view
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_has_a_name_and_is_reached_by_keyboard(browser, page):
    from selenium.webdriver.common.keys import Keys

    show(browser, page, "view=curves&metric=train/loss&q=gpt_nano")
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, select, input, a')].filter((e) => !e.labels?.length"
        " && !e.getAttribute('aria-label') && !e.innerText.trim()).map((e) => e.outerHTML)"
    )
    assert nameless == []
    button = find(browser, '.legend [data-norm="dyt"]')
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.SPACE)
    assert "hide=dyt" in browser.current_url
    assert browser.execute_script("return document.activeElement.dataset.norm") == "dyt"  # and the focus stays


def test_the_mean_ends_where_the_first_seed_does(browser, page):
    show(browser, page, "view=curves")
    ended = browser.execute_script(
        "return band([{points: [[1, 3], [2, 3]]}, {points: [[1, 5], [2, 5]]}, {points: [[1, 1], [2, 1], [9, 1]]}])"
    )
    assert ended["line"] == [[1, 3], [2, 3]] and ended["end"] == 2
    from scipy.stats import t

    for n in (3, 20, 21, 22, 25, 60, 500):  # beyond the table too
        half = browser.execute_script("return interval([...Array(arguments[0]).keys()]).half", n)
        sd = (n * (n + 1) / 12) ** 0.5  # of 0 to n - 1
        assert half == pytest.approx(t.ppf(0.975, n - 1) * sd / n**0.5, rel=2e-4)
    assert ended["area"][0][2] - 3 == pytest.approx(4.303 * 2 / 3**0.5, rel=1e-3)  # Student's t, 2 degrees of freedom


def test_runs_with_other_settings_are_not_averaged(browser, tmp_path):
    words = [*TINY_GPT, "norm=dyt", "trainer.max_steps=3", "trainer.log_every=1", "trainer.eval_batches=1"]
    for rate in ("1e-3", "2e-3"):
        _, folder = train(*words, f"optim.lr={rate}", "tag=a_long_name_that_is_cut")
        folder.rename(folder.with_name(f"same-name-s0-{folder.name[-10:]}"))
    done = python(REPORT, "runs", "--out", "page")
    show(browser, str(tmp_path / "page/index.html") if done.returncode == 0 else done.stderr, "view=curves")
    assert len(lines(browser)) == 2
    show(browser, str(tmp_path / "page/index.html"), "view=curves&q=optim.lr%3D2e-3")
    assert len(lines(browser)) == 1


@pytest.mark.parametrize(
    "state", ["view=layers&layer=x&at=-1", "view=constructor", "view=curves&smooth=1&x=y", "view=runs&sort=x"]
)
def test_an_odd_address_still_shows_something(browser, page, state):
    show(browser, page, state)
    assert browser.get_log("browser") == [] and len(text(browser)) > 50


def test_committed_studies_in_the_browser(browser, tmp_path):
    done = python(REPORT, "embed_scale", "ln_scurve", "--out", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    show(browser, done.stdout.strip())
    told = text(browser)
    assert "What was found" in told and "What a GPT is fed decides" in told  # a finding that rests on this study
    for verdict in json.loads((ROOT / "results/embed_scale/small/verdicts.json").read_text()):
        assert verdict["says"] in told and verdict["verdict"] in told
    show(browser, done.stdout.strip(), "view=layers")
    assert "What trained LayerNorms draw" in text(browser)
    show(browser, done.stdout.strip(), "view=curves&study=embed_scale/small")
    assert len(lines(browser)) > 5 and browser.get_log("browser") == []


@pytest.mark.slow
def test_watching_refreshes_when_a_run_goes_on(browser, runs, tmp_path):
    place = tmp_path / "runs"
    shutil.copytree(runs / "runs", place)
    command = [sys.executable, REPORT, str(place), "--watch", "--port", "0", "--out", str(tmp_path / "page")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
            browser.get(f"{address}#view=runs&q=layernorm")
            assert "2 of 6 runs" in text(browser, "#count")
            browser.execute_script("window.same = true")
            process_began = time.monotonic()
            while time.monotonic() - process_began < 5:  # two looks at version.txt: nothing changed, nothing is loaded
                assert browser.execute_script("return window.same")
            train(*TINY_GPT, "norm=rmsnorm", "trainer.max_steps=2", "trainer.eval_batches=1", out=str(place))
            began = time.monotonic()
            while "of 7 runs" not in text(browser, "#count"):
                assert time.monotonic() - began < 60
                time.sleep(0.1)
            assert "q=layernorm" in browser.current_url  # the view stays
        finally:
            process.terminate()


class Going:
    """A run of a study that is under way, as another process has it: its lock held, its rows written one by one."""

    def __init__(self, run, place):
        import yaml

        from dyt.rundir.lock import Lock

        config = run.config()
        hash = f"{abs(hash_of(run)):010x}"
        self.folder = place / run.study / f"gpt-{config['norm']['name']}-s{run.seed}-{hash}"
        self.folder.mkdir(parents=True)
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        (self.folder / "run.json").write_text(json.dumps({"config_hash": hash, "name": self.folder.name}))
        self.lock = Lock(self.folder)
        self.lock.__enter__()

    def step(self, step: int, **more) -> None:
        row = {"step": step, "train/loss": 3 - step / 100, "time_s": step / 10, "tokens": step * 64} | more
        with open(self.folder / "metrics.jsonl", "a") as stream:
            stream.write(json.dumps(row) + "\n")

    def end(self, status: str, why: str | None = None) -> None:
        (self.folder / "summary.json").write_text(json.dumps({"status": status, "why": why, "max_steps": 1000}))
        self.lock.__exit__()


def hash_of(run) -> int:
    import zlib

    return zlib.crc32(repr(run).encode())


@pytest.mark.slow
def test_a_study_under_way_is_followed_without_a_reload(browser, tmp_path):
    from dyt.report.answer import asked_for
    from dyt.studies.running.study import Study

    study = Study("depth")
    asked = study.runs("small")
    dyt, base = (next(r for r in asked if r.cell["norm"] == norm) for norm in ("dyt", "layernorm"))
    going = [Going(run, tmp_path / "runs") for run in (dyt, base)]
    for one in going:
        for step in (10, 20, 30):
            one.step(step)
    cut = Going(next(r for r in asked if r.cell["norm"] == "none"), tmp_path / "runs")
    cut.step(10)
    cut.lock.__exit__()
    command = [sys.executable, REPORT, "--watch", "--port", "0", "--out", "page", "--results", str(tmp_path / "none")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            process.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
            browser.get(f"{address}#view=curves&study=depth/small&metric=train/loss&log=1")
            told = text(browser, "#live")
            assert (
                "2 runs going on" in told and f"0 of {asked_for(study, 'small')} runs are done" in told
            )  # nor is one that was cut off
            assert "step 30 of 1,000, train/loss" not in told  # judged by what the study is: its validation loss
            assert told.count("1 min left") == 2  # 970 steps, ten a second
            browser.execute_script("window.same = true")
            for one in going:
                one.step(40, **{"val/loss": 2.7})
            soon(lambda: sorted(line["data"][-1][0] for line in lines(browser)) == [10, 40, 40])
            assert "val/loss 2.7" in text(browser, "#live")
            going[0].end("diverged", "loss nan in step 41")
            soon(lambda: "diverged at step 40: loss nan in step 41" in text(browser, "#live"))
            red = "return getComputedStyle(document.querySelector(arguments[0])).color"
            assert browser.execute_script(red, "#live .going .diverged") == "rgb(161, 38, 13)"
            assert "1 run going on" in text(browser, "#live") and "1 of " in text(browser, "#live")
            soon(lambda: "1 of 1 diverged" in text(browser, ".legend"))
            assert browser.execute_script("return window.same")  # the page was never loaded again
            assert "log=1" in browser.current_url
        finally:
            process.terminate()
    going[1].lock.__exit__()


# -- the views, each by what a user does -------------------------------------------------------------------------------


SHOWN = "gpt_norms gain_clip stability alpha_tracks_std dropin decision".split()


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The page of six committed studies."""
    out = tmp_path_factory.mktemp("studies")
    done = python(REPORT, *SHOWN, "--out", str(out / "page"))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_variants_are_named_in_one_place():
    assert variants.name("dyt-fed 0.2/5") == "DyT 0.2/5" and variants.name("none-fed") == "no norm"
    cell = {"setting": "gpt", "norm": "dyt-fed 0.2/5 ratio", "lr": "0.016"}
    assert variants.of_cell(cell, "dyt", cell) == ("DyT 0.2/5 ratio, lr 0.016", "gpt")
    cell = {"setting": "vit", "start": "dyt calibrated in three", "lr": "0.001"}
    assert variants.of_cell(cell, "dyt", cell) == ("DyT calibrated in three, lr 1e-3", "vit")
    assert variants.of_cell({"zero_init": "kept"}, "none", ["zero_init"]) == ("no norm", "zero init kept")
    flat = {
        "norm.name": "dyt_unit_gain",
        "norm.kind": "dyt",
        "norm.alpha_init": 0.2,
        "norm.gamma_init": "inverse_alpha",
    }
    assert variants.of_config(flat | {"optim.lr": 0.004}, ["optim.lr"]) == "DyT 0.2/5, lr 4e-3"
    others = [flat | {"optim.lr": lr, "seed": seed} for lr in (1e-3, 2e-3) for seed in (0, 1)]
    assert variants.differing([*others, {"norm.name": "layernorm", "optim.lr": 1e-3}]) == ["optim.lr"]


def test_the_forest_plot_has_every_difference_in_units_of_what_matters():
    data = collect(ROOT / "results", [], ["gpt_norms", "vit_norms"])
    by = {t["says"]: t for s in data["studies"] if s["scale"] == "small" for t in s["tests"]}
    worse = by["DyT is worse than LayerNorm on Shakespeare's characters"]
    (row,) = [
        v
        for v in json.loads((ROOT / "results/gpt_norms/small/verdicts.json").read_text())
        if v["says"] == worse["says"]
    ]
    assert worse["units"] == pytest.approx([-row["mean"] / 0.005, -row["high"] / 0.005, -row["low"] / 0.005])
    assert worse["paper_units"] == pytest.approx((2.94 - 2.97) / 0.005) and worse["claim"].startswith(
        "arXiv 2512.10938"
    )
    assert data["chance"]["before"] == pytest.approx(0.05 * data["chance"]["tested"])


@pytest.mark.slow
def test_the_forest_is_filtered_and_a_click_opens_the_study(browser, studies):
    show(browser, studies)
    rows = "return document.querySelectorAll('#forest .row').length"
    soon(lambda: browser.execute_script(rows))
    everything = browser.execute_script(rows)
    drawn = "return document.querySelectorAll(arguments[0]).length"
    told = [test for name in SHOWN for test in about_study(Study(name), "small", ROOT / "results")["tests"]]
    scales = [test["scale_of"] for test in told if test.get("scale_of")]
    on = {kind: [s for s in scales if s["on"] == kind] for kind in ("rank", "own", "count")}
    assert all(on.values())  # correlations, other units, runs that diverged
    assert browser.execute_script(drawn, "#ranks .row svg circle") == len(on["rank"])
    assert browser.execute_script(drawn, "#others .row svg path") == sum(s["lost"] for s in on["count"])
    kept = sum(s["of"] - s["lost"] for s in on["count"])
    assert browser.execute_script(drawn, "#others .row svg circle") == len(on["own"]) + kept
    find(browser, "#verdict-disagrees").click()
    soon(lambda: "verdict=disagrees" in browser.current_url and browser.execute_script(rows) < everything)
    files = sorted((ROOT / "results/gpt_norms").glob("*/verdicts.json"))
    told = [verdict for file in files for verdict in json.loads(file.read_text())]
    assert 0 < browser.execute_script(rows) < everything and "verdict=disagrees" in browser.current_url
    browser.execute_script(
        "const s = document.getElementById('choose-of'); s.value = 'gpt_norms'; s.dispatchEvent(new Event('change'))"
    )
    soon(lambda: browser.execute_script(rows) == sum(v["verdict"] == "disagrees" for v in told))
    find(browser, "#forest .row a").click()
    soon(lambda: "study=gpt_norms" in browser.current_url and any(v["we_found"] in text(browser) for v in told))
    assert "runs.csv" in text(browser, "#files") and browser.get_log("browser") == []


@pytest.mark.slow
def test_curves_open_on_the_main_study_with_eight_variants_at_most(browser, studies):
    browser.get("about:blank")
    browser.get(f"file://{studies}")
    browser.execute_script("localStorage.clear()")
    show(browser, studies, "view=curves")
    assert "Curves: gpt_norms" in text(browser)
    show(browser, studies, "view=curves&study=gpt_norms/small")
    assert {line["name"] for line in lines(browser)} == {"LayerNorm", "RMSNorm", "DyT", "Derf", "no norm"}
    show(browser, studies, "view=curves&study=gain_clip/small")
    names = {line["name"] for line in lines(browser)}
    # The baseline first, then the best of each norm in turn, each at its best rate.
    assert len(names) == 8 and {"LayerNorm, lr 4e-3", "no norm, lr 4e-3", "Derf 0.2/5 ratio, lr 4e-3"} <= names
    looks = browser.execute_script(
        "return [...charts][0].getOption().series.filter((s) => s.type === 'line').map((s) => "
        "s.lineStyle.color + s.lineStyle.type)"
    )
    assert len(set(looks)) == len(looks)  # each can be told from the others
    find(browser, "#more").click()
    find(browser, "[data-variant=layernorm-lr-8e-3]").click()
    assert "LayerNorm, lr 8e-3" in {line["name"] for line in lines(browser)}
    show(browser, studies, "view=curves")  # and the next time on what was looked at last
    assert browser.execute_script("return remembered()") == "" or "Curves: " in text(browser)


@pytest.mark.slow
def test_two_pinned_variants_differ_as_the_studies_statistics_say(browser, studies):
    from dyt.studies.running.rows import read_runs
    from dyt.studies.statistics import paired

    show(browser, studies, "view=curves&study=gpt_norms/small")
    find(browser, "#pin-dyt").click()
    find(browser, "#pin-layernorm").click()
    assert "pin=dyt%2Clayernorm" in browser.current_url
    rows = [r for r in read_runs(ROOT / "results/gpt_norms/small/runs.csv") if r["data"] == "shakespeare"]
    arms = [{r["seed"]: r["final"] for r in rows if r["norm"] == norm} for norm in ("dyt", "layernorm")]
    want = paired(*arms).difference
    told = text(browser, "#pair .told")
    assert f"+{want.mean:.4f} [+{want.low:.4f}, +{want.high:.4f}]" in told and "3 pairs of seeds" in told
    (row,) = [
        v
        for v in json.loads((ROOT / "results/gpt_norms/small/verdicts.json").read_text())
        if v["says"] == "DyT is worse than LayerNorm on Shakespeare's characters"
    ]
    assert row["steps"].startswith("not reached in 3 of 3; 120% more [90, 154]")
    assert "120% more steps [90, 154] to its own end; not reached in 3 of 3" in told


@pytest.mark.slow
def test_values_and_losses_of_a_cell_are_those_of_the_studies(browser, studies):
    """A run that finished no better than chance is lost there too: its loss is in no mean."""
    show(browser, studies)
    chance = 0
    for name in SHOWN:
        study = Study(name)
        about = asked(study, "small", read_runs(ROOT / f"results/{name}/small/runs.csv", study))
        cells = browser.execute_script(
            "const scope = arguments[0], runs = data.runs.filter((r) => r.in[scope]);"
            "return [...Map.groupBy(runs, (r) => JSON.stringify(r.in[scope].cell)).values()].map((own) =>"
            " ({ cell: own[0].in[scope].cell, of: own.length, ...ending(own, own[0].metric) }))",
            f"{name}/small",
        )
        for found in cells:
            rows = [r for r in about.rows if all(r[f] == v for f, v in found["cell"].items())]
            values = [about.value(r) for r in rows]
            fine = [v for v in values if v is not None]
            assert (found["of"], found["lost"]) == (len(rows), len(values) - len(fine)), (name, found)
            assert found.get("mean") == (pytest.approx(sum(fine) / len(fine), rel=1e-5) if fine else None)
            chance += sum(about.value(r) is None and r["status"] == "finished" for r in rows)
    assert chance > 20  # or nothing was seen


@pytest.mark.slow
def test_steps_to_a_target_are_finite_where_a_model_is_there_before_its_first_step(browser, studies):
    """A converted model may be: it counts as one step, as in dyt/studies/judging/curves.py."""
    show(browser, studies, "view=curves&study=dropin/small")
    told = browser.execute_script(
        "const scope = 'dropin/small', all = variantsOf(data.runs.filter((r) => r.studies.includes(scope)), scope);"
        "const found = [], shared = (a, b) => [...a.places.keys()].filter((place) => a !== b && b.places.has(place));"
        "for (const a of all) for (const b of all) for (const place of shared(a, b))"
        "  found.push(stepsMore(a.places.get(place), b.places.get(place), 'val/loss'));"
        "return found"
    )
    show(browser, studies, "view=curves&study=gain_clip/small")  # of the committed table: 34% fewer [30, 38]
    fewer = browser.execute_script(
        "const of = (norm) => data.runs.filter((r) => r.in['gain_clip/small'] && r.config['optim.lr'] == 4e-3"
        " && r.in['gain_clip/small'].cell.setting === 'gpt' && r.in['gain_clip/small'].cell.norm === norm);"
        "return stepsMore(of('dyt-fed 0.2/5 ratio'), of('layernorm'), 'val/loss')"
    )
    assert fewer == "34% fewer steps [30, 38] to the other's end"
    assert len(told) > 1000 and any(told) and not [t for t in told if "Infinity" in t or "NaN" in t]


@pytest.mark.slow
def test_the_crosshair_moves_by_keyboard_in_all_panels(browser, studies):
    from selenium.webdriver.common.keys import Keys

    show(browser, studies, "view=curves&study=gpt_norms/small")
    keys = find(browser, ".facets .keys")
    browser.execute_script("arguments[0].focus()", keys)
    keys.send_keys(Keys.ARROW_LEFT)
    boxes = [b.text for b in browser.find_elements("css selector", ".facets .read") if b.is_displayed()]
    assert len(boxes) == 2 and all("step 750" in box and "LayerNorm" in box for box in boxes)
    value = keys.get_attribute("aria-valuetext")
    assert keys.get_attribute("aria-valuenow") == "750" and value.startswith("step 750: DyT 2.3")


@pytest.mark.slow
def test_a_metric_that_is_measured_once_is_no_curve_but_chooses_the_variants(browser, studies):
    """A Decision Transformer's return comes at the end; the rates are those that the return chose, with three seeds."""
    show(browser, studies, "view=curves&study=decision/small")
    assert browser.find_element("id", "choose-metric").get_attribute("value") == "val/loss"
    assert "LayerNorm, lr 0.07" in text(browser, ".legend") and "DyT, lr 0.03" in text(browser, ".legend")


@pytest.mark.slow
def test_tuning_marks_the_best_rate_and_the_edge(browser, studies):
    show(browser, studies, "view=tuning&study=gain_clip/small")
    (best,) = [r for r in text(browser, "#bests").splitlines() if r.split("\t")[:2] == ["LayerNorm", "gpt"] or
               r.strip().startswith("LayerNorm\tgpt\t")][:1] or [text(browser, "#bests")]  # fmt: skip
    assert "0.004" in best
    assert "3 of 3 at 0.032" in text(browser, "#bests")
    show(browser, studies, "view=tuning&study=stability/small")
    assert "the lowest searched" in text(browser, "#bests") and "lr and alpha0 together" in text(browser)


@pytest.mark.slow
def test_tuning_chooses_as_the_studies_do(browser, studies):
    """By the seeds that all rates have: only the chosen one has more."""
    show(browser, studies, "view=tuning&study=dropin/small")
    study = Study("dropin")
    about = asked(study, "small", read_runs(ROOT / "results/dropin/small/runs.csv", study))
    rows = [row.find_elements("css selector", "td") for row in browser.find_elements("css selector", "#bests tbody tr")]
    best = {(arm.text.strip(), place.text): float(rate.text) for arm, place, rate, *_ in rows}
    for cell in ({"setting": "vit", "start": "layernorm"}, {"setting": "gpt", "start": "dyt by sites"}):
        assert best[variants.of_cell(cell, "dyt", cell)] == float(about.chosen(cell))


@pytest.mark.slow
def test_layers_say_which_saturates_as_lines_and_as_one_picture(browser, studies):
    show(browser, studies, "view=layers&study=alpha_tracks_std/small")
    assert "Most saturated at the end: " in text(browser, "#saturates")
    kinds = browser.execute_script("return [...charts].map((c) => c.getOption().series[0].type)")
    assert "heatmap" in kinds and "line" in kinds and browser.get_log("browser") == []


@pytest.mark.slow
def test_seeds_are_folded_and_a_click_unfolds_them(browser, studies):
    show(browser, studies, "view=runs&study=gpt_norms/small")
    built(browser)
    assert set(cells(browser, "seed")) == {"3 seeds"} and len(cells(browser, "seed")) == 10
    assert "2.0966 ± 0.00" in cells(browser, "final")[0]
    find(browser, "#runs .tabulator-row .tabulator-data-tree-control").click()
    assert cells(browser, "seed")[1:4] == ["0", "1", "2"]
    heights = browser.execute_script(
        "return [...document.querySelectorAll('#runs .tabulator-row')].map((r) => r.offsetHeight)"
    )
    assert max(heights) <= 36  # one line a run
    show(browser, studies, "view=runs&study=gain_clip/small")
    find(browser, "#quick-diverged").click()
    built(browser)
    assert "gradient norm nan in step 136" in text(browser, "#runs")


def odd_runs(place, count=1, norms=("dyt",), name="gpt", status="finished", points=5):
    import yaml

    for i in range(count):
        folder = place / "default" / f"{name[:40]}-{norms[i % len(norms)]}-s{i}-{i:010x}"
        folder.mkdir(parents=True)
        parts = {"model": {"name": name}, "norm": {"name": norms[i % len(norms)]}, "data": {"name": "text"}}
        (folder / "config.yaml").write_text(yaml.safe_dump(parts | {"seed": i // len(norms)}, allow_unicode=True))
        (folder / "run.json").write_text(json.dumps({"config_hash": f"{i:010x}"}))
        (folder / "summary.json").write_text(json.dumps({"status": status, "max_steps": points, "why": "loss nan"}))
        lines = [json.dumps({"step": s, "train/loss": 3.0 / s, "val/loss": 3.1 / s}) for s in range(1, points + 1)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def made_run(place, norm: str, rate: float, seed: int, status: str, final: float, steps: int = 5) -> None:
    """A run directory of its own; `status` "cut off" is one that ended without a word."""
    import yaml

    hash = hash_of((norm, rate, seed))
    folder = place / "default" / f"gpt-{norm}-s{seed}-{hash:010x}"
    folder.mkdir(parents=True)
    parts = {"model": {"name": "gpt"}, "norm": {"name": norm}, "data": {"name": "text"}, "optim": {"lr": rate}}
    (folder / "config.yaml").write_text(yaml.safe_dump(parts | {"seed": seed}))
    (folder / "run.json").write_text(json.dumps({"config_hash": f"{hash:010x}"}))
    if status != "cut off":
        (folder / "summary.json").write_text(json.dumps({"status": status, "max_steps": 5, "why": "out of memory"}))
    rows = [{"step": s, "train/loss": final + 1 - s / steps, "val/loss": final} for s in range(1, steps + 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.slow
def test_only_a_run_that_finished_has_a_final_value(browser, tmp_path):
    for rate, finals in ((1e-3, (2.0, 2.1)), (2e-3, (1.9, 1.8)), (4e-3, (2.2, 2.3))):
        for seed, final in enumerate(finals):
            made_run(tmp_path, "layernorm", rate, seed, "finished", final)
            made_run(tmp_path, "derf", rate, seed, "failed", final - 1)
    made_run(tmp_path, "dyt", 1e-3, 0, "finished", 2.5)
    made_run(tmp_path, "dyt", 1e-3, 1, "cut off", 0.5, steps=3)
    made_run(tmp_path, "dyt", 2e-3, 0, "cut off", 0.4, steps=3)
    made_run(tmp_path, "dyt", 4e-3, 0, "diverged", 0.3, steps=4)
    done = python(REPORT, str(tmp_path), "--out", str(tmp_path / "page"))
    page = done.stdout.strip()
    show(browser, page, "view=tuning")
    rows = {
        name.strip(): (rate, final, lost)
        for name, _, rate, final, _, lost in (
            [cell.text for cell in row.find_elements("css selector", "td")]
            for row in browser.find_elements("css selector", "#bests tbody tr")
        )
    }
    assert [float(v) for v in rows["LayerNorm"][:2]] == [0.002, 1.85] and rows["LayerNorm"][2] == "–"
    assert [float(v) for v in rows["DyT"][:2]] == [0.001, 2.5]
    assert rows["DyT"][2].split("\n") == ["1 of 1 at 0.004", "not ended: 1 of 2 at 0.001; 1 of 1 at 0.002"]
    assert rows["Derf"] == ("–", "–", "2 of 2 at 0.001; 2 of 2 at 0.002; 2 of 2 at 0.004")
    of = "const of = (norm) => data.runs.filter((r) => r.norm === norm && r.config['optim.lr'] == arguments[0]);"
    pair = browser.execute_script(f"{of} return difference(of('dyt'), of('layernorm'), 'val/loss')", 0.001)
    assert (pair["n"], pair["mean"], pair["lost"], pair["won"]) == (1, pytest.approx(0.5), 0, 0)
    gone = browser.execute_script(f"{of} return difference(of('dyt'), of('layernorm'), 'val/loss')", 0.004)
    assert (gone["n"], gone["lost"], gone["won"]) == (0, 1, 0)
    show(browser, page, "view=answer")
    find(browser, "#main .findings a").click()
    soon(lambda: "7 of 16 runs" in text(browser, "#count"))
    built(browser)
    assert set(cells(browser, "final")) == {"–"} or set(cells(browser, "final")) == {""}


@pytest.mark.slow
@pytest.mark.parametrize(
    "about",
    [
        {"count": 1},
        {"count": 3},
        {"count": 3, "status": "diverged"},
        {"count": 2, "name": "n" * 300},
        {"count": 2, "name": "\u0645\u062d\u0648\u0644 \u05e9\u05dc\u05d5\u05dd"},
        {"count": 5000, "norms": ("dyt", "layernorm", "none")},
    ],
    ids=["one run", "one variant", "all diverged", "300 characters", "right to left", "5,000 runs"],
)
def test_odd_studies_still_read_well(browser, tmp_path, about):
    odd_runs(tmp_path / "runs", **about)
    done = python(REPORT, str(tmp_path / "runs"), "--out", str(tmp_path / "page"))
    assert done.returncode == 0, done.stderr
    for view in VIEWS:
        show(browser, str(tmp_path / "page/index.html"), f"view={view}")
        assert len(text(browser)) > 40 and browser.get_log("browser") == [], view
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), view
    show(browser, str(tmp_path / "page/index.html"), "view=runs&fold=")
    built(browser)
    assert f"{about['count']} of {about['count']} runs" in text(browser, "#count").replace(",", "")
    if about["count"] == 5000:
        took = browser.execute_script("return Number(document.getElementById('runs').dataset.built)")
        assert took < 6000  # 2 s on a quiet machine; tests share theirs
        drawn = "return document.querySelectorAll('#runs .tabulator-row').length"
        assert browser.execute_script(drawn) < 200
        browser.execute_script("document.querySelector('.tabulator-tableholder').scrollTop = 80000")
        time.sleep(0.5)
        assert browser.execute_script(
            "const h = document.querySelector('.tabulator-tableholder').getBoundingClientRect();"
            "return Boolean(document.elementFromPoint(h.left + 200, h.top + h.height / 2).closest('.tabulator-row'))"
        )


AXE = (ROOT / "tests/vendor/axe.min.js").read_text()  # axe-core, MPL-2.0: its licence stands beside it


def serious_faults(browser) -> list[tuple]:
    browser.execute_script(AXE)
    found = browser.execute_async_script("const done = arguments[0]; axe.run().then((r) => done(r.violations))")
    return [
        (v["id"], v["nodes"][0]["html"][:200], v["nodes"][0].get("failureSummary", "")[:200])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1400, 1000), (390, 844)], ids=["wide", "phone"])
def test_no_serious_fault_of_accessibility(browser, studies, theme, size):
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    try:
        for view in VIEWS:
            show(browser, studies, f"view={view}&theme={theme}")
            if view == "runs":
                built(browser)
            assert serious_faults(browser) == [], view
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_fault_of_accessibility_would_be_found(browser, page):
    show(browser, page, "view=curves")
    browser.execute_script(
        "document.querySelector('main').append(Object.assign(document.createElement('button'), {id: 'x'}))"
    )
    assert [fault[0] for fault in serious_faults(browser)] == ["button-name"]


def test_what_was_foretold_is_no_point_of_a_finding():
    """An arm of a ladder without its size would be a mean over sizes."""
    from dyt.report.answer import findings
    from dyt.studies.running.study import Study, names

    found = findings(ROOT / "results", {name: list(Study(name).scales) for name in names()})
    rungs = [p["label"] for finding in found for p in finding["points"] if p["study"].startswith("ladder/")]
    assert rungs and all("size 0." in label for label in rungs)
