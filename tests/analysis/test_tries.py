from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import synthetic_results
from hypothesis import given
from hypothesis import strategies as st

from saffron import records
from saffron.analysis import tries
from saffron.engine.compute import ModelShape
from saffron.records import RecordError

sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple), min_size=1, max_size=5, unique=True)


@given(sequences)
def test_lexicographic_order_reaches_both_maxima(found: list[tuple[int, ...]]) -> None:
    orders = [tries.adjacent_prefixes(order) for order in permutations(found)]
    cost = tries.trie_cost(found)
    assert cost.space_unshared - cost.space == max(sum(shared) for shared in orders)
    assert cost.time_unshared - cost.time == max(sum(p * p for p in shared) for shared in orders)


def prefixes(found: list[tuple[int, ...]]) -> set[tuple[int, ...]]:
    """Distinct non-empty prefixes: the nodes of the sequences' trie, one by one."""
    return {sequence[:end] for sequence in found for end in range(1, len(sequence) + 1)}


@given(sequences)
def test_space_is_the_number_of_trie_nodes(found: list[tuple[int, ...]]) -> None:
    assert tries.trie_cost(found).space == len(prefixes(found))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "trees.json"
    records.write_json(path, synthetic_results.trees())
    return path


def test_a_recorded_search_holds_what_proposition_2_says(stored: Path) -> None:
    record = tries.load(stored)
    for search in record.searches:
        assert search.cost().space == search.size == len(prefixes(search.sequences()))
        ends = search.sequences()
        shape = ModelShape(8, 16, 1, 2, 1, 4, 32)
        nodes = prefixes(ends)
        shared, unshared = search.flops(shape)
        assert shared == shape.nominal(len(nodes), sum(map(len, nodes)))
        assert unshared == sum(shape.chain(0, len(sequence)) for sequence in ends) > shared
    found = tries.quantities({0: record})
    assert found["proposition2/space_error"].value == found["proposition2/time_error"].value == 0
    assert found["figure1/prm_calls_saved"].value == 5
    assert 0 < (found["proposition2/time_share"].value or 0) < 1


@given(sequences, st.integers(1, 4))
def test_time_is_twice_the_nodes_depths_less_their_number(found: list[tuple[int, ...]], prompt: int) -> None:
    given = [tuple(range(-prompt, 0)) + sequence for sequence in found]
    nodes = {sequence[:end] for sequence in given for end in range(1, len(sequence) + 1)}
    assert tries.trie_cost(given).time == 2 * sum(map(len, nodes)) - len(nodes)


@pytest.mark.parametrize(
    ("spoil", "space", "time"),
    [
        (lambda search: search["engine"].update(tokens=search["engine"]["tokens"] + 3), 3, 3),
        (lambda search: search["engine"].update(context=search["engine"]["context"] - 5), 0, 10),
        (lambda search: search["ends"].pop(), 1, 2 * (24 + 14) - 1),
    ],
)
def test_a_count_of_the_engine_that_differs_is_an_error(
    stored: Path, spoil: Callable[[dict[str, Any]], object], space: int, time: int
) -> None:
    record = records.read_json(stored)
    spoil(record["searches"][1])
    records.write_json(stored, record)
    found = tries.quantities({0: tries.load(stored)})
    assert (found["proposition2/space_error"].value, found["proposition2/time_error"].value) == (space, time)


@pytest.mark.parametrize("key", ["engine", "ends"])
def test_a_record_without_the_engines_counts_asks_for_the_search_stage(stored: Path, key: str) -> None:
    record = records.read_json(stored)
    del record["searches"][0][key]
    records.write_json(stored, record)
    with pytest.raises(RecordError, match=rf"searches\.0\.{key}: Field required\); run the search stage again"):
        tries.load(stored)


def test_a_broken_record_is_named(stored: Path) -> None:
    record = records.read_json(stored)
    del record["searches"][0]["nodes"]["token"]
    records.write_json(stored, record)
    with pytest.raises(RecordError, match=r"trees\.json: not a record of searches \(searches\.0\.token: Field required\)"):
        tries.load(stored)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda record: record["searches"][0]["nodes"]["parent"].__setitem__(0, None),
            r"searches\.0\.parent\.0: Input should be",
        ),
        (lambda record: record["searches"][0]["nodes"]["token"].pop(), "columns of different lengths"),
        (lambda record: record["searches"][0].update(output=10**6), "searches.output: no node 1000000"),
        (lambda record: record["searches"][0]["ends"].append(10**6), "searches.ends: a node that is not there"),
        (lambda record: record["step"].update(candidates="x"), r"step\.candidates: Input should be"),
        (lambda record: record.update(searches=3), "not a record of searches"),
    ],
)
def test_a_record_of_another_shape_is_named(stored: Path, spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    record = records.read_json(stored)
    spoil(record)
    records.write_json(stored, record)
    with pytest.raises(RecordError, match=rf"trees\.json: .*{message}"):
        tries.load(stored)


def test_a_node_before_its_parent_is_refused(stored: Path) -> None:
    record = records.read_json(stored)
    record["searches"][0]["nodes"]["parent"][0] = 1
    records.write_json(stored, record)
    with pytest.raises(RecordError, match="stands before its parent"):
        tries.load(stored)
