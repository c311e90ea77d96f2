"""The pages: links resolve, commands are tried, examples run, and what programs write of them is up to date."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import pytest

from dyt.config import compose
from dyt.report import reference
from dyt.studies.running.study import Study
from dyt.studies.showing import explain, explain_figures, marked

from .helpers import ROOT, one_line, python

sys.path.insert(0, str(ROOT / "scripts" / "maintain"))
import docs  # noqa: E402

PAGES = marked.files()
EXTEND = "test_docs.py::test_every_example_of_extend_runs"
COMPOSED = "composed here"
CI = ".ci/run"
LAUNCHED = "test_cluster.py::test_of_four_runs_one_fails_and_a_second_call_runs_that_one_alone"
SENT_AWAY = "test_cluster.py::test_a_studys_runs_go_to_the_cluster_and_their_rows_come_back"
MERGED = "test_bundle.py::test_merge_takes_new_rows_and_says_what_the_verdicts_were_and_are"
SENT = "test_tracking.py::test_a_wrong_key_is_one_warning_and_the_rows_can_be_sent_later_once"

# Every command that README and the pages show, by its beginning (the longest that fits counts): the test that runs it,
# or the same in small; CI; COMPOSED, where its overrides are composed below; or what it needs that no test has.
TRIED = {
    "make demo": "test_demo.py::test_the_ten_runs_differ_only_in_the_norm",
    "make docs": "test_docs.py::test_the_site_builds_strictly_and_loads_nothing_from_elsewhere",
    "make bundle": "test_bundle.py::test_each_table_of_the_bundle_loads_back",
    "make test": CI,
    "make setup": "needs a network",
    "make lint": CI,
    "python train.py": COMPOSED,
    "python train.py -m": "test_cli.py::test_sweep_runs_all_skips_what_is_finished_and_goes_on_past_failures",
    "python train.py --cfg job": "test_cli.py::test_hydra_help_and_config_print",
    "python train.py model=gpt_nano norm=softsign": EXTEND,
    "python train.py model=mixer_nano": EXTEND,
    "python train.py model=gpt_nano data=own_code": EXTEND,
    "python train.py model=gpt_nano model.task=zloss": EXTEND,
    "mkdir -p words": EXTEND,
    "cat dyt/*/*.py": EXTEND,
    "cat models/*.py": EXTEND,
    "python scripts/reproduce.py softsign": EXTEND,
    "python scripts/prepare_data.py": "test_shards.py::test_the_script_says_how_far_it_is_and_what_it_made",
    "python scripts/bench.py data": "test_bench.py::test_data_says_whether_loading_keeps_up",
    "python train.py -m hydra/launcher=joblib": LAUNCHED,
    "python train.py -m hydra/launcher=submitit_local": LAUNCHED,
    "python train.py -m hydra/launcher=slurm": LAUNCHED,
    "python train.py -m hydra/launcher=slurm_8gpus": LAUNCHED,
    "python scripts/reproduce.py gain_init --launcher": SENT_AWAY,
    "torchrun": "test_cli.py::test_torchrun_gives_the_curve_of_one_process",
    "python eval.py": "test_cli.py::test_eval_uses_the_runs_config",
    "python eval.py run=<run directory> sample=200": "test_cli.py::test_eval_samples_text_from_a_raw_prompt",
    "python eval.py run=<run directory> steps=100": "test_dit.py::test_a_run_leaves_samples_and_eval_takes_options",
    "python train.py experiment=demo_dit": "test_dit.py::test_the_demo_draws_digits_that_a_classifier_reads",
    "python train.py experiment=demo_speech": "test_cli.py::test_every_experiment_takes_two_steps",
    "python train.py experiment=demo_mae": "test_mae.py::test_the_demos_probe_beats_that_of_an_untrained_encoder",
    "python train.py experiment=demo_dt": "test_decision.py::test_asked_for_a_good_return_it_beats_the_datas_mean",
    "python train.py experiment=demo_dna": "test_dna.py::test_the_demo_beats_the_chain_and_names_genes",
    "python train.py experiment=demo_dino": "test_dino.py::test_the_demo_begins_without_collapse",
    "python scripts/export.py": "test_faults.py::test_weights_are_exported_with_a_card_and_come_back",
    "python scripts/report.py": "test_report.py::test_every_committed_study_is_there_without_run_directories",
    "python scripts/runs.py": "test_runs_table.py::test_the_table_has_status_progress_metrics_and_a_sparkline",
    "python scripts/runs.py --follow": "test_runs_table.py::test_follow_shows_again_until_it_is_stopped",
    "python scripts/reproduce.py --check": "test_readme.py::test_every_part_and_the_picture_are_what_the_rows_say",
    "python scripts/reproduce.py --list": "test_studies.py::test_list_shows_every_study_and_every_claim",
    "python scripts/reproduce.py --readme": "test_readme.py::test_one_changed_digit_in_a_part_is_found",
    "python scripts/reproduce.py --scale paper --dry-run": "test_readme.py::test_the_papers_recipes_are_costed",
    "python scripts/reproduce.py saturation --merge": MERGED,
    "python scripts/reproduce.py": "needs minutes to hours; test_studies_slow.py runs every study at smoke scale",
    "python scripts/reproduce.py gain_init --scale gpu": "needs a GPU",
    "python scripts/reproduce.py alpha_init depth": "needs a GPU",
    "python scripts/wandb_sync.py --study": "test_tracking.py::test_a_study_and_the_papers_numbers_are_runs_once",
    "python scripts/wandb_sync.py": SENT,
    "python scripts/bench.py op --device cuda": "needs a GPU; without one test_bench.py::test_op_has_every_contender",
    "python scripts/maintain/configuration.py": "test_docs.py::test_the_configuration_page_is_what_the_code_says",
    "python scripts/maintain/explain.py": "test_docs.py::test_the_explained_page_can_be_made_anew",
    "python scripts/maintain/fit_squash.py": "needs minutes; test_kernel_promise.py holds what it wrote to its bounds",
    "python scripts/maintain/overhead.py": "test_bench.py::test_overhead_compares_the_loop_with_a_bare_step",
    "python scripts/maintain/page_load.py": "needs a browser and minutes",
    "python scripts/maintain/page_pictures.py": "needs a browser, and changes committed pictures",
    "python scripts/maintain/soak.py": "needs the right to mount a disk, and 20 minutes",
    "pip install": "needs a network",
    "wandb leet": "needs a terminal",
    "wandb login": "needs an account",
    "wandb sweep": "needs an account",
}
PROGRAMS = ("python", "make", "torchrun", "pip", "wandb", "mkdir", "cat")


def commands() -> dict[str, set[str]]:
    """Every command of README and the pages, in blocks and in lines, without its comment: the pages that show it."""
    found: dict[str, set[str]] = {}
    for file in PAGES:
        text = re.sub(r"<!--.*?-->", "", file.read_text(), flags=re.DOTALL)
        blocks = "\n".join(re.findall(r"^```(?:bash|sh|console)[^\n]*\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        lines = blocks.replace("\\\n", " ").splitlines()
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
        for line in lines:
            command = re.sub(r"\s+#.*", "", line).strip().removeprefix("$ ")
            if command.split(" ")[0] in PROGRAMS and " " in command:
                found.setdefault(" ".join(command.split()), set()).add(str(file.relative_to(ROOT)))
    return found


def entry(command: str) -> str | None:
    """The longest beginning in `TRIED` of `command`, whole words alone."""
    fitting = [start for start in TRIED if f"{command} ".startswith(f"{start} ")]
    return max(fitting, key=len, default=None)


def test_every_command_is_tried_or_listed():
    shown = commands()
    missing = [
        f"{command}   ({', '.join(sorted(files))})" for command, files in shown.items() if entry(command) is None
    ]
    assert not missing, "no test runs these; add a line to TRIED:\n" + "\n".join(missing)
    stale = set(TRIED) - {entry(command) for command in shown}
    assert not stale, f"no page shows these any more; take them out of TRIED: {sorted(stale)}"
    for start, where in TRIED.items():
        if where == COMPOSED or where.startswith("needs "):
            continue
        if where == CI:
            assert start in (ROOT / CI).read_text().splitlines()
            continue
        file, _, function = where.partition("::")
        assert re.search(rf"^def {function}\b", (ROOT / "tests" / file).read_text(), re.MULTILINE), f"{start}: {where}"


@pytest.mark.parametrize("command", [c for c in commands() if "train.py" in c and "<" not in c])
def test_every_training_command_composes(command):
    """Also those that another test runs in small: a wrong key or value in a page is found here."""
    if TRIED[entry(command)] == EXTEND:
        pytest.skip("its files are in the page")
    words = [w for w in shlex.split(command.partition("train.py")[2]) if "=" in w and not w.startswith("-")]
    import train

    train.preflight(words, "-m" in command.split())


# -- links -----------------------------------------------------------------------------------------------------------


def slugs(text: str) -> set[str]:
    """What GitHub and the site make of a page's headings; a second equal one ends in -1."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("file", PAGES, ids=lambda f: str(f.relative_to(ROOT)))
