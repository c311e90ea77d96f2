"""Model families, one file each. A family is a module with ``build(norm, spec, **arguments)``."""

import importlib
from pathlib import Path

from torch import nn

from dyt.config.arguments import check_arguments
from dyt.data.spec import Spec
from dyt.norms import NormFactory
from dyt.norms.statistical import warn_if_causal

FAMILIES = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if "\ndef build(" in p.read_text())


def build_model(model: dict, norm: dict, spec: Spec) -> tuple[nn.Module, NormFactory]:
    """The model of a config's ``model`` and ``norm`` parts for data of `spec`, and the factory that made its norms.

    Raises:
        ValueError: an argument does not fit, or the norm config names a site that the model does not have.
    """
    family = model["family"]
    if family not in FAMILIES:
        raise ValueError(f"model.family={family}: choose from {', '.join(FAMILIES)}")
    not_its_own = ("name", "family", "task", "reads", model["task"])  # the last: arguments of the task
    arguments = {k: v for k, v in model.items() if k not in not_its_own}
    build = importlib.import_module(f"models.{family}").build
    check_arguments(build, arguments, "model")
    factory = NormFactory(
        norm["kind"], norm["sites"], **{k: v for k, v in norm.items() if k not in ("name", "kind", "sites")}
    )
    built = build(factory, spec, **arguments)
    factory.check_sites(f"model={model['name']}")
    masked = (model.get("bases") or {}).get("objective") == "masked"
    if family == "gpt" or model["task"] in ("text", "decision") or (model["task"] == "bases" and not masked):
        warn_if_causal(factory.chosen())
    return built, factory
