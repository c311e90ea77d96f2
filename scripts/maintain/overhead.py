"""What the loop costs: a GPT step through dyt.training.loop over the bare step on prepared batches, in one process.

    python scripts/maintain/overhead.py [rounds=12] [model=gpt_nano ...]

Rounds alternate: 60 bare steps (forward, backward, clip, optimizer), then 60 through the loop with data, logging to
metrics.jsonl and offline W&B. Prints medians and the ratio; evaluation and checkpoints are not steps, and left out.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
STEPS, SKIP = 60, 10


def bare_ms(config: dict, model, task, batches: list) -> float:
    """Time of a step without any of our loop, in ms."""
    import torch

    from dyt.training.optim import build

    optim = config["optim"]
    optimizer = build(model, optim)
    model.train()
    for i, (inputs, targets) in enumerate(batches):
        if i == SKIP:
            began = time.perf_counter()
        task.loss(model, inputs, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), optim["clip_grad"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return 1000 * (time.perf_counter() - began) / (len(batches) - SKIP)


def loop_ms(config: dict, model, task, data, world, folder: Path) -> float:
    """Time of a step through the loop, between two of its log rows, in ms."""
    from dyt.data.order import Order
    from dyt.tracking.metrics import Metrics
    from dyt.tracking.wandb import Wandb
    from dyt.training.loop import Trainer
    from dyt.training.saving import Saver
    from dyt.training.schedule import Schedule

    class Clocked(Metrics):
        times: dict[int, float] = {}

        def log(self, row):
            super().log(row)
            self.times[row["step"]] = time.perf_counter()

    order = Order(data.samples, config["data"]["batch_size"], config["seed"])
    trainer = Trainer(config, model, task, data, order, Schedule(STEPS + SKIP, SKIP, 10**9, 10**9), world)
    metrics = Clocked(folder / "metrics.jsonl", 0)
    wandb = Wandb(os.environ.get("WANDB_MODE", "offline"), folder, f"overhead-{time.time_ns()}", {}, [])
    trainer.fit(Saver(folder / "checkpoints", metrics, wandb, patience=600, keep=1))
    metrics.close()
    wandb.finish({}, failed=False)
    return 1000 * (metrics.times[STEPS] - metrics.times[SKIP]) / (STEPS - SKIP)


def main(words: list[str]) -> float:
    import torch

    from dyt.config import compose
    from dyt.data.order import Order
    from dyt.run import assemble
    from dyt.training.distributed import join

    rounds = int(next((w.partition("=")[2] for w in words if w.startswith("rounds=")), 12))
    if rounds < 2:
        sys.exit(f"overhead.py: rounds={rounds}: at least 2, since quartiles of the ratios are told.")
    words = [w for w in words if not w.startswith("rounds=")] or ["model=gpt_nano"]
    config = compose.load([*words, "trainer.eval_batches=1"])
    world = join("cpu")
    data, model, _, task = assemble(config, world, 0)
    order = Order(data.samples, config["data"]["batch_size"], 0)
    batches = [batch for batch, _ in zip(data.train_batches(order, 0, STEPS + SKIP), range(STEPS + SKIP), strict=False)]
    bare, loop = [], []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds):
            (Path(folder) / str(i)).mkdir()
            parts = [
                lambda: bare.append(bare_ms(config, model, task, batches)),
                lambda at=Path(folder) / str(i): loop.append(loop_ms(config, model, task, data, world, at)),
            ]
            for part in parts if i % 2 else reversed(parts):  # a drifting machine favours neither
                part()
    ratios = [b / a for a, b in zip(bare, loop, strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    print(
        f"{config['model']['name']}, {torch.get_num_threads()} threads: bare step {statistics.median(bare):.2f} ms, "
        f"through the loop {statistics.median(loop):.2f} ms, ratio {ratio:.3f} "
        f"(median of {rounds} alternating rounds, quartiles {low:.3f} to {high:.3f})"
    )
    return ratio


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        sys.exit(print(__doc__))
    main(sys.argv[1:])
