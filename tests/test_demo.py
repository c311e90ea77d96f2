"""The demo's table: what is missing shows as missing, and divergence as such."""

import json
import sys

from dyt.config.compose import load
from dyt.config.identity import config_hash

from .helpers import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import demo  # noqa: E402


def test_table(tmp_path):
    plan = type("Plan", (), {"dir": tmp_path, "config": {"norm": {"alpha_init": 1.0}}})
    rows = [{"step": s, "tokens_per_s": 1000.0 * s} for s in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    summary = {"model": "m", "norm": "dyt", "parameters": 1234, "final": {}, "best": {"val/loss": {"value": 1.5}}}
    summary |= {"step": 3, "tokens": 300, "status": "diverged"}
    assert demo.table([(plan, summary)]).splitlines()[2:] == [
        "| m | dyt (alpha0 1) | 1,234 | - | 1.5000 | - | 50.0 | 3 | diverged |"
    ]


def test_the_eight_runs_differ_only_in_the_norm():
    """Within a family, config hashes agree once the norm is taken out."""
    plans = demo.plans()
    assert len(plans) == 8 and len({p.hash for p in plans}) == 8
    for family in (plans[:4], plans[4:]):
        assert [p.config["norm"]["name"] for p in family] == list(demo.NORMS)
        same = {config_hash(p.config | {"norm": {}}, p.data_sha256) for p in family}
        assert len(same) == 1
    gpt = load(["experiment=demo_gpt"])["model"]
    assert (gpt["embed_scale"], gpt["embed_std"]) == ("learnable", "rsqrt_dim")
    assert plans[6].config["norm"]["alpha_init"] == 1.0
