"""The numbers and pictures of docs/explained.md: one token of a GPT of width 768, and what each norm makes of it.

`measure` trains that GPT and keeps the token (results/explained/); all else is computed from what is kept, so that the
page can be checked without training. Sentences come from the standard library's docstrings: no download.
"""

import ast
import json
import platform
import re
import sysconfig
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from dyt.rundir.files import replace_file, write_json
from dyt.studies.running.rows import read_runs
from dyt.studies.running.study import Study
from dyt.studies.showing.marked import Part

COMMAND = "python scripts/maintain/explain.py"
WORDS = "model=gpt_nano model.dim=768 model.depth=2 model.heads=12 trainer.max_steps=30 optim.warmup_steps=5 seed=0"
QUIET = "trainer.eval_every=30 trainer.eval_batches=1 data.eval_batch_size=8 trainer.threads=1 logger.mode=disabled"
MODULES = "argparse calendar csv difflib fractions heapq inspect random statistics textwrap".split()
FIRST = "Return True for leap years, False for non-leap years."
SMALL, LARGE = 10, 50  # sentences in a batch
PAD = 0  # the byte that fills a shorter sentence up
EPS = 1e-5
SHOWN = 4  # of 768 numbers, in tables
ALPHAS = (0.1, 0.2, 0.5, 1.0)


def sentences(longest: int) -> list[str]:
    """One-line sentences of at most `longest` bytes from docstrings, in the order of the modules, `FIRST` first."""
    found = []
    for name in MODULES:
        tree = ast.parse((Path(sysconfig.get_paths()["stdlib"]) / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                first = text.splitlines()[0]
                if re.fullmatch(r"[A-Z][a-z]+ [\w ,'-]+\.", first) and len(first) <= longest and first not in found:
                    found.append(first)
    at = found.index(FIRST)
    return found[at:] + found[:at]


def padded(texts: list[str]):
    """Bytes of `texts` as ids (B, T), the shorter ones filled up with `PAD`."""
    import torch

    rows = [list(text.encode()) for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])


def measure(results: Path) -> None:
    """Trains the GPT for half a minute and writes ``results/explained/``: token.parquet and about.json."""
    import torch

    from dyt.config import compose, identity
    from dyt.norms import NORMS
    from dyt.run import assemble, execute
    from dyt.rundir import checkpoint
    from dyt.training.distributed import join

    with tempfile.TemporaryDirectory() as folder:
        words = [*WORDS.split(), *QUIET.split(), "norm=layernorm", f"out_root={folder}"]
        plan = identity.plan(compose.load(words), words)
        summary = execute(plan)
        _, model, _, _ = assemble(plan.config, join("cpu"), 0)
        state, *_ = checkpoint.newest(plan.dir / "checkpoints", device="cpu")
    checkpoint.load_weights(model, state["model"], "the run")
    model.eval()
    texts = sentences(longest=plan.config["model"]["context"])
    site = model.blocks[-1].mlp_norm
    seen = {}
    site.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0].detach()))

    def batch(chosen: list[str]):
        with torch.no_grad():
            model(padded(chosen))
        return seen["x"].double()  # (B, T, C)

    batches = {
        f"{SMALL}": batch(texts[:SMALL]),
        f"{SMALL} others": batch([texts[0], *texts[-SMALL + 1 :]]),
        f"{LARGE}": batch(texts[:LARGE]),
    }
    at = texts[0].rindex(" ") + 1  # the first letter of the sentence's last word
    x = batch(texts[:1])[0, at]  # (C,)
    columns = {"x": x, "gamma": site.weight.detach().double(), "beta": site.bias.detach().double()}
    for name, tensor in batches.items():
        assert torch.allclose(tensor[0, at], x, atol=1e-4), "a token of a causal model sees nothing that comes after it"
        tensor[0, at] = x  # to the bit, so that what differs below is the norm
        for kind in ("layernorm", "rmsnorm", "instancenorm", "batchnorm"):
            norm = NORMS[kind](len(x), affine=False, eps=EPS).double()
            columns[f"{kind}, {name}"] = norm(tensor)[0, at]
    rows = pd.DataFrame({name: column.float().numpy() for name, column in columns.items()})
    folder = results / "explained"
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "token.parquet", lambda out: rows.to_parquet(out, compression="zstd", index=False))
    about = {
        "command": f"python train.py {WORDS} norm=layernorm",
        "sentence": texts[0],
        "at": at,
        "sentences": len(texts),
        "lengths": [len(text) for text in texts[:LARGE]],
        "val_loss": round(summary["final"]["val/loss"], 3),
        "parameters": summary["parameters"],
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
    }
    write_json(folder / "about.json", about)


def token(results: Path) -> pd.DataFrame:
    """The kept token: a row for each of its 768 numbers, columns as `measure` made them, float64."""
    return pd.read_parquet(results / "explained" / "token.parquet").astype("float64")


def about(results: Path) -> dict:
    return json.loads((results / "explained" / "about.json").read_text())


def steps(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> list[tuple[str, str, np.ndarray | float]]:
    """LayerNorm step by step, as `layer_norm_by_hand`: (what, formula, a number or one for each channel)."""
    mean = x.mean()
    centred = x - mean
    variance = (centred * centred).mean()
    normal = centred / np.sqrt(variance + EPS)
    return [
        ("what comes in", "x", x),
        ("1. their mean", "m = sum(x) / 768", mean),
        ("2. each minus the mean", "c = x - m", centred),
        ("3. the mean of their squares", "v = sum(c * c) / 768", variance),
        ("4. divided by its root", "n = c / sqrt(v + 0.00001)", normal),
        ("5. times gamma", "gamma * n", gamma * normal),
        ("6. plus beta", "gamma * n + beta", gamma * normal + beta),
    ]


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}"  # + 0.0: no -0.000


