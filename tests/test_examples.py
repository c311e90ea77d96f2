"""What people copy: examples/minimal.py gives the package's numbers, and the notebook runs."""

import ast
import importlib.util
import json
import re
import sys

import pytest

from dyt.config import compose
from dyt.data.order import Order, seed_all
from dyt.run import assemble
from dyt.training.distributed import join

from .helpers import ROOT, one_line, python, rows_of, train

MINIMAL = ROOT / "examples" / "minimal.py"
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
STEPS, CONTEXT, BATCH, SEED = 20, 16, 8, 3
SIZES = {"dim": 32, "depth": 2, "heads": 2, "context": CONTEXT}
RUN = ["model=gpt_nano", *(f"model.{name}={size}" for name, size in SIZES.items()), "trainer.threads=1"]
RUN += ["model.embed_scale=learnable", "model.embed_std=rsqrt_dim", f"data.batch_size={BATCH}", f"seed={SEED}"]
RUN += [f"trainer.max_steps={STEPS}", "trainer.log_every=1", "trainer.eval_batches=1", "optim.warmup_steps=5"]
NORMS = {"layernorm": ["norm=layernorm"], "dyt": ["norm=dyt", "norm.alpha_init=1.0"], "none": ["norm=none"]}


@pytest.fixture(scope="module")
def minimal():
    spec = importlib.util.spec_from_file_location("minimal", MINIMAL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_one_short_file_that_needs_torch_alone():
    text = MINIMAL.read_text()
    assert len(text.splitlines()) <= 200
    nodes = list(ast.walk(ast.parse(text)))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in found} - sys.stdlib_module_names == {"torch"}


@pytest.mark.parametrize("norm", NORMS)
def test_its_curve_is_the_packages(norm, minimal):
    """The package's run by its own loop; the same start (drawn alike), the same batches: each loss within 1e-5."""
    words = [*RUN, *NORMS[norm]]
    summary, folder = train(*words)
    assert summary["status"] == "finished"
    theirs = [row["train/loss"] for row in rows_of(folder) if "train/loss" in row]

    data, package, _, _ = assemble(compose.load(words), join("cpu"), SEED)
    seed_all(SEED, "init")
    model = minimal.GPT(norm, vocab=data.spec.vocab_size, **SIZES)
    for name, start in package.state_dict().items():
        assert model.state_dict()[name].equal(start), name
    batches = data.train_batches(Order(data.samples, BATCH, SEED), 0, STEPS)
    ours = list(minimal.train(model, batches, STEPS, lr=1e-3, min_lr=1e-4, warmup=5, weight_decay=0.1, clip=1.0))
    assert len(ours) == STEPS and ours[-1] < ours[0]
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_its_defaults_are_the_packages_recipe(minimal):
    import inspect

    recipe = compose.load(["model=gpt_nano"])
    optim, model = recipe["optim"], recipe["model"]
    for function, values in (
        (minimal.train, {name: optim[name] for name in ("lr", "min_lr", "weight_decay")}),
        (minimal.train, {"warmup": optim["warmup_steps"], "clip": optim["clip_grad"]}),
        (minimal.GPT, {name: model[name] for name in ("dim", "depth", "heads", "context")}),
    ):
        defaults = {p.name: p.default for p in inspect.signature(function).parameters.values()}
        assert defaults | values == defaults
    assert recipe["optim"]["betas"] == [0.9, 0.99] and "betas=(0.9, 0.99)" in MINIMAL.read_text()


@pytest.mark.slow
def test_it_prints_losses_and_refuses_in_one_line(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the same line over and over\n" * 200)
    done = python(str(MINIMAL), "--text", str(text), "--steps", "3", "--norm", "none", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    head, step, held_out = done.stdout.splitlines()
    assert head.startswith("none: 827,393 parameters, 5,040 bytes")
    assert re.fullmatch(r"step 3: loss \d+\.\d{4} nats a byte, \d+ s", step)
    assert re.fullmatch(r"held-out loss \d+\.\d{4}", held_out)
    text.write_text("short")
    assert "5 bytes, of which a tenth is held out; give at least 1280" in one_line(
        python(str(MINIMAL), "--text", str(text))
    )
    assert "nowhere: No such file" in one_line(python(str(MINIMAL), "--text", "nowhere"))


def test_the_notebook_parses_and_stores_no_output():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        ast.parse(cell.source, filename=f"{NOTEBOOK.name}, cell {cell.id}")
        assert not cell.outputs and cell.execution_count is None
    assert len(code) >= 4 and NOTEBOOK.stat().st_size < 20_000
    kinds = [cell.cell_type for cell in notebook.cells]
    assert all(kinds[i - 1] == "markdown" for i, kind in enumerate(kinds) if kind == "code")  # prose before each cell


def test_the_notebooks_runs_compose():
    """Its words are a config: read from the cell, composed as the cell would."""
    cells = {cell["id"]: "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"]}
    same, norms = [], {}
    for node in ast.parse(cells["runs"]).body:
        if isinstance(node, ast.Assign | ast.AugAssign):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if name == "SAME":
                same += ast.literal_eval(node.value)
            elif name == "NORMS":
                norms = ast.literal_eval(node.value)
    kinds = [compose.load([*same, *words])["norm"]["kind"] for words in norms.values()]
    assert kinds == ["layernorm", "dyt"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_runs_from_top_to_bottom(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    folder = tmp_path / "examples"
    folder.mkdir()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys, dyt; print(sys.executable, dyt.__file__)"))
    client = nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()  # raises with the cell's traceback
    printed = {
        cell.id: "".join(output.text for output in cell.outputs if output.get("name") == "stdout")  # warnings apart
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert printed[notebook.cells[-1].id].split() == [sys.executable, str(ROOT / "dyt" / "__init__.py")]
    summaries = [json.loads(p.read_text()) for p in (tmp_path / "runs" / "default").glob("*/summary.json")]
    assert [(s["status"], s["step"]) for s in summaries] == [("finished", 400)] * 2
    curves = next(cell for cell in notebook.cells if cell.id == "curves")
    assert any("image/png" in output.get("data", {}) for output in curves.outputs)
    assert printed["timm"] == "25 LayerNorms before, 25 DyTs after\n"
    first, last = map(float, re.fullmatch(r"loss (\S+) -> (\S+)\n", printed["steps"]).groups())
    assert last < first / 2
