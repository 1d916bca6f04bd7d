"""Operations on a frontier."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from saffron.methods import frontier
from saffron.methods.frontier import COMPACT_EVERY, Chosen, steps_ahead, take

MASKS = st.integers(1, 4).flatmap(
    lambda rows: st.lists(st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=1, max_size=3)
)


@given(MASKS)
def test_what_is_chosen_stands_in_front_and_is_found_again(mask):
    chosen = torch.tensor(mask)
    read = Chosen.of(chosen)
    assert read.index.shape[1] == max(1, int(chosen.sum(1).max()))
    entries = torch.arange(chosen.shape[1]).expand_as(chosen)
    for b, row in enumerate(mask):
        wanted = [place for place, there in enumerate(row) if there]
        assert read.index[b][read.alive[b]].tolist() == wanted
        assert take(take(entries, read.index), read.place)[b][chosen[b]].tolist() == wanted


@given(MASKS)
def test_elsewhere_as_many_are_read_whatever_is_chosen(mask):
    chosen = torch.tensor(mask)
    seen = frontier.at_hand
    frontier.at_hand = lambda device: False
    try:
        read = Chosen.of(chosen)
    finally:
        frontier.at_hand = seen
    assert read.index.shape == chosen.shape
    assert torch.equal(read.alive.sum(1), chosen.sum(1))


@given(st.integers(1, 40))
def test_steps_ahead_are_those_up_to_the_next_look(limit):
    looks = [step for step in range(limit) if (step + 1) % COMPACT_EVERY == 0]
    for step in range(-1, limit):
        coming = [look for look in looks if look > step]
        assert steps_ahead(step, limit) == (coming[0] if coming else limit - 1) - step