def test_links_resolve(file):
    def look(text: str) -> str:
        for target in re.findall(r"""\]\(([^)\s]+)\)|(?:src|href)="([^"]+)\"""", text):
            target = "".join(target)
            if target.startswith(("http", "mailto:")):
                continue
            path, _, anchor = target.partition("#")
            to = (file.parent / path).resolve() if path else file
            assert to.exists(), target
            assert not anchor or anchor in slugs(to.read_text()), target
        return text

    docs.outside_code(file.read_text(), look)


def test_links_in_code_do_not_count():
    seen = []
    text = "[a](b)\n```python\n[c](d)\n```\n`[e](f)` [g](h)"
    assert docs.outside_code(text, lambda part: seen.append(part) or part) == text
    assert "".join(seen).split() == ["[a](b)", "[g](h)"]


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere():
    pytest.importorskip("zensical")
    docs.build()  # raises for a dead link, a docstring that does not render, a script or font from elsewhere
    assert (docs.BUILD / "site" / "index.html").is_file()


@pytest.mark.parametrize(
    "page, fault",
    [
        ('<a href="gone.html">', "index.html: gone.html leads to nothing"),
        ('<a href="#gone">', "index.html: #gone: no such anchor"),
        ('<a href="https://arxiv.org"><h1 id="here"><a href="#here">', None),
        ('<script src="https://unpkg.com/x.js">', "index.html: loads https://unpkg.com/x.js from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.googleapis.com/css">', "index.html: loads //fonts.googleapis.com/css"),
        ('<img src="http://x.org/a.png">', "index.html: loads http://x.org/a.png from elsewhere"),
        ('<img src="a.png">', "index.html: a.png leads to nothing"),
        ('<pre class="mermaid">', "index.html: loads https://unpkg.com/mermaid from elsewhere"),
    ],
)
def test_what_is_wrong_with_a_built_page_is_found(page, fault, tmp_path):
    (tmp_path / "index.html").write_text(page)
    found = docs.faults(tmp_path)
    assert (found == []) if fault is None else (len(found) == 1 and found[0].startswith(fault))


def test_a_style_sheet_that_loads_from_elsewhere_is_found(tmp_path):
    (tmp_path / "a.css").write_text('@import "https://fonts.googleapis.com/css"; a { background: url(b.png) }')
    assert docs.faults(tmp_path) == ["a.css: loads https://fonts.googleapis.com/css from elsewhere"]


def test_a_link_to_nothing_ends_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("[x](../gone.py)")
    with pytest.raises(ValueError, match="docs/a.md: the link ../gone.py leads to nothing"):
        docs.Stage(tmp_path, tmp_path / "build")
    (tmp_path / "gone.py").write_text("a = 1\n")
    (tmp_path / "docs" / "a.md").write_text("[x](../gone.py#L1) `[y](../none)`")
    docs.Stage(tmp_path, tmp_path / "build")
    assert (tmp_path / "build/a.md").read_text() == "[x](files/gone.py.md) `[y](../none)`"
    assert "```python\na = 1" in (tmp_path / "build/files/gone.py.md").read_text()


# -- what programs write -----------------------------------------------------------------------------------------------


def test_the_configuration_page_is_what_the_code_says(monkeypatch, tmp_path):
    assert reference.differs() == []
    changed = tmp_path / "configuration.md"
    changed.write_text(reference.PAGE.read_text().replace("`600.0`", "`601.0`"))
    monkeypatch.setattr(reference, "PAGE", changed)
    assert reference.differs() == [
        "docs/configuration.md is not what the code says; type python scripts/maintain/configuration.py"
    ]


def test_the_configuration_page_has_every_key():
    """Every key that a run of each model family has, and every argument of every norm."""
    text = reference.PAGE.read_text()
    for words in (["norm=batchnorm"], ["model=gpt_nano", "norm=derf"], ["model=resnet_nano"]):
        config = compose.load(words)
        for group in ("model", "norm", "data", "optim", "trainer", "logger"):
            for key in set(config[group]) - {*reference.UNSEEN, "sites"}:
                assert f"| `{group}.{key}` |" in text, (group, key)
        for key in compose.Config.__dataclass_fields__:
            assert f"| `{key}` |" in text or isinstance(config[key], dict), key
    for norm in compose.options("norm"):
        section = text.partition(f"\n### {norm}\n")[2].partition("\n#")[0]
        assert re.findall(r"`norm.(\w+)` ", section) == list(compose.norm_arguments(norm))


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("norm/dyt.yaml", r"(squash: tanh) .*", r"\1", "norm.squash: no comment says what it means"),
        ("data/base/text.yaml", r"(batch_size: 12) .*", r"\1", "data.batch_size: no comment says what it means"),
        ("data/base/text.yaml", r"\[windows\] per optimizer", "per optimizer", "data.batch_size: its comment has no"),
        ("norm/dyt.yaml", r"tanh \| hardtanh", "tanh | softtanh", "norm.squash: the comment offers tanh, softtanh"),
        (
            "data/cifar10.yaml",
            r"$",
            "colour: 1\n",
            "data.colour: set in cifar10.yaml, and base/image.yaml does not say",
        ),
        ("model/vit_tiny.yaml", r"^# .*\n", "", "configs/model/vit_tiny.yaml: no comment at its head says what it is"),
        ("model/gpt_nano.yaml", r"base/gpt@_here_, ", "", "configs/model/gpt_nano.yaml: rests on no file of"),
    ],
)
def test_a_key_without_a_meaning_is_found(file, old, new, message, tmp_path):
    configs = tmp_path / "configs"
    shutil.copytree(compose.CONFIGS, configs)
    text = (configs / file).read_text()
    changed, count = re.subn(old, new, text, count=1) if old != "$" else (text + new, 1)
    assert count == 1 and changed != text
    (configs / file).write_text(changed)
    with pytest.raises(ValueError, match=re.escape(message)):
        reference.page(configs)


