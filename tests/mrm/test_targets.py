from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.mrm.examples import FORMATS, labels

from saffron.mrm.targets import Targets, collate, schedule, steps


def test_both_orders_hold_the_same_prefixes_and_targets():
    table = labels()
    found = {}
    for order in ("packed", "paper"):
        targets = Targets(table, FORMATS, order)
        found[order] = [
            (tuple(row.input_ids[: len(row.input_ids) - len(row.tokens) + 1 + i]), int(token), float(reward))
            for row in map(targets.row, range(len(targets)))
            for i, (token, reward) in enumerate(zip(row.tokens, row.rewards, strict=True))
        ]
    assert found["packed"] == found["paper"]
    assert len(found["packed"]) == sum(map(len, table["rewards"]))
    first = table.iloc[0]
    prompt = first["input_ids"][: first["response_start"]]
    assert found["packed"][0][0] == tuple(FORMATS.mrm.prompt(prompt))
    assert found["packed"][0][1] == first["input_ids"][first["response_start"]]


def test_a_batch_points_at_the_last_token_of_each_prefix():
    targets = Targets(labels(), FORMATS, "packed")
    rows = [targets.row(index) for index in (3, 0, 5)]
    batch = collate(rows)
    for index, row in enumerate(rows):
        mine = batch.row == index
        assert batch.tokens[mine].tolist() == row.tokens.tolist()
        assert batch.position[mine][-1] == len(row.input_ids) - 1
        following = batch.input_ids[index, batch.position[mine][:-1] + 1]
        assert following.tolist() == row.tokens[:-1].tolist()


@pytest.mark.parametrize("order", ["packed", "paper"])
def test_sizes_and_places_agree_with_rows(order):
    targets = Targets(labels(), FORMATS, order)
    assert sum(targets.size(index) for index in range(len(targets))) == targets.total
    assert all(len(targets.row(index).tokens) == targets.size(index) for index in range(len(targets)))


@given(st.integers(1, 40), st.integers(1, 9), st.floats(0.05, 3), st.integers(0, 5))
def test_every_epoch_is_a_shuffle_of_all_rows(rows, batch_size, epochs, seed):
    drawn = list(schedule(rows, batch_size, epochs, seed))
    assert len(drawn) == steps(rows, batch_size, epochs)
    assert all(1 <= len(indices) <= batch_size for indices in drawn)
    flat = np.concatenate(drawn) if drawn else np.empty(0, dtype=int)
    assert len(flat) == round(rows * epochs)
    for start in range(0, len(flat), rows):
        part = flat[start : start + rows]
        assert len(set(part.tolist())) == len(part)
