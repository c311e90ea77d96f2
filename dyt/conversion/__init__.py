"""DyT in somebody else's model: find its norms, swap them, say what became of each."""

from dyt.conversion.advise import Advice, advise
from dyt.conversion.calibrate import calibrate
from dyt.conversion.embedding import add_embed_scale
from dyt.conversion.plan import Entry, plan
from dyt.conversion.replace import convert, replace_norms
from dyt.conversion.report import Report, conversion_report
from dyt.conversion.swap import revert

__all__ = [
    "Advice",
    "Entry",
    "Report",
    "add_embed_scale",
    "advise",
    "calibrate",
    "conversion_report",
    "convert",
    "plan",
    "replace_norms",
    "revert",
]
