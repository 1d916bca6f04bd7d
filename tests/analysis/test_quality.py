from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron.analysis import quality

texts = st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map(tuple), min_size=2, max_size=6)


def test_words_and_phrases() -> None:
    outputs = [quality.words(text) for text in ("I can't do that.", "I can't do this!", "But I can't do that.")]
    assert outputs[0] == ("i", "can", "'", "t", "do", "that", ".")
    start = quality.most_common_start(outputs)
    assert (start.text, start.share) == ("i can ' t", pytest.approx(2 / 3))
    phrase = quality.most_common_phrase(outputs)
    assert phrase.share == 1 and phrase.text == "can ' t do"


def test_ties_go_to_the_alphabetically_first() -> None:
    assert quality.most_common_start([("b",), ("a",)]).text == "a"


def test_distinct() -> None:
    outputs = [("a", "b", "a"), ("a", "b")]
    assert quality.distinct(outputs, 1) == 2 / 5
    assert quality.distinct(outputs, 2) == 2 / 3
    assert quality.distinct(outputs, 3) == 1
    assert quality.distinct(outputs, 4) == 0


def test_an_output_repeats_itself_where_three_words_in_a_row_stand_twice() -> None:
    said = {"a b c a b c": True, "no no no no": True, "no no no": False, "a b c d a b": False, "": False, "a, b, a, b,": True}
    assert {text: quality.repeats(quality.words(text)) for text in said} == said


@given(st.lists(st.sampled_from("abc"), max_size=12).map(tuple), st.integers(1, 4))
def test_whoever_repeats_a_longer_run_repeats_a_shorter_one(output: tuple[str, ...], n: int) -> None:
    assert quality.repeats(output, n) or not quality.repeats(output, n + 1)
    assert quality.repeats(output + output, n) or len(output) < n


def test_identical_outputs_have_self_bleu_one_and_disjoint_ones_little() -> None:
    assert quality.self_bleu([tuple("abcde")] * 3) == pytest.approx(1)
    assert quality.self_bleu([tuple("abcde"), tuple("fghij")]) < 0.1


@given(texts)
def test_self_bleu_equals_the_direct_definition(outputs: list[tuple[str, ...]]) -> None:
    assert quality.self_bleu(outputs) == pytest.approx(_direct(outputs))


def _direct(outputs: list[tuple[str, ...]]) -> float:
    """BLEU of each output against the others, reference by reference."""
    scores = []
    for i, output in enumerate(outputs):
        others = outputs[:i] + outputs[i + 1 :]
        logs = []
        for n in range(1, 5):
            own = Counter(quality.ngrams(output, n))
            if not own:
                continue
            best: Counter[tuple[str, ...]] = Counter()
            for other in others:
                best |= Counter(quality.ngrams(other, n))
            clipped = sum(min(count, best[phrase]) for phrase, count in own.items())
            logs.append(np.log((clipped or 0.1) / own.total()))
        if not output:
            scores.append(0.0)
            continue
        closest = min((len(o) for o in others), key=lambda length: (abs(length - len(output)), length))
        penalty = 1.0 if len(output) > closest else np.exp(1 - closest / len(output))
        scores.append(float(penalty * np.exp(np.mean(logs))))
    return float(np.mean(scores))
