"""How many training seeds an ordering needs: the difference of attack success that a number of seeds would show.

Per-seed outcomes of two runs on the same prompts give a matrix of differences, training seeds by prompts. Its variance has
three parts: between training seeds, between prompts (both shared by a whole row or column), and within, what is left of one
output. More seeds shrink the first and the last, more prompts the other two; so a small study on the development split tells how
many seeds a benchmark needs, before it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saffron.analysis.results import Key, load
from saffron.analysis.statistics import POWER, Z_POWER, interval, student_t
from saffron.config import Config, ConfigError
from saffron.layout import Layout

Array = NDArray[np.float64]

#: Numbers of training seeds in the printed table.
SEEDS = (2, 3, 4, 5, 6, 8, 10, 12, 16, 24)
#: Draws for an interval's width, which is then known to about a hundredth.
DRAWS = 50_000


@dataclass(frozen=True)
class Spread:
    """A mean difference and the standard deviations of its three parts: between seeds, between prompts, within."""

    mean: float
    seeds: float
    prompts: float
    within: float


def spread(differences: Array) -> Spread:
    """Parts of the variance of differences [training seeds, prompts], by the mean squares of a two-way layout.

    A part that comes out negative is 0.

    Raises:
        ValueError: with fewer than two seeds or two prompts.
    """
    n, m = differences.shape
    if min(n, m) < 2:
        raise ValueError(f"{n} training seeds and {m} prompts: two of each are the least that show a spread")
    mean, by_seed, by_prompt = differences.mean(), differences.mean(axis=1), differences.mean(axis=0)
    rest = differences - by_seed[:, None] - by_prompt + mean
    within = (rest**2).sum() / ((n - 1) * (m - 1))
    seeds = max(by_seed.var(ddof=1) - within / m, 0.0)
    prompts = max(by_prompt.var(ddof=1) - within / n, 0.0)
    return Spread(float(mean), float(seeds**0.5), float(prompts**0.5), float(within**0.5))


def detectable(parts: Spread, seeds: int, prompts: int, confidence: float = 0.95) -> float:
    """Difference whose interval excludes 0 with power 0.8, on so many training seeds and prompts.

    The interval is that of every difference (:mod:`saffron.analysis.statistics`), so with few seeds it is wide even where they
    hardly differ: little is known of their spread then.
    """
    generator = np.random.default_rng(0)
    one_output = parts.within**2 / (seeds * prompts)
    of_prompts = (parts.prompts**2 / prompts + one_output) ** 0.5
    of_seeds = (parts.seeds**2 / seeds + one_output) ** 0.5
    resampled = of_prompts * generator.standard_normal(DRAWS)
    low, high, _ = interval(resampled, of_seeds, student_t(generator, seeds, DRAWS), confidence)
    assert low is not None and high is not None
    error = (parts.seeds**2 / seeds + parts.prompts**2 / prompts + one_output) ** 0.5
    return float((high - low) / 2 + Z_POWER * error)


def seeds_needed(parts: Spread, prompts: int, difference: float, confidence: float = 0.95, most: int = 100) -> int | None:
    """The least number of training seeds that show a difference with power 0.8; None if ``most`` do not."""
    counts = range(2, most + 1)
    return next((seeds for seeds in counts if detectable(parts, seeds, prompts, confidence) <= difference), None)


def differences(config: Config, layout: Layout, cell: str, reference: str) -> Array:
    """Attack success of one cell less that of another on the same prompts, [training seeds, prompts], by the guard.

    Args:
        config: of the stored results.
        layout: where they lie.
        cell: ``<experiment>/<method>-<settings_id>/<budget>``, for instance ``development/best_of_n-default/32``.
        reference: the same of the cell it is compared with; its experiment may be another one on the same prompts.

    Raises:
        ConfigError: if a cell is not written so, the two are on different prompts, or the config has one training seed.
        RecordError: if the results are missing or incomplete, or lack a cell.
    """
    if len(config.train_seeds) < 2:
        raise ConfigError(f"config {config.name}: train_seeds has one seed, which shows no spread between seeds; add another")
    chosen = [_parsed(text) for text in (cell, reference)]
    (one, _), (other, _) = chosen
    results = {name: load(config, layout, name) for name in dict.fromkeys((one, other))}
    if len({(found.dataset, found.prompt_ids) for found in results.values()}) > 1:
        raise ConfigError(f"experiments {one} and {other} are on different prompts; only cells on the same ones are paired")
    minuend, subtrahend = (results[name].cells([key]).values["asr"][0] for name, key in chosen)
    return minuend - subtrahend


def _parsed(cell: str) -> tuple[str, Key]:
    """Experiment and key of a cell."""
    experiment, _, rest = cell.partition("/")
    run, _, budget = rest.partition("/")
    method, _, settings_id = run.partition("-")
    if not (experiment and method and settings_id and budget.isdigit()):
        raise ConfigError(f"{cell}: a cell is written EXPERIMENT/METHOD-SETTINGS/BUDGET, like development/best_of_n-default/32")
    return experiment, Key(method, settings_id, int(budget))


def render(found: Array, title: str, prompts: int, difference: float, confidence: float) -> str:
    """What a small study says about larger ones: its spread, and a line per number of training seeds."""
    parts = spread(found)
    least = seeds_needed(parts, prompts, difference, confidence)
    lines = [
        f"{title}: {parts.mean:+.3f} on {found.shape[0]} training seeds and {found.shape[1]} prompts",
        f"standard deviations: between training seeds {parts.seeds:.3f}, between prompts {parts.prompts:.3f}, "
        f"within (one output) {parts.within:.3f}",
        "",
        f"training seeds   difference seen with power {POWER:g} on {prompts} prompts",
        *(f"{seeds:>14}   {detectable(parts, seeds, prompts, confidence):.3f}" for seeds in SEEDS),
        "",
        f"least number of training seeds for a difference of {difference:g}: {least or 'more than 100'}",
    ]
    return "\n".join(lines)