def test_a_typed_key_without_a_meaning_is_found():
    with pytest.raises(ValueError, match="trainer.keep: no comment says what it means"):
        reference.key_of("trainer.keep", None, "`2`", int)
    with pytest.raises(ValueError, match=r"trainer.keep: its comment has no \[unit\]"):
        reference.key_of("trainer.keep", "the newest", "`2`", int)
    with pytest.raises(ValueError, match="data.new: nothing says what it takes"):
        reference.key_of("data.new", "a thing", "`null`")
    key = reference.key_of("trainer.threads", "[threads] of the CPU", "`null`", int | None)
    assert key.line == "| `trainer.threads` | `null` | whole number, null; 1 to 1,024 | threads | of the CPU |"


def test_the_explained_steps_are_layer_norm():
    """The page's own arithmetic against torch, on the token that it shows."""
    import torch

    rows = explain.token(ROOT / "results")
    x, gamma, beta = (torch.tensor(rows[c].to_numpy()) for c in ("x", "gamma", "beta"))
    steps = explain.steps(*(rows[c].to_numpy() for c in ("x", "gamma", "beta")))
    wanted = torch.nn.functional.layer_norm(x, x.shape, gamma, beta, explain.EPS)
    assert len(x) == 768 and torch.allclose(torch.tensor(steps[-1][2]), wanted, atol=1e-12)
    # What the page says of the norms, in the kept rows: layer norm does not see the batch, batch norm does.
    of = {k: rows[[f"{k}, {b}" for b in (explain.SMALL, f"{explain.SMALL} others", explain.LARGE)]] for k in NORMS}
    spread = {k: (of[k].max(axis=1) - of[k].min(axis=1)).max() for k in NORMS}
    assert spread["layernorm"] < 1e-6 and spread["rmsnorm"] < 1e-6
    assert spread["batchnorm"] > 0.1 and spread["instancenorm"] > 0.1
    alone = torch.nn.functional.layer_norm(x, x.shape, eps=explain.EPS)
    assert torch.allclose(torch.tensor(of["layernorm"].iloc[:, 0].to_numpy()), alone, atol=1e-5)


