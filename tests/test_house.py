"""The house keeps its own rules: who may import whom, what `make help` says, what pre-commit runs."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from dyt.studies.running.study import names

from .helpers import ROOT, python

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
LAYERS = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]


def lint_imports(folder: Path) -> subprocess.CompletedProcess:
    """`lint-imports` on the tree in `folder`, as `make lint` calls it."""
    code = "from importlinter.cli import lint_imports_command as main; main(['--no-logo', '--no-cache'])"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path) -> Path:
    """The rooms alone, to be spoilt."""
    for name in ("dyt", "models", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "page"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_import_keeps_its_contract(copy):
    done = lint_imports(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    count = len(PROJECT["tool"]["importlinter"]["contracts"])
    assert f"Contracts: {count} kept, 0 broken." in done.stdout


@pytest.mark.parametrize(
    "file, line, said",
    [
        ("dyt/norms/dynamic.py", "from dyt.training import optim", "dyt.norms is not allowed to import dyt.training"),
        ("dyt/norms/dynamic.py", "from dyt.config import compose", "dyt.norms is not allowed to import dyt.config"),
        ("dyt/kernels/native.py", "from dyt.data import order", "dyt.kernels is not allowed to import dyt.data"),
        ("dyt/kernels/native.py", "import dyt.studies.runner", "dyt.kernels is not allowed to import dyt.studies"),
        ("dyt/conversion/replace.py", "import dyt.run", "dyt.conversion is not allowed to import dyt.run"),
        ("dyt/training/loop.py", "from dyt.studies import runner", "dyt.training is not allowed to import dyt.studies"),
        ("dyt/training/loop.py", "from dyt import run", "dyt.training is not allowed to import dyt.run"),
        ("dyt/training/loop.py", "from models import gpt", "dyt.training is not allowed to import models"),
        ("dyt/training/loop.py", "import dyt.config.compose", "dyt.training is not allowed to import dyt.config"),
        ("models/gpt.py", "from dyt.run import execute", "models is not allowed to import dyt.run"),
        ("models/gpt.py", "from dyt.training import probe", "models is not allowed to import dyt.training"),
        ("models/gpt.py", "from dyt.data import open_data", "models is not allowed to import dyt.data"),
        ("models/vit.py", "import dyt.studies", "models is not allowed to import dyt.studies"),
        ("dyt/config/check.py", "from dyt.data import order", "dyt.config is not allowed to import dyt.data"),
        ("dyt/config/arguments.py", "from dyt.rundir import files", "dyt.config.arguments is not allowed to import"),
        ("dyt/studies/runner.py", "import dyt.report.collect", "dyt.studies is not allowed to import dyt.report"),
        ("dyt/studies/runner.py", "import dyt.efficiency", "dyt.studies is not allowed to import dyt.efficiency"),
        ("dyt/run.py", "def f():\n    import scripts.demo", "dyt.run is not allowed to import scripts"),
        ("dyt/run.py", "import train", "dyt is not allowed to import train"),
    ],
)
def test_a_forbidden_import_fails(file, line, said, copy):
    with open(copy / file, "a") as stream:
        stream.write(f"\n{line}\n")
    done = lint_imports(copy)
    assert done.returncode == 1 and said in done.stdout, done.stdout + done.stderr


def test_every_room_has_its_place_among_the_layers():
    placed = {name for line in LAYERS for name in re.split(r"\s*\|\s*", line)}
    rooms = {f"dyt.{p.stem}" for p in (ROOT / "dyt").iterdir() if p.stem != "__init__" and not p.stem.startswith("__")}
    assert placed == rooms | {"models", "scripts"}


def targets(makefile: str) -> list[str]:
    """The targets a person types: rules that are not files or variables."""
    return re.findall(r"^([A-Za-z][\w-]*):(?!=)", makefile, flags=re.MULTILINE)


def test_make_help_lists_every_target_with_its_comment():
    makefile = (ROOT / "Makefile").read_text()
    done = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = dict(line.removeprefix("make ").split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(said) == targets(makefile)
    phony = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split()
    assert set(phony) == set(said)
    for target, comment in said.items():
        assert re.search(rf"^{target}:.*## {re.escape(comment)}$", makefile, flags=re.MULTILINE)


def test_pre_commit_runs_what_make_lint_runs():
    from pre_commit.clientlib import load_config

    hooks = [hook for repo in load_config(str(ROOT / ".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    rule = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)[1]
    lines = [line.strip().removeprefix("@").replace("$(PY)", ".venv/bin/python") for line in rule.splitlines()]
    assert [hook["entry"] for hook in hooks] == lines and len(lines) >= 3
    assert all(hook["language"] in ("system", "unsupported") for hook in hooks)  # no environment to download
    assert yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["repo"] == "local"


def test_the_lock_names_all_that_the_project_asks_for():
    asked = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = {re.split(r"==", line)[0].lower().replace("_", "-") for line in lines}
    missing = {re.match(r"[\w-]+", name)[0].lower() for name in asked} - locked
    assert not missing and lines == sorted(lines, key=str.lower)


def test_contributing_shows_commands_that_exist():
    blocks = "".join(re.findall(r"```bash\n(.*?)```", CONTRIBUTING, flags=re.DOTALL))
    commands = [shlex.split(line, comments=True) for line in blocks.splitlines()]
    assert len(commands) >= 12
    makefile = targets((ROOT / "Makefile").read_text())
    helped = python(str(ROOT / "scripts/reproduce.py"), "--help").stdout
    for words in commands:
        if words[0] == "make":
            assert words[1] in makefile, words
        elif words[1:3] == ["-m", "pytest"]:
            files = [ROOT / word for word in words[3:] if word.startswith("tests/")]
            assert files and all(file.is_file() for file in files), words
            if "-k" in words:
                assert re.search(rf"def test_\w*{words[words.index('-k') + 1]}", files[0].read_text()), words
        elif words[1] == "scripts/reproduce.py":
            assert all(word in helped for word in words if word.startswith("--")), words
            assert words[2].startswith("--") or words[2] in names(), words
        else:
            assert words == [".venv/bin/pre-commit", "install"]


@pytest.mark.parametrize("file", ["CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(file):
    links = [to for to in re.findall(r"\]\(([^)]+)\)", (ROOT / file).read_text()) if not to.startswith("http")]
    assert links and all((ROOT / to.partition("#")[0]).exists() for to in links), links


COMMANDS = sorted(str(file.relative_to(ROOT)) for file in (ROOT / "scripts").rglob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train.py", "eval.py", *COMMANDS])
def test_asked_for_help_a_command_gives_it_and_does_nothing_else(command, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / command), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    first = ast.get_docstring(ast.parse((ROOT / command).read_text())).split()[:5]
    assert command == "train.py" or " ".join(first) in " ".join(done.stdout.split())  # whose help is Hydra's
    assert not list(tmp_path.iterdir())
