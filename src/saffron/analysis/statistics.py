"""Rates, intervals and the one bootstrap that every difference, slope and ratio is computed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A quantity of ours with its interval.

    ``per_seed`` holds the quantity computed on each training seed alone. ``exact`` marks a quantity that is counted, not
    sampled (a number of calls, a sum over a recorded tree): its verdict does not depend on the number of seeds.
    ``value`` is None where the quantity is undefined; ``note`` then says why.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    per_seed: tuple[float | None, ...] = ()
    n: int | None = None
    exact: bool = False
    note: str = ""

    def as_record(self) -> dict[str, Any]:
        """JSON values; infinities and NaN become null."""
        return {
            "value": _finite(self.value),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "per_seed": [_finite(value) for value in self.per_seed],
            "n": self.n,
            "exact": self.exact,
            "note": self.note,
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Estimate:
        """The inverse of :meth:`as_record`."""
        return cls(**{**record, "per_seed": tuple(record["per_seed"])})


def _finite(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(value)


def exact(value: float | None, n: int | None = None, per_seed: tuple[float | None, ...] = (), note: str = "") -> Estimate:
    """A counted quantity: its interval is itself."""
    return Estimate(value, value, value, per_seed=per_seed, n=n, exact=True, note=note)


def wilson(successes: float, n: int, confidence: float) -> tuple[float, float]:
    """Wilson's score interval for a rate.

    Raises:
        ValueError: if there are no observations or more successes than observations.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} observations is no rate")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


@dataclass(frozen=True)
class Cells:
    """Outcomes of the cells of one benchmark (a cell is a method with its settings and budget).

    ``values[name]`` has shape [cells, seeds, prompts]: means over search seeds, one slice per training seed. All cells
    share prompts and seeds, which is what pairs them.
    """

    keys: tuple[Any, ...]
    values: dict[str, Array]

    @property
    def shape(self) -> tuple[int, int]:
        """(training seeds, prompts)."""
        _, seeds, prompts = next(iter(self.values.values())).shape
        return seeds, prompts


@lru_cache(maxsize=8)
def resampling_weights(seed: int, seeds: int, prompts: int, samples: int) -> tuple[Array, Array]:
    """Weights of training seeds [samples, seeds] and prompts [samples, prompts], each row summing to 1.

    The same for equal arguments, so results on the same prompts are paired even where they come from different tables.
    """
    generator = np.random.default_rng([seed, seeds, prompts])
    by_prompt = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=samples) / prompts
    by_seed = (
        np.ones((samples, 1)) if seeds == 1 else generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=samples) / seeds
    )
    return by_seed, by_prompt


@dataclass
class Bootstrap:
    """Paired bootstrap over prompts, with training seeds resampled as clusters.

    One resample draws prompts with replacement, the same for every cell and seed, and, with more than one training seed,
    seeds with replacement. Every statistic is a function of the cells' means, so it is computed on the same resamples:
    differences between methods are paired by construction.
    """

    cells: Cells
    samples: int
    seed: int
    confidence: float
    _means: dict[str, tuple[Array, Array, Array]] = field(default_factory=dict, init=False, repr=False)

    def means(self, name: str) -> tuple[Array, Array, Array]:
        """Means of one outcome: over everything [cells], per seed [seeds, cells], per resample [samples, cells]."""
        if name not in self._means:
            values = self.cells.values[name]
            by_seed, by_prompt = resampling_weights(self.seed, *self.cells.shape, self.samples)
            resampled = np.zeros((self.samples, len(values)))
            for seed in range(values.shape[1]):
                resampled += by_seed[:, seed, None] * (by_prompt @ values[:, seed].T)
            self._means[name] = values.mean(axis=(1, 2)), values.mean(axis=2).T, resampled
        return self._means[name]

    def estimate(self, statistic: Callable[..., Array], *names: str, note: str = "") -> Estimate:
        """A statistic of cell means with its percentile interval.

        Args:
            statistic: takes one array [..., cells] per name and returns [...]; vectorised over leading dimensions.
            names: the outcomes it reads.
            note: what a reader must know about it.
        """
        arrays = [self.means(name) for name in names]
        with np.errstate(all="ignore"):
            value = float(statistic(*(overall for overall, _, _ in arrays)))
            per_seed = np.asarray(statistic(*(seeds for _, seeds, _ in arrays)), dtype=float)
            resampled = np.asarray(statistic(*(samples for _, _, samples in arrays)), dtype=float)
        low, high = percentile_interval(resampled, self.confidence)
        return Estimate(_finite(value), low, high, tuple(_finite(v) for v in per_seed), n=self.cells.shape[1], note=note)

    def rate(self, name: str, cell: int) -> Estimate:
        """A rate of one cell: Wilson's interval for 0/1 outcomes of one seed, the bootstrap otherwise.

        Where every outcome is the same, resampling shows no spread: then it is Wilson's interval of one seed's prompts.
        """
        values = self.cells.values[name][cell]
        if len(values) == 1 and np.isin(values, (0.0, 1.0)).all():
            low, high = wilson(float(values.sum()), values.size, self.confidence)
            return Estimate(float(values.mean()), low, high, (float(values.mean()),), n=values.size)
        estimate = self.estimate(lambda means: means[..., cell], name)
        if (values == 0).all() or (values == 1).all():
            low, high = wilson(float(values[0].sum()), values[0].size, self.confidence)
            return replace(estimate, low=low, high=high)
        return estimate


def percentile_interval(resampled: Array, confidence: float) -> tuple[float | None, float | None]:
    """Percentile interval; None at an end that is infinite or undefined in too many resamples to be known."""
    # Sums in another order differ in the last bits: an exact tie must not fall on either side of 0 by them.
    resampled = np.round(resampled, 12)
    # A resample in which the statistic is undefined could lie anywhere: it counts against both ends.
    low = np.where(np.isnan(resampled), -np.inf, resampled)
    high = np.where(np.isnan(resampled), np.inf, resampled)
    tail = (1 - confidence) / 2
    ends = (
        float(np.quantile(low, tail, method="inverted_cdf")),
        float(np.quantile(high, 1 - tail, method="inverted_cdf")),
    )
    return _finite(ends[0]), _finite(ends[1])