NORMS = ("layernorm", "rmsnorm", "instancenorm", "batchnorm")


def test_the_explained_pictures_are_of_the_kept_token(tmp_path):
    assert explain_figures.differs(ROOT / "results", ROOT / "docs" / "img") == []
    shutil.copytree(ROOT / "results" / "explained", tmp_path / "explained")
    rows = explain.token(tmp_path)
    rows.loc[0, "x"] += 0.01
    rows.to_parquet(tmp_path / "explained" / "token.parquet")
    assert len(explain_figures.differs(tmp_path, ROOT / "docs" / "img")) == len(explain_figures.FIGURES)


@pytest.mark.slow
def test_the_explained_page_can_be_made_anew(tmp_path):
    """Trained again, the token has the same 768 numbers, up to the arithmetic of another machine."""
    explain.measure(tmp_path)
    old, new = explain.token(ROOT / "results"), explain.token(tmp_path)
    if explain.about(ROOT / "results")["python"] == explain.about(tmp_path)["python"]:
        assert abs(old["x"] - new["x"]).max() < 0.05 * old["x"].std()
    explain_figures.draw(tmp_path, tmp_path / "img")
    assert explain_figures.differs(tmp_path, tmp_path / "img") == []
    assert all(part.text(tmp_path) for part in explain.PARTS if part.name != "explained-scurve")


