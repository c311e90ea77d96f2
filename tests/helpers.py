"""What several tests share."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from dyt.config import compose, identity
from dyt.run import execute
from dyt.training.loop import TIMING

ROOT = Path(__file__).resolve().parent.parent
NO_COMPILER = shutil.which(os.environ.get("CXX", "c++")) is None
TINY_GPT = ["model=gpt_nano", "model.dim=16", "model.depth=2", "model.heads=2", "model.context=16", "trainer.threads=1"]
TINY_DIT = ["model=dit_nano", "model.dim=16", "model.depth=2", "model.heads=2", "trainer.threads=1"]
TINY_DIT += ["data.img_size=16", "data.patch_size=4", "model.diffusion.samples=20", "model.diffusion.sample_steps=2"]
TINY_MAE = ["model=mae_nano", "model.dim=16", "model.depth=2", "model.heads=2", "trainer.threads=1"]
TINY_MAE += ["model.decoder_dim=8", "model.decoder_heads=2"]
TINY_DT = ["model=dt_nano", "model.dim=16", "model.depth=2", "model.heads=2", "model.context=4", "trainer.threads=1"]
TINY_DT += ["data.episodes=12", "model.decision.rollouts=2", "model.decision.levels=2"]
TINY_WAV2VEC2 = ["model=wav2vec2_nano", "model.dim=16", "model.depth=2", "model.heads=2", "trainer.threads=1"]
TINY_WAV2VEC2 += ["model.conv_dim=8", "model.codes=8", "model.vector_dim=8", "model.output_dim=8"]
TINY_WAV2VEC2 += ["model.position_kernel=8", "data.source=tones", "data.seconds=0.3", "data.batch_size=16"]
TINY_HYENA = ["model=hyena_nano", "model.dim=16", "model.depth=2", "model.context=32", "trainer.threads=1"]
TINY_DNABERT = ["model=dnabert_nano", *TINY_HYENA[1:4], "model.heads=2", "trainer.threads=1"]
TINY_CLASSIFIER = ["model=hyena_nano_classifier", *TINY_HYENA[1:], "data.length=30", "data.pieces=100"]
TINY_DINO = ["model=dino_nano", "model.dim=16", "model.depth=2", "model.heads=2", "trainer.threads=1"]
TINY_DINO += ["model.head_hidden=8", "model.bottleneck=8", "model.outputs=12", "data.crop_padding=0"]
TINY_DINO += ["data.batch_size=16"]
TINY_VIT = ["model=vit_nano", "model.dim=16", "model.depth=2", "model.heads=2", "trainer.threads=1"]


def shrunk(model: str) -> list[str]:
    """Overrides that make a model's config small enough to run in a test."""
    if model.startswith("convnext"):
        return [f"model={model}", "model.timm_name=test_convnext", "data.img_size=32"]
    if model.startswith("vit"):
        return [f"model={model}", "model.dim=16", "model.depth=2", "model.heads=2"]
    if model.startswith(("resnet", "vgg")):
        return [f"model={model}", "model.timm_name=test_resnet"]
    if model.startswith("dit"):
        return [f"model={model}", *TINY_DIT[1:4], *TINY_DIT[5:]]
    if model.startswith("mae"):
        return [f"model={model}", *TINY_MAE[1:4], *TINY_MAE[5:], "model.decoder_depth=1"]
    if model.startswith("dt"):
        return [f"model={model}", *TINY_DT[1:5], *TINY_DT[6:]]
    if model.startswith("wav2vec2"):
        return [f"model={model}", *(w for w in TINY_WAV2VEC2[1:] if w.startswith("model.")), "model.position_groups=4"]
    if model.startswith(("hyena", "dnabert")):
        heads = ["model.heads=2"] if model.startswith("dnabert") else []
        pieces = ["data.length=30", "data.pieces=100"] if model.endswith("classifier") else []
        return [f"model={model}", *TINY_HYENA[1:4], *heads, *pieces]
    if model.startswith("dino"):
        return [f"model={model}", *TINY_DINO[1:4], *TINY_DINO[5:8], "model.dino.local_crops_size=${data.patch_size}"]
    mlp = ["model.mlp_dim=24", "model.kv_heads=null"] if model.startswith("llama") else []
    return [f"model={model}", "model.dim=16", "model.depth=2", "model.heads=2", "model.context=16", *mlp]


def train(*overrides: str, out: str = "runs") -> tuple[dict, Path]:
    """Runs a config in this process; returns its summary and directory."""
    words = [*overrides, f"out_root={out}"]
    plan = identity.plan(compose.load(words), words)
    return execute(plan), plan.dir


def pictures_at(root: Path, *folders: str, count: int = 12) -> Path:
    """So many random pictures of 16 x 16 pixels in each folder below `root`."""
    for n, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng((n, i)).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / folder / f"{i}.png")
    return root


def rows_of(folder: Path, timing: bool = False) -> list[dict]:
    """The rows of metrics.jsonl, without the keys that depend on the clock."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return rows if timing else [{k: v for k, v in row.items() if k not in TIMING} for row in rows]


def python(*words: str, timeout: float = 240, cwd=None, **environment) -> subprocess.CompletedProcess:
    """Runs a script of the repository as a user would."""
    return subprocess.run(
        [sys.executable, *(str(ROOT / w) if w in ("train.py", "eval.py") else w for w in words)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"} | environment,  # not this process's
    )


def one_line(done: subprocess.CompletedProcess) -> str:
    """The one line of stderr of a command that refused bad input."""
    assert done.returncode == 1, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    return lines[0]
