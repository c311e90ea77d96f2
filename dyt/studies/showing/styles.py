"""One colour a norm in all figures; variants of a norm differ by shade, line and marker."""

import colorsys

from dyt.config.variants import name

# Okabe and Ito's colours, one per norm everywhere.
COLOURS = {
    "layernorm": "#0072B2", "rmsnorm": "#56B4E9", "dyt": "#D55E00", "derf": "#CC79A7", "none": "#777777",
    "batchnorm": "#009E73", "fixup": "#009E73", "skipinit": "#E69F00", "sigma": "#000000", "hardtanh": "#E69F00",
    "sigmoid": "#009E73", "isru": "#56B4E9", "identity": "#777777", "erf": "#CC79A7", "tanh": "#D55E00",
}  # fmt: skip
OTHERS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")
SHADES = ((0, 0), (0, -0.2), (0, 0.25), (-0.09, -0.05), (0.06, 0.0), (-0.14, 0.15), (0.1, -0.15))  # hue, lightness
DASHES = ("-", "--", ":", "-.")
MARKERS = "osD^vPX*"


def styles(labels: list[str], among: list[str] | None = None) -> dict[str, dict]:
    """Colour, dash and marker of each label: a norm's own colour where its name begins with one.

    Args:
        among: all labels of a figure, so that one looks alike in each of its panels; None: `labels`.
    """
    found, used = {}, {}
    for i, label in enumerate(dict.fromkeys([*(among or []), *labels])):
        norm = next((n for n in sorted(COLOURS, key=len, reverse=True) if label.startswith(n)), None)
        colour = COLOURS[norm] if norm else OTHERS[i % len(OTHERS)]
        variant = used[colour] = used.get(colour, -1) + 1
        shade = _shade(colour, *SHADES[variant % len(SHADES)])
        found[label] = {"color": shade, "ls": DASHES[variant % 4], "marker": MARKERS[variant % 8], "ms": 4}
    return {label: found[label] for label in labels}


def _shade(colour: str, turn: float, lighter: float) -> str:
    rgb = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    hue, light, full = colorsys.rgb_to_hls(*rgb)
    shade = colorsys.hls_to_rgb((hue + turn) % 1, min(0.75, max(0.12, light + lighter)), full)
    return "#" + "".join(f"{round(255 * c):02X}" for c in shade)


def words(hue: str | None, label: str) -> str:
    """A label as a person writes it."""
    return name(label) if hue in ("norm", "start") else label


def tick(level: str) -> str:
    """A level of a searched factor beside others: 0.016 is ``1.6e-2``, as 8e-3 is ``8e-3``."""
    try:
        number = float(level)
    except ValueError:
        return level
    if not 0 < abs(number) < 0.1:
        return level
    digits, _, power = f"{number:.6e}".partition("e")
    return f"{float(digits):g}e{int(power)}"