# -- what pages say of the code ----------------------------------------------------------------------------------------


def test_where_the_architecture_page_says_things_are_they_are():
    text = (ROOT / "docs" / "architecture.md").read_text()
    said = re.findall(r"\]\(\.\./([^)]+\.py)\)(?:: | \()`(\w+)`", text)
    assert len(said) >= 10
    for file, name in said:
        assert re.search(rf"^\s*(?:def|class) {name}\b", (ROOT / file).read_text(), re.MULTILINE), (file, name)


def test_the_picture_of_the_rooms_is_the_contract():
    """docs/img/rooms.svg has the layers that `make lint` checks, top to bottom."""
    picture = (ROOT / "docs" / "img" / "rooms.svg").read_text()
    rows: dict[str, set[str]] = {}
    for y, room in re.findall(r'class="m" x="\d+" y="(\d+)">([^<]+)<', picture):
        rows.setdefault(y, set()).add(room.removesuffix("/").removesuffix(".py").replace("/", "."))
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (c["layers"] for c in contracts if c["type"] == "layers")
    assert list(rows.values()) == [set(layer.split(" | ")) for layer in layers]


def test_every_module_is_on_an_api_page():
    rooms = ("norms", "kernels", "conversion", "config", "training", "rundir", "studies")
    shown = {m for page in (ROOT / "docs/api").glob("*.md") for m in re.findall(r"^::: (\S+)$", page.read_text(), re.M)}
    shown = {m.removesuffix(".convert") for m in shown}
    for room in rooms:
        for file in (ROOT / "dyt" / room).rglob("*.py"):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            if file.name != "__init__.py" and file.name != "gpu_kernels.py":  # Triton's functions: no Python interface
                assert module in shown, f"{module}: add it to docs/api/{room}.md"
    for module in shown:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