def _numbers(values: np.ndarray) -> str:
    return ", ".join(_number(v) for v in values[:SHOWN]) + " ..."


def layernorm_table(results: Path) -> str:
    rows = token(results)
    lines = [
        f"| step | formula | the first {SHOWN} of 768 | mean of all | standard deviation |",
        "| --- | --- | --- | ---: | ---: |",
    ]
    for what, formula, found in steps(*(rows[c].to_numpy() for c in ("x", "gamma", "beta"))):
        if isinstance(found, float):
            lines.append(f"| {what} | `{formula}` | {found:.4f} (one number) | | |")
        else:
            lines.append(
                f"| {what} | `{formula}` | {_numbers(found)} | {_number(found.mean())} | {_number(found.std())} |"
            )
    return "\n".join(lines)


def token_sentence(results: Path) -> str:
    seen = about(results)
    text, at = seen["sentence"], seen["at"]
    return (
        f"The token is the letter `{text[at]}` of the last word of *{text}* It has just passed the attention of the "
        f"second block of a GPT of width 768 ({seen['parameters']:,} parameters), trained for 30 steps on the standard "
        f"library's source. The command is `{seen['command']}`."
    )


def norms_table(results: Path) -> str:
    rows, lengths = token(results), about(results)["lengths"][:SMALL]
    longest = max(lengths)
    over = {
        "layernorm": ("LayerNorm", "this token's 768 numbers", 768),
        "rmsnorm": ("RMSNorm", "the same, but no mean is taken away", 768),
        "instancenorm": ("instance norm", f"one channel, all {longest} places of its sentence", longest),
        "batchnorm": ("batch norm", f"one channel, all {longest} places of all {SMALL} sentences", longest * SMALL),
    }
    lines = [
        f"| norm | a mean and a spread are taken over | numbers in each | the first {SHOWN} of 768 come out as |",
        "| --- | --- | ---: | --- |",
    ]
    for kind, (name, what, count) in over.items():
        lines.append(f"| {name} | {what} | {count} | {_numbers(rows[f'{kind}, {SMALL}'].to_numpy())} |")
    return "\n".join(lines)


def batch_table(results: Path) -> str:
    rows, lengths = token(results), about(results)["lengths"]
    lines = [
        f"| norm | first number, {SMALL} sentences | {SMALL} others | {LARGE} | "
        f"largest change of the 768, {SMALL} to {LARGE} |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    names = {"layernorm": "LayerNorm", "rmsnorm": "RMSNorm", "instancenorm": "instance norm", "batchnorm": "batch norm"}
    for kind, name in names.items():
        a, b, c = (rows[f"{kind}, {batch}"].to_numpy() for batch in (SMALL, f"{SMALL} others", LARGE))
        lines.append(
            f"| {name} | {_number(a[0])} | {_number(b[0])} | {_number(c[0])} | {_number(np.abs(a - c).max())} |"
        )
    for count in (SMALL, LARGE):
        used, places = sum(lengths[:count]), count * max(lengths[:count])
        lines.append(
            ("\n" if count == SMALL else "")
            + f"{count} sentences are {min(lengths[:count])} to {max(lengths[:count])} bytes long: "
            f"{100 * (1 - used / places):.0f}% of the places of that batch are padding."
        )
    return "\n".join(lines)


def dyt_table(results: Path) -> str:
    x = token(results)["x"].to_numpy()
    lines = [
        f"| alpha | the first {SHOWN} of 768 come out as | spread of all | slope at 0 | flat (abs(alpha x) above 2) |",
        "| ---: | --- | ---: | ---: | ---: |",
    ]
    for alpha in ALPHAS:
        y, flat = np.tanh(alpha * x), np.mean(np.abs(alpha * x) > 2)
        lines.append(f"| {alpha:g} | {_numbers(y)} | {y.std():.3f} | {alpha:g} | {100 * flat:.0f}% |")
    return "\n".join(lines)


def scurve_sentence(results: Path) -> str:
    study = Study("ln_scurve")
    rows = pd.DataFrame(read_runs(results / study.name / "small" / "runs.csv", study))
    rows = rows[rows["status"] == "finished"] if len(rows) else pd.DataFrame(columns=["setting", "tanh_gain"])
    if set(rows["setting"]) < {"vit", "gpt"}:
        return "How much better a tanh explains the output than a straight line: not run."
    gain = 100 * rows.groupby("setting")[["tanh_gain", "tanh_gain_learned"]].mean()
    told = {
        key: f"{after:.1f} points of variance more than the best straight line, and {after - more:.1f} before training"
        for key, (after, more) in zip(gain.index, gain.to_numpy(), strict=True)
    }
    return (
        f"Over all layers the best tanh explains in the GPT {told['gpt']}; in the ViT {told['vit']} ({len(rows)} runs)."
    )


PARTS = tuple(
    Part(f"explained-{name}", COMMAND, text)
    for name, text in (
        ("token", token_sentence),
        ("layernorm", layernorm_table),
        ("norms", norms_table),
        ("batch", batch_table),
        ("scurve", scurve_sentence),
        ("dyt", dyt_table),
    )
)
