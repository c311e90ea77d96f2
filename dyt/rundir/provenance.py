"""Where a number came from: commit, versions, hardware."""

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("dyt", "models", "configs", "scripts", "train.py", "eval.py", "pyproject.toml")  # what may change a number
LIBRARIES = ("torch", "timm", "hydra-core", "datasets", "wandb", "numpy", "mlxtend", "gymnasium")


def git(*arguments: str) -> str | None:
    """What git says in this repository; None where it fails, there is none, or this is no checkout."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(device, threads: int) -> dict:
    """Commit, whether code or configs were changed since, library versions, hardware and command line.

    Commit and flag are null outside a git checkout. Results, pages and stray files, which no run reads, do not count.
    """
    import torch

    status = git("status", "--porcelain", "--", *CODE)
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "git_commit": git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "python": platform.python_version(),
        "versions": versions,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "command": sys.argv,
    }


def peak_memory_mib() -> float:
    """The most memory this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
