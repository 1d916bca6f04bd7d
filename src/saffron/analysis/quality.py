"""Lexical variety of outputs (section 5.6), and whether an output repeats itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Words of a phrase. The paper does not say how long its phrases are.
PHRASE_WORDS = 4
#: Words of a run that an output repeats: few sound answers of a few dozen tokens say three words in a row twice.
REPEATED_WORDS = 3

Words = tuple[str, ...]


def words(text: str) -> Words:
    """Lower-case words and punctuation marks of a text."""
    return tuple(re.findall(r"\w+|[^\w\s]", text.lower()))


def ngrams(sequence: Words, n: int) -> Iterator[Words]:
    """All runs of n words."""
    return (sequence[i : i + n] for i in range(len(sequence) - n + 1))


@dataclass(frozen=True)
class Phrase:
    """The most common phrase and which outputs have it (bool, [outputs])."""

    text: str
    present: NDArray[np.bool_]

    @property
    def share(self) -> float:
        """Share of the outputs that have it."""
        return float(self.present.mean())


def most_common_start(outputs: Sequence[Words], n: int = PHRASE_WORDS) -> Phrase:
    """The first n words that most outputs start with (ties: the alphabetically first)."""
    starts = [output[:n] for output in outputs]
    phrase = _most_common(Counter(starts))
    return Phrase(" ".join(phrase), np.array([start == phrase for start in starts]))


def most_common_phrase(outputs: Sequence[Words], n: int = PHRASE_WORDS) -> Phrase:
    """The run of n words that occurs in most outputs (ties: the alphabetically first)."""
    sets = [frozenset(ngrams(output, n)) for output in outputs]
    counts = Counter(phrase for present in sets for phrase in present)
    if not counts:
        return Phrase("", np.zeros(len(outputs), dtype=bool))
    phrase = _most_common(counts)
    return Phrase(" ".join(phrase), np.array([phrase in present for present in sets]))


def _most_common(counts: Counter[Words]) -> Words:
    return min(counts, key=lambda phrase: (-counts[phrase], phrase))


def distinct(outputs: Sequence[Words], n: int) -> float:
    """distinct-n: distinct runs of n words over all runs of n words (0 if there are none)."""
    counts = Counter(phrase for output in outputs for phrase in ngrams(output, n))
    return len(counts) / counts.total() if counts else 0.0


def repeats(output: Words, n: int = REPEATED_WORDS) -> bool:
    """Whether a run of n words stands in an output more than once: text that goes round in circles."""
    runs = list(ngrams(output, n))
    return len(set(runs)) < len(runs)


def self_bleu(outputs: Sequence[Words], max_n: int = 4, smoothing: float = 0.1) -> float:
    """Mean BLEU of each output against all the others: 1 where all are the same, lower where they vary.

    Clipped n-gram precisions up to ``max_n`` with uniform weights, ``smoothing`` in place of a numerator of 0, and the
    brevity penalty against the closest reference length. Outputs shorter than ``max_n`` words use the orders they have. NaN for
    a single output, which there is nothing to compare with.
    """
    if len(outputs) < 2:
        return float("nan")
    per_order = [[Counter(ngrams(output, n)) for output in outputs] for n in range(1, max_n + 1)]
    tops = [_two_largest(counters) for counters in per_order]
    lengths = np.array([len(output) for output in outputs])
    scores = []
    for i, output in enumerate(outputs):
        if not output:
            scores.append(0.0)
            continue
        logs = []
        for counters, top in zip(per_order, tops, strict=True):
            own = counters[i]
            if not own:
                continue
            clipped = 0
            for phrase, count in own.items():
                first, second = top[phrase]
                # The best reference is another output: the runner-up where this one holds the largest count.
                clipped += min(count, second if count == first else first)
            logs.append(np.log((clipped or smoothing) / own.total()))
        others = np.delete(lengths, i)
        closest = min(others.tolist(), key=lambda length: (abs(length - len(output)), length))
        penalty = 1.0 if len(output) > closest else float(np.exp(1 - closest / len(output)))
        scores.append(penalty * float(np.exp(np.mean(logs))))
    return float(np.mean(scores))


def _two_largest(counters: Sequence[Counter[Words]]) -> dict[Words, tuple[int, int]]:
    top: dict[Words, tuple[int, int]] = {}
    for counter in counters:
        for phrase, count in counter.items():
            first, second = top.get(phrase, (0, 0))
            if count > first:
                top[phrase] = count, first
            elif count > second:
                top[phrase] = first, count
    return top