# -- examples ----------------------------------------------------------------------------------------------------------


def blocks() -> list[tuple[str, str, str]]:
    """Language, file and text of every block of docs/extend.md."""
    page = (ROOT / "docs" / "extend.md").read_text()
    return re.findall(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)


def test_every_example_of_extend_is_a_file_or_a_command(tmp_path):
    assert {language for language, file, _ in blocks() if file} == {"python", "yaml"}
    assert {language for language, file, _ in blocks() if not file} == {"bash"}
    rooms = {file.rsplit("/", 1)[0] for _, file, _ in blocks() if file}
    assert rooms >= {"dyt/norms", "models", "configs/data", "dyt/tasks", "configs/study"}
    for _, file, text in blocks():
        if file.endswith(".py"):
            ast.parse(text)
        if file.startswith("configs/study/"):  # a new rule for studies is met here, before the slow test below
            (tmp_path / "study.yaml").write_text(text)
            assert Study(str(tmp_path / "study.yaml")).search == "lr"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_example_of_extend_runs(tmp_path):
    """The page's files in a copy of the tree, its commands in the order of the page."""
    for name in ("dyt", "models", "configs", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "results" / "paper", tmp_path / "results" / "paper")
    for name in ("train.py", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "docs").mkdir()
    here = {"PYTHONPATH": str(tmp_path), "DYT_KERNEL": "reference"}  # no half minute for a compiler
    for language, file, text in blocks():
        if file:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
        elif language == "bash":
            script = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", text, flags=re.MULTILINE)
            done = subprocess.run(
                ["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, env=os.environ | here
            )
            assert done.returncode == 0, text + done.stderr
    runs = [p.parent.name for p in (tmp_path / "runs").rglob("summary.json") if '"finished"' in p.read_text()]
    for words in ("gpt_nano-softsign-stdlib", "mixer_nano-dyt-mnist5k", "gpt_nano-dyt-own_code", "task-zloss"):
        assert any(words in run for run in runs), (words, runs)
    for words in ("mixer_nano-dyt-mnist5k", "task-zloss"):  # and what is one's own is exported as any other
        run = next(p.parent for p in (tmp_path / "runs").rglob("summary.json") if words in p.parent.name)
        done = python("scripts/export.py", f"run={run}", f"out={tmp_path / words}", cwd=tmp_path, **here)
        assert done.returncode == 0 and (tmp_path / words / "model.safetensors").is_file(), done.stderr
    assert (tmp_path / "results/softsign/smoke/verdicts.json").is_file()
    # The configuration page takes them up, and says what is missing from a file that explains nothing.
    assert python("scripts/maintain/configuration.py", cwd=tmp_path, **here).returncode == 0
    text = (tmp_path / "docs" / "configuration.md").read_text()
    assert "### softsign" in text and "[mixer_nano](" in text and "[own_code](" in text
    (tmp_path / "configs/norm/softsign.yaml").write_text("name: softsign\nkind: softsign\nalpha_init: 0.5\n")
    told = one_line(python("scripts/maintain/configuration.py", cwd=tmp_path, **here))
    assert told.startswith("configuration.py: norm.alpha_init: no comment says what it means")


def test_an_unknown_task_is_refused_with_the_choices():
    from dyt.tasks import build_task

    with pytest.raises(
        ValueError,
        match="model.task=txet: did you mean 'text'. choose from bases, decision, diffusion, dino, image",
    ):
        build_task({"model": {"task": "txet"}}, 0)
