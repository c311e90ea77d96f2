"""Fits the approximations in dyt/kernels/squash.h: tanh and erf as z P(z^2) / Q(z^2) on [0, limit], 2^f - 1 as f P(f).

    python scripts/maintain/fit_squash.py

Linearised least squares (Sanathanan-Koerner), reweighted towards the largest relative error (Lawson). Prints the
coefficients, highest power first, and the relative error of the exact quotient.
"""

import argparse

import numpy as np
from scipy.special import erf


def reweighted(weight, error):
    """Lawson's step: more weight where the error is large."""
    weight = weight * (error / error.max() + 1e-3)
    return weight / weight.mean()


def fit(f, limit: float, p: int, q: int, points: int = 4000, rounds: int = 200):
    """(error, P, Q) with coefficients lowest power first."""
    k = np.arange(points)
    x = limit / 2 * (1 - np.cos(np.pi * (k + 0.5) / points))
    x = x[x > 1e-4]
    u, y = (x / limit) ** 2, f(x)
    weight, before, best = np.ones_like(x), np.ones_like(x), None
    for _ in range(rounds):
        system = np.concatenate(
            [x[:, None] * u[:, None] ** np.arange(p + 1), -y[:, None] * u[:, None] ** np.arange(1, q + 1)], 1
        )
        scale = np.sqrt(weight) / (np.abs(y) * np.abs(before))
        found, *_ = np.linalg.lstsq(system * scale[:, None], y * scale, rcond=None)
        top, bottom = found[: p + 1], np.r_[1.0, found[p + 1 :]]
        before = np.polyval(bottom[::-1], u)
        error = np.abs(x * np.polyval(top[::-1], u) / before / y - 1)
        if best is None or error.max() < best[0]:
            best = (error.max(), top / limit ** (2 * np.arange(p + 1)), bottom / limit ** (2 * np.arange(q + 1)))
        weight = reweighted(weight, error)
    return best


def tanh_that_reaches_one(x):
    """tanh, raised by 3e-7 at 9 and by 3e-9 at 5: after the clamp to 1, saturated values are exactly 1."""
    return np.tanh(x) * (1 + 3e-7 * (x / 9) ** 8)


def fit_exponential(degree: int, points: int = 4000, rounds: int = 200):
    """(error, P) of 2^f - 1 = f P(f) for |f| <= 1/2, likewise, lowest power first."""
    f = 0.5 * np.cos(np.pi * (np.arange(points) + 0.5) / points)
    y, weight, best = np.expm1(f * np.log(2)), np.ones(points), None
    for _ in range(rounds):
        system = f[:, None] ** np.arange(1, degree + 2) / y[:, None]
        found, *_ = np.linalg.lstsq(system * np.sqrt(weight)[:, None], np.sqrt(weight), rcond=None)
        error = np.abs(system @ found - 1)
        if best is None or error.max() < best[0]:
            best = (error.max(), found)
        weight = reweighted(weight, error)
    return best


def show(letter: str, values) -> None:
    print(f"  {letter}: " + ", ".join(f"{v:.9g}" for v in values[::-1]))


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # no words
    for name, f, limit, p, q in (("tanh", tanh_that_reaches_one, 9.0, 4, 4), ("erf", erf, 4.0, 5, 5)):
        error, top, bottom = fit(f, limit, p, q)
        print(f"{name} on [0, {limit:g}]: relative error {error:.1e}")
        show("P", top)
        show("Q", bottom)
    error, top = fit_exponential(4)
    print(f"2^f - 1 on [-0.5, 0.5]: relative error {error:.1e}")
    show("P", top)
