"""Scaling law, scaling efficiency, and compute at equal attack success."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Compute that differs by less than this share is the same: what is left is the rounding of a mean.
SAME = 1e-9


@dataclass(frozen=True)
class LogFit:
    """ASR = intercept + slope · ln(compute), ordinary least squares on a curve's points."""

    intercept: float
    slope: float
    r_squared: float
    n_points: int

    def at(self, compute: float | Array) -> Array:
        """Fitted ASR."""
        return self.intercept + self.slope * np.log(compute)


def fit_coefficients(compute: Array, asr: Array) -> tuple[Array, Array, Array]:
    """Least squares on the last axis: intercept, slope and R², each of shape [...]; NaN where all compute is the same."""
    x = np.log(compute)
    dx = x - x.mean(axis=-1, keepdims=True)
    dy = asr - asr.mean(axis=-1, keepdims=True)
    spread = (dx * dx).sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(spread > x.shape[-1] * SAME**2, (dx * dy).sum(axis=-1) / spread, np.nan)
        intercept = asr.mean(axis=-1) - slope * x.mean(axis=-1)
        residual = ((dy - slope[..., None] * dx) ** 2).sum(axis=-1)
        total = (dy * dy).sum(axis=-1)
        r_squared = np.where(total > 0, 1 - residual / total, np.nan)
    return intercept, slope, r_squared


def can_be_fitted(compute: Sequence[float]) -> bool:
    """Whether a curve has a logarithmic fit: two points or more whose compute differs."""
    return len(compute) > 1 and max(compute) > min(compute) * (1 + SAME)


def log_fit(compute: Sequence[float], asr: Sequence[float]) -> LogFit:
    """Fit ASR = a + b·ln(compute) (Figures 2 and 4a).

    Raises:
        ValueError: with fewer than two points of different compute, or a compute that is not positive.
    """
    x, y = np.asarray(compute, dtype=float), np.asarray(asr, dtype=float)
    if not can_be_fitted(compute) or (x <= 0).any():
        raise ValueError("a logarithmic fit needs two points or more of different compute, all of it positive")
    intercept, slope, r_squared = fit_coefficients(x, y)
    return LogFit(float(intercept), float(slope), float(r_squared), len(x))


def scaleff(compute: float, asr: float, limit: float) -> float | None:
    """Scaling efficiency, Eq. 1: ln(limit / compute) / ASR; None ("undefined") where ASR is 0."""
    return None if asr == 0 else float(np.log(limit / compute) / asr)


def scaleff_difference_sign(compute_a: Array, asr_a: Array, compute_b: Array, asr_b: Array, limit: float) -> Array:
    """A quantity with the sign of ScalEff(b) - ScalEff(a) that stays defined where an ASR is 0.

    ScalEff(b) - ScalEff(a) = (L_b·ASR_a - L_a·ASR_b) / (ASR_a·ASR_b) with L = ln(limit / compute): the numerator.
    """
    return np.log(limit / compute_b) * asr_a - np.log(limit / compute_a) * asr_b


def log_compute_ratio(compute_a: Array, asr_a: Array, compute_b: Array, asr_b: Array, asr: Array) -> Array:
    """ln of (compute of curve a / compute of curve b) at the same ASR, both read off their logarithmic fits.

    Arrays of a curve have shape [..., points], ``asr`` has shape [...]; NaN where a fit does not fall.
    """
    intercept_a, slope_a, _ = fit_coefficients(compute_a, asr_a)
    intercept_b, slope_b, _ = fit_coefficients(compute_b, asr_b)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (asr - intercept_a) / slope_a - (asr - intercept_b) / slope_b
    return np.where((slope_a < 0) & (slope_b < 0), ratio, np.nan)


@dataclass(frozen=True)
class Crossing:
    """Measured compute of a curve at a given ASR: interpolated, or a bound where the curve was not measured there."""

    compute: float | None
    bound: str  # "" | "at most" (already its cheapest point is below the ASR) | "not reached"


def measured_compute_at(compute: Sequence[float], asr: Sequence[float], target: float) -> Crossing:
    """Least compute at which a measured curve reaches an ASR, linear in ln(compute) between neighbouring points."""
    x, y = np.log(np.asarray(compute, dtype=float)), np.asarray(asr, dtype=float)
    order = np.argsort(x)
    x, y = x[order], y[order]
    reached = np.flatnonzero(y <= target)
    if not len(reached):
        return Crossing(None, "not reached")
    i = int(reached[0])
    if i == 0:
        return Crossing(float(np.exp(x[0])), "" if y[0] == target else "at most")
    share = (y[i - 1] - target) / (y[i - 1] - y[i])
    return Crossing(float(np.exp(x[i - 1] + share * (x[i] - x[i - 1]))), "")
