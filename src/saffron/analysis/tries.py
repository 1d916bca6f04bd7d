"""Proposition 2: what a shared token trie costs, and what separate sequences would.

Its two formulas are checked on every recorded search against what the engine counted while it searched (the policy's
ledger, :class:`saffron.engine.compute.Ledger`: ``tokens`` read and the sum ``context`` of their context lengths, a token at
depth d having a context of d tokens, its own place included). As |s|² = Σ_{d ≤ |s|} (2d - 1), Proposition 2's time counts
2d - 1 for each node of depth d, so that for the sequences that were read

    space = tokens,    time = 2 · context - tokens.

The recorded sequences hold more than was read: the last token of a sequence that ended (EOS, or the token limit) is chosen
but never fed back. Each such *end* is one more node, and at depth d another 2d - 1 of the time. Nothing else differs: both
recorded methods feed the policy chosen tokens only, so no token is read that the record does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from saffron.analysis.statistics import Estimate, exact
from saffron.engine.compute import ModelShape
from saffron.records import RecordError, read_json

Tokens = Sequence[int]


@dataclass(frozen=True)
class TrieCost:
    """Time (attended pairs, up to a constant) and space (cached tokens), shared in a trie and for separate sequences."""

    time: int
    space: int
    time_unshared: int
    space_unshared: int


def longest_common_prefix(a: Tokens, b: Tokens) -> int:
    """Number of leading tokens that two sequences share."""
    length = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        length += 1
    return length


def adjacent_prefixes(sequences: Sequence[Tokens]) -> list[int]:
    """Longest common prefix of each sequence with the one before it, in the order given."""
    return [longest_common_prefix(a, b) for a, b in pairwise(sequences)]


def trie_cost(sequences: Sequence[Tokens]) -> TrieCost:
    """Proposition 2 on a set of sequences (the prompt's tokens included).

    Time is Σ|sᵢ|² - max Σ LCP², space is Σ|sᵢ| - max Σ LCP, maxima over orders of the sequences; lexicographic order
    reaches both (Lemma 3).
    """
    ordered = sorted(tuple(sequence) for sequence in sequences)
    shared = adjacent_prefixes(ordered)
    time, space = sum(len(s) ** 2 for s in ordered), sum(len(s) for s in ordered)
    return TrieCost(time - sum(p * p for p in shared), space - sum(shared), time, space)


# -------------------------------------------------------------------------------------------------- recorded searches
@dataclass(frozen=True)
class EngineCount:
    """What the engine counted of one search's policy: unique tokens read, and the sum of their context lengths."""

    tokens: int
    context: int


@dataclass(frozen=True)
class Search:
    """One recorded search: every explored token once, as a trie over the prompt.

    ``parent[i]`` is the node before node i, -1 for the prompt; ``reward[i]`` its reward, None where it was not scored;
    ``ends`` are the nodes that end their sequence, ``engine`` what the engine counted, ``output`` the last node of the answer.
    """

    prompt_id: int
    method: str
    budget: int
    prompt_tokens: int
    parent: tuple[int, ...]
    token: tuple[int, ...]
    text: tuple[str, ...]
    reward: tuple[float | None, ...]
    ends: tuple[int, ...]
    engine: EngineCount
    output: int | None

    def path(self, node: int) -> list[int]:
        """Nodes from the first token to ``node``."""
        nodes = []
        while node >= 0:
            nodes.append(node)
            node = self.parent[node]
        return nodes[::-1]

    @property
    def leaves(self) -> list[int]:
        """Nodes without children: the ends of the explored sequences."""
        inner = set(self.parent)
        return [node for node in range(len(self.parent)) if node not in inner]

    @property
    def depth(self) -> list[int]:
        """Tokens up to each node, prompt and node included."""
        depth: list[int] = []
        for parent in self.parent:
            depth.append(1 + (depth[parent] if parent >= 0 else self.prompt_tokens))
        return depth

    def sequences(self) -> list[tuple[int, ...]]:
        """Explored sequences, the prompt included (as negative placeholders, alike in all of them)."""
        prompt = tuple(range(-self.prompt_tokens, 0))
        return [prompt + tuple(self.token[node] for node in self.path(leaf)) for leaf in self.leaves]

    def cost(self) -> TrieCost:
        """Proposition 2 on this search."""
        return trie_cost(self.sequences())

    def flops(self, shape: ModelShape) -> tuple[int, int]:
        """Nominal FLOPs of reading every explored sequence with a model: as one trie, and each sequence on its own."""
        depth = self.depth
        shared = shape.chain(0, self.prompt_tokens) + shape.nominal(len(depth), sum(depth))
        return shared, sum(shape.chain(0, depth[leaf]) for leaf in self.leaves)

    @property
    def size(self) -> int:
        """Tokens held by the recorded trie, prompt included."""
        return self.prompt_tokens + len(self.parent)

    def counted(self) -> tuple[int, int]:
        """Space and time of the recorded sequences by the engine's count and the ends it never read (see the module)."""
        depth, read = self.depth, self.engine
        return read.tokens + len(self.ends), 2 * read.context - read.tokens + sum(2 * depth[end] - 1 for end in self.ends)


@dataclass(frozen=True)
class Candidate:
    """A candidate next token of one beam sequence, scored both ways."""

    token: int
    text: str
    probability: float
    mrm_reward: float
    prm_reward: float
    seen: bool
    kept: bool


@dataclass(frozen=True)
class Step:
    """One real step of Saffron-1 from one beam sequence, and what a PRM would have had to read for it."""

    prompt_id: int
    step: int
    prefix: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    mrm_calls: int
    prm_calls: int
    mrm_flops: float
    prm_flops: float


@dataclass(frozen=True)
class Record:
    """Recorded searches of one training seed, and the step drawn in Figure 1."""

    dataset: str
    searches: tuple[Search, ...]
    step: Step


def load(path: Path) -> Record:
    """Read ``trees.json``.

    Raises:
        RecordError: if it is missing or does not hold what Figures 1 and 3 need.
    """
    record = read_json(path)
    try:
        searches = [{"output": None, **entry, **entry["nodes"]} for entry in record["searches"]]
        step = {**record["step"], "prefix": record["step"]["prefix_text"]}
        result = TypeAdapter(Record).validate_python({"dataset": record["dataset"], "searches": searches, "step": step})
    except (KeyError, TypeError, ValidationError) as error:
        raise RecordError(f"{path}: not a record of searches ({_cause(error)}); run the search stage again") from None
    if not result.searches or not result.step.candidates:
        raise RecordError(f"{path}: searches or step.candidates is empty; run the search stage again")
    for search in result.searches:
        size = len(search.parent)
        if any(len(column) != size for column in (search.token, search.text, search.reward)):
            raise RecordError(f"{path}: searches.nodes: columns of different lengths; run the search stage again")
        if any(not -1 <= parent < node for node, parent in enumerate(search.parent)):
            raise RecordError(f"{path}: searches.nodes.parent: a node stands before its parent; run the search stage again")
        if search.output is not None and not 0 <= search.output < size:
            raise RecordError(f"{path}: searches.output: no node {search.output}; run the search stage again")
        if any(not 0 <= end < size for end in search.ends):
            raise RecordError(f"{path}: searches.ends: a node that is not there; run the search stage again")
    return result


def _cause(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"


def _errors(search: Search, cost: TrieCost) -> tuple[float, float]:
    """Deviations of Proposition 2's space and time."""
    space, time = search.counted()
    return float(max(abs(cost.space - search.size), abs(cost.space - space))), float(abs(cost.time - time))


def quantities(records: dict[int, Record]) -> dict[str, Estimate]:
    """Quantities of Figure 1 and Proposition 2, counted on the recorded searches by training seed.

    The errors are the largest deviations of Proposition 2's formulas: of space from the number of recorded nodes and from
    the engine's count, of time from the engine's count.
    """
    if not records:
        return {}
    saved = tuple(float(record.step.prm_calls - record.step.mrm_calls) for record in records.values())
    costs = {seed: [(search, search.cost()) for search in record.searches] for seed, record in records.items()}
    errors = [tuple(max(column) for column in zip(*(_errors(*pair) for pair in pairs), strict=True)) for pairs in costs.values()]
    space_errors, time_errors = zip(*errors, strict=True)
    time = tuple(sum(c.time for _, c in pairs) / sum(c.time_unshared for _, c in pairs) for pairs in costs.values())
    space = tuple(sum(c.space for _, c in pairs) / sum(c.space_unshared for _, c in pairs) for pairs in costs.values())
    n = sum(len(pairs) for pairs in costs.values())
    return {
        "figure1/prm_calls_saved": exact(sum(saved) / len(saved), n=len(saved), per_seed=saved),
        "proposition2/space_error": exact(max(space_errors), n=n, per_seed=space_errors),
        "proposition2/time_error": exact(max(time_errors), n=n, per_seed=time_errors),
        "proposition2/time_share": exact(sum(time) / len(time), n=n, per_seed=time),
        "proposition2/space_share": exact(sum(space) / len(space), n=n, per_seed=space),
    }
