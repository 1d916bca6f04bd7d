"""Which step of a recorded search Figure 1 shows, on trees built by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saffron.methods.saffron.tree import SearchTree, TreeCandidate, TreeStep
from saffron.search.trees import FIRST_STEP, shown_step

#: By beam sequence: whether each of its candidates is kept.
Fates = dict[int, list[bool]]


def tree(*steps: Fates) -> SearchTree:
    made = [
        TreeStep(
            list(fates),
            [
                TreeCandidate(parent, token, 0.1, 0.0, 0 if kept else None)
                for parent, children in fates.items()
                for token, kept in enumerate(children)
            ],
        )
        for fates in steps
    ]
    return SearchTree(nodes=[], steps=made, tokens_read=0, context_read=0)


def place(recorded: SearchTree) -> tuple[int, int]:
    index, step, node = shown_step(recorded)
    assert step is recorded.steps[index]
    return index, node


MIXED, ALL, NONE = [True, False], [True, True, True], [False, False, False]
EARLY: list[Fates] = [{-1: MIXED}] * FIRST_STEP


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ([{3: NONE, 4: MIXED, 5: ALL}], (FIRST_STEP, 4)),
        ([{3: NONE}, {4: MIXED}, {5: ALL}], (FIRST_STEP + 1, 4)),
        ([{3: MIXED}, {4: [False, True, False]}, {5: [True, False, False]}], (FIRST_STEP + 1, 4)),  # most, then earliest
        ([{3: MIXED, 4: MIXED}], (FIRST_STEP, 3)),
    ],
)
def test_a_step_that_keeps_and_drops_comes_first(later: list[Fates], expected: tuple[int, int]) -> None:
    assert place(tree(*EARLY, *later)) == expected


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ([{3: [False], 4: NONE}, {5: ALL}], (FIRST_STEP, 4)),
        ([{3: [True], 4: []}, {5: ALL}], (FIRST_STEP + 1, 5)),
    ],
)
def test_without_one_the_most_candidates_decide(later: list[Fates], expected: tuple[int, int]) -> None:
    assert place(tree(*EARLY, *later)) == expected


def test_a_search_that_ends_early_shows_one_of_its_first_steps() -> None:
    assert place(tree({-1: ALL}, {0: NONE, 1: MIXED})) == (1, 1)


STEPS = st.lists(st.dictionaries(st.integers(0, 5), st.lists(st.booleans(), max_size=5), min_size=1, max_size=4), max_size=6)


@given(first=st.lists(st.booleans(), min_size=1, max_size=4), steps=STEPS)
def test_no_later_step_would_show_more(first: list[bool], steps: list[Fates]) -> None:
    recorded = [{-1: first}, *steps]
    index, node = place(tree(*recorded))
    shown = recorded[index][node]
    rivals = [children for fates in recorded[FIRST_STEP:] or recorded for children in fates.values()]
    assert shown in rivals
    assert len(set(shown)) == 2 or not any(len(set(children)) == 2 for children in rivals)
    assert len(shown) == max(len(children) for children in rivals if len(set(children)) == 2 or len(set(shown)) < 2)
