"""Every test works in a folder of its own, with a data cache of its own and without W&B, unless it says otherwise."""

import atexit
import contextlib
import os
import pathlib
import shutil
import tempfile

# Before torch and datasets read them. The processes of `pytest -n` inherit one cache. The compiled kernel in it
# outlives it and is named by all that it is made of: `make test-slow` after `make test` saves half a minute.
if not os.environ.get("DYT_TEST_CACHE"):
    os.environ["DYT_TEST_CACHE"] = tempfile.mkdtemp(prefix="dyt-test-cache-")
    built = pathlib.Path(__file__).resolve().parent.parent / ".pytest_cache" / "kernels"
    with contextlib.suppress(OSError):  # a checkout that cannot be written
        built.mkdir(parents=True, exist_ok=True)
        (pathlib.Path(os.environ["DYT_TEST_CACHE"]) / "kernels").symlink_to(built)
    atexit.register(shutil.rmtree, os.environ["DYT_TEST_CACHE"], ignore_errors=True)
os.environ["DYT_CACHE_DIR"] = os.environ["DYT_TEST_CACHE"]
os.environ["WANDB_MODE"] = "disabled"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # several tests run at once, and each is faster so
os.environ.pop("WANDB_API_KEY", None)

import random  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from dyt.training import cpu  # noqa: E402


class TorchRandom:
    """torch's generator for hypothesis: every example draws the same numbers, whatever ran before it."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # hypothesis holds it by a weak reference
hypothesis.register_random(TORCH_RANDOM)


@pytest.fixture(autouse=True)
def own_random_numbers():
    """A test draws what it draws alone too: with `pytest -n` the order changes from run to run."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - what libraries draw from
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)
    monkeypatch.setattr(cpu, "_own", None)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_flush_denormal(False)
