"""The benchmark's command on tiny models: what it writes, what it refuses, and how it goes on where memory ends."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import __main__ as command
from benchmarks import bandwidth, measure, methods, profiling, report, rewards, search, shapes, storage

from saffron.engine import compute
from saffron.methods import saffron
from saffron.methods.adaptive_best_of_n.search import looks
from saffron.methods.base import Block, SearchModels, SearchPrompt
from saffron.methods.saffron import algorithm
from saffron.methods.saffron.search import record as recorded

TINY = shapes.SHAPES["tiny"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments])
    threads = torch.get_num_threads()
    try:
        command.main()
    finally:
        torch.set_num_threads(threads)


def records(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_the_command_measures_tiny_models_as_it_would_on_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setitem(bandwidth.BYTES, "cpu", 1 << 20)
    monkeypatch.setattr(rewards, "SAMPLE", rewards.SAMPLE[:2])
    for module in (methods, search):
        monkeypatch.setattr(module, "NEW_TOKENS", 6)
    folder = tmp_path / "results-tiny"
    parts = ("bandwidth", "search", "methods", "rewards")
    given = ("--widths", "2", "--batches", "2", "--turns", "1", "--out", str(folder))
    run(monkeypatch, "--shapes", "tiny", "--device", "cpu", "--parts", *parts, *given)
    found = records(folder)
    assert found.keys() == {"setup", *parts}
    assert (found["setup"]["dtype"], found["setup"]["clock"], found["setup"]["device"]) == ("bfloat16", "cpu", "CPU")
    assert [(row["prompts"], row["width"], row["policy"]) for row in found["search"]] == [(2, 2, "flat"), (1, 32, "peaked")]
    assert all(len(row["seconds"][name]["wall"]) == 1 for row in found["search"] for name in command.CORE)
    assert [row["run"] for row in found["methods"]] == list(methods.RUNS)
    assert all(row["tokens_per_second"] > 0 and row["reward_calls"] > 0 for row in found["methods"])
    assert found["rewards"]["training"]["targets_per_second"]["packed"] > 0
    tables = (tmp_path / "results-tiny.md").read_text()
    assert "Memory bandwidth" in tables and "| saffron, scorer prm | 2 | 2 |" in tables and "out of memory" not in tables


def test_results_are_named_after_what_is_not_usual():
    names = [("40m-10m", "cpu"), ("llama3-8b", "cuda"), ("tiny", "cpu"), ("tiny", "cuda")]
    assert [command.destination(*each).name for each in names] == [
        "results",
        "results-cuda",
        "results-tiny",
        "results-tiny-cuda",
    ]


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    return capsys.readouterr().err.splitlines()[-1]


def test_a_gpu_that_is_not_there_is_one_clear_error(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = refused(monkeypatch, capsys, "--shapes", "llama3-8b", "--device", "cuda")
    assert "--device cuda" in message and "no GPU" in message


def test_parts_of_the_cpu_alone_are_refused_elsewhere(monkeypatch, capsys):
    assert "--shapes 40m-10m" in refused(monkeypatch, capsys, "--shapes", "tiny", "--parts", "memory")


def test_models_that_do_not_fit_are_refused_with_their_size(monkeypatch):
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(command, "pair", full)
    with pytest.raises(SystemExit, match="weights of 17 GB and more"):
        command.build(shapes.SHAPES["llama3-8b"], "cuda")


def test_the_real_shapes_are_those_of_the_papers_models():
    real = shapes.SHAPES["llama3-8b"]
    policy, guard = (shapes.llama(each, 0, device="meta", tied=tied) for each, tied in ((real.policy, False), (real.guard, True)))
    assert (shapes.parameters(policy), shapes.parameters(guard)) == (8_030_261_248, 1_235_814_400)


def test_a_peaked_policy_shares_all_but_its_unembedding():
    models = shapes.pair(TINY)
    sharp = shapes.peaked(models, 4.0)
    assert sharp.policy.model is models.policy.model and sharp.mrm is models.mrm
    assert torch.equal(sharp.policy.lm_head.weight, 4 * models.policy.lm_head.weight)


def test_who_runs_out_of_memory_is_left_out_and_the_rest_goes_on():
    calls = {"small": 0, "large": 0}

    def small() -> None:
        calls["small"] += 1

    def large() -> None:
        calls["large"] += 1
        if calls["large"] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    timings = measure.paired({"large": large, "small": small}, 4)
    assert calls == {"small": 5, "large": 3}
    assert (len(timings["large"].seconds), len(timings["small"].seconds)) == (1, 4)
    assert measure.memory(timings) == {"out_of_memory": ["large"]}


def test_a_gpus_turn_waits_for_the_device_and_notes_its_peak(monkeypatch):
    """CUDA's own calls are stood in for: they are told apart by the order they come in."""
    seen: list[str] = []
    peaks = iter([5, 3])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: seen.append("wait"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: seen.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: seen.append("peak") or next(peaks))
    device = torch.device("cuda")
    timings = measure.paired({"run": lambda: seen.append("run")}, 1, device=device)
    assert seen == 2 * ["wait", "reset", "run", "wait", "peak"]
    assert timings["run"].seconds is timings["run"].wall and len(timings["run"].wall) == 1
    assert measure.memory(timings) == {"peak_bytes": {"run": 5}}


def test_synchronisations_are_those_that_cuda_warns_of(monkeypatch):
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def run() -> None:
        for message in ("called a synchronizing CUDA operation", "another matter", "called a synchronizing CUDA operation"):
            warnings.warn(message, stacklevel=1)

    assert profiling._synchronisations(run) == 2
    assert modes == ["warn", "default"]


READS = {
    "item": lambda x: x.sum().item(),
    "tolist": lambda x: x.tolist(),
    "to": lambda x: x.to("cpu"),
    "cpu": lambda x: x.cpu(),
    "__bool__": lambda x: bool(x.sum() > 0),
    "nonzero": lambda x: torch.nonzero(x),
    "where": lambda x: torch.where(x > 0),
    "__getitem__": lambda x: x[0, x[0] > 0],
}


@pytest.mark.parametrize("name", READS)
def test_a_read_of_the_device_is_counted_under_its_name(name):
    with profiling.HostReads() as reads:
        READS[name](torch.ones(2, 3))
    assert reads.calls == [name]


def test_what_needs_no_contents_is_no_read():
    x, places = torch.ones(2, 3), torch.tensor([1, 0])
    with profiling.HostReads() as reads:
        x.to(x.device).to(torch.float64).gather(1, places.expand(2, 2))[places, :, None].masked_fill(x[:, :2, None] > 0, 0.0)
        torch.where(x > 0, x, 0.0)
    assert reads.calls == [] and reads.functions > 0


def stepping(monkeypatch: pytest.MonkeyPatch, also: Any = lambda logits: None) -> shapes.Pair:
    """Tiny models of searches of 7 new tokens (at N = 32 with one compaction), that do ``also`` in every step."""
    monkeypatch.setattr(profiling, "NEW_TOKENS", 7)
    probabilities = algorithm.probabilities

    def doing(logits: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        also(logits)
        return probabilities(logits, *given, **named)

    monkeypatch.setattr(algorithm, "probabilities", doing)
    return shapes.pair(TINY)


def test_a_search_that_selects_on_the_device_reads_once_per_compaction_whatever_its_width(monkeypatch):
    models = stepping(monkeypatch)
    narrow, wide = (profiling.steps(models, width) for width in (16, 32))
    assert (narrow.nodes, wide.nodes) == (6 * 16, 6 * 32)
    for found in (narrow, wide):
        assert found.step.total() == 0 and found.compaction == {"tolist": 1}
    assert narrow.reads == wide.reads
    assert wide.objects - narrow.objects < 16  # what other tests left behind may be freed meanwhile; 96 more nodes were read
    assert narrow.functions[0] == wide.functions[0] > 0


@pytest.mark.parametrize("name", READS)
def test_a_read_within_a_step_is_counted_there(monkeypatch, name):
    found = profiling.steps(stepping(monkeypatch, READS[name]), 32)
    assert found.step == {name: 1}
    assert found.compaction[name] == 1 + (name == "tolist")
    assert found.reads[name] == 7 + (name == "tolist") * 6


def test_objects_and_calls_of_every_node_are_seen(monkeypatch):
    held: list[Any] = []
    models = stepping(monkeypatch, lambda logits: held.extend([row[0]] for row in logits[0]))
    narrow, wide = (profiling.steps(models, width) for width in (4, 32))
    assert wide.objects - narrow.objects > 5 * (32 - 4)
    assert wide.functions[0] - narrow.functions[0] == 32 - 4


def test_the_profile_states_reads_objects_and_operations(monkeypatch, tmp_path):
    monkeypatch.setattr(profiling, "NEW_TOKENS", 7)
    run(monkeypatch, "--shapes", "tiny", "--parts", "profile", "--out", str(tmp_path / "results"))
    lines = (tmp_path / "results" / "profile.txt").read_text().splitlines()
    rows = [line.split() for line in lines]
    assert "selection on the device" in lines[0]
    [together] = [row for row in rows if row[:1] == ["together"]]
    assert together[2:] == ["0", "1"]
    assert [row[:2] for row in rows if row[:1] in (["4"], ["32"])] == [["4", "24"], ["32", "192"]]
    assert "aten::_local_scalar_dense: 0" in lines and "aten::nonzero: 0" in lines
    assert any(row[:1] == ["aten::mm"] for row in rows)
    methods_rows = {row["run"]: row for row in records(tmp_path / "results")["host_reads"]["methods"]}
    assert methods_rows.keys() == set(methods.RUNS)
    assert {name: row["step"] for name, row in methods_rows.items()} == {
        name: int(name == "saffron, scorer prm") for name in methods.RUNS
    }
    rounds = looks(first=1, most=16)  # each a search of its own
    assert {name: row["compaction"] for name, row in methods_rows.items()} == {
        name: len(rounds) if name == "adaptive_best_of_n" else 1 for name in methods.RUNS
    }
    assert methods_rows["best_of_n"]["rest"] == 10  # what samples cost is counted from one reading of them


def test_a_read_within_one_call_is_in_the_profile(monkeypatch):
    """``repeat_interleave`` reads the sum of its repeats, which no call of a tensor's method says."""
    repeats = torch.ones(TINY.policy.vocab_size, dtype=torch.int64)
    models = stepping(monkeypatch, lambda logits: logits[0, 0].repeat_interleave(repeats))
    lines = profiling.operations(models, (4,)).splitlines()
    [count] = [int(line.split()[1]) for line in lines if line.startswith("aten::_local_scalar_dense: ")]
    assert count >= 7


# ------------------------------------------------------------------------------------------------------------- storage
class Peaks:
    """The largest storage that each ledger was told of, in the order of the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.of: dict[int, int] = {}
        self.kept: list[compute.Ledger] = []  # so that no two share an id
        note = compute.Ledger.note_kv

        def noting(ledger: compute.Ledger, size: int) -> None:
            if id(ledger) not in self.of:
                self.kept.append(ledger)
            self.of[id(ledger)] = max(self.of.get(id(ledger), 0), size)
            note(ledger, size)

        monkeypatch.setattr(compute.Ledger, "note_kv", noting)

    def by_layers(self) -> dict[int, int]:
        """Policy and reward model are told apart by their layers."""
        return {ledger.shape.layers: self.of[id(ledger)] for ledger in self.kept}


def node_bytes(model: Any) -> int:
    """Keys and values of one token in float32."""
    return 2 * 4 * model.config.num_hidden_layers * model.config.num_key_value_heads * model.config.head_dim


def small_search(case: storage.Case) -> tuple[SearchModels, list[SearchPrompt]]:
    """The models and prompts of a case."""
    models, chat = shapes.peaked(shapes.pair(storage.shapes()), TINY.sharpness), methods.formats(storage.PREFIX, storage.SUFFIX)
    searched = SearchModels(policy=models.policy, guard=models.mrm, formats=chat, mrm=models.mrm)
    return searched, storage.prompts_of(case, TINY.policy.vocab_size)


def test_storage_of_saffron_is_a_multiple_of_the_nodes_of_its_trees(monkeypatch):
    monkeypatch.setattr(storage, "NEW_TOKENS", 6)
    case, peaks = storage.Case("saffron", 4, (5, 2)), Peaks(monkeypatch)
    [row] = storage.measure("cpu", [case])
    models, given = small_search(case)
    told = peaks.by_layers()
    results = recorded(Block(models, given, methods.KEY, 6), saffron.Settings(), 4)
    nodes = sum(case.lengths)
    for _, tree in results:
        depths: list[int] = []
        for parent, token in tree.nodes:
            depths.append(1 if parent < 0 else depths[parent] + 1)
            nodes += token != shapes.EOS and depths[-1] < 6  # the others are chosen and never read
    assert (row["run"], row["budget"], row["prompt_tokens"], row["new_tokens"]) == ("saffron", 4, [5, 2], 6)
    for name, model in (("policy", models.policy), ("reward", models.mrm)):
        found = row["tries"][name]
        assert found["nodes"] == nodes > sum(case.lengths)
        peak = told[model.config.num_hidden_layers]
        assert found["multiple"] == pytest.approx(peak / (nodes * node_bytes(model)))


def test_a_verdicts_suffix_is_no_node(monkeypatch):
    monkeypatch.setattr(storage, "NEW_TOKENS", 6)
    case, peaks = storage.Case("best_of_n", 1, (3,)), Peaks(monkeypatch)
    [row] = storage.measure("cpu", [case])
    models, given = small_search(case)
    told = peaks.by_layers()
    [result] = methods.search("best_of_n", Block(models, given, methods.KEY, 6), 1)
    read = {"policy": 3 + len(result.output_ids) - 1, "reward": 3 + len(result.output_ids)}
    for name, model in (("policy", models.policy), ("reward", models.guard)):
        found = row["tries"][name]
        assert found["nodes"] == read[name]
        assert found["multiple"] == pytest.approx(told[model.config.num_hidden_layers] / (read[name] * node_bytes(model)))


def test_nuclei_of_one_token_are_a_single_chain(monkeypatch):
    monkeypatch.setattr(storage, "NEW_TOKENS", 6)
    [row] = storage.measure("cpu", [storage.Case("saffron", 4, (3,), "one-token nuclei")])
    assert row["tries"]["policy"]["nodes"] == row["tries"]["reward"]["nodes"] <= 3 + 5


def test_every_method_has_a_case_of_equal_and_of_unequal_prompts():
    found = {(case.run, len(set(case.lengths)) > 1) for case in storage.CASES}
    assert found >= {(run, unequal) for run in methods.RUNS for unequal in (False, True)}


def test_a_part_without_memory_does_not_end_the_run(monkeypatch, tmp_path, capsys):
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(bandwidth.BYTES, "cpu", 1 << 20)
    monkeypatch.setattr(command, "run_stand_in", full)
    run(monkeypatch, "--shapes", "tiny", "--parts", "stand_in", "bandwidth", "--out", str(tmp_path / "results"))
    found = records(tmp_path / "results")
    assert found.keys() == {"setup", "bandwidth"} and found["setup"]["out_of_memory"] == ["stand_in"]
    assert "out of memory: stand_in." in (tmp_path / "results.md").read_text()
    assert "stand_in: out of memory" in capsys.readouterr().out


def test_floors_are_bytes_over_the_higher_bandwidth():
    record = {"bytes_per_second": {"read": 100.0, "copied": 200.0}, "weights": 1000, "kv_per_token": 10}
    found = bandwidth.floors(record, prompts=2, width=4, prompt_tokens=6, new_tokens=3)
    assert found == {"tree": (1000 + 2 * (6 + 4) * 10) / 200, "rows": (1000 + 2 * 4 * (6 + 2) * 10) / 200}


def test_tables_of_a_gpu_state_wall_time_memory_and_what_did_not_fit(tmp_path):
    setup = {"policy_parameters": 8e9, "mrm_parameters": 1e9, "dtype": "bfloat16", "prompt_tokens": 60, "new_tokens": 10}
    setup |= {"threads": 1, "torch": "2", "device": "Some GPU", "clock": "wall"}
    seconds = {name: {"cpu": [9.0], "wall": [2.0]} for name in ("engine", "bare_forwards")}
    row = {"prompts": 16, "width": 64, "policy": "flat", "seconds": seconds | {"plain_batched": {"cpu": [], "wall": []}}}
    row |= {"peak_bytes": dict.fromkeys(command.CORE, 20_000_000_000), "out_of_memory": ["plain_batched"]}
    rates = {"bytes_per_second": {"read": 1e12, "copied": 2e12}, "weights": 2e10, "kv_per_token": 0}
    for name, record in {"setup": setup, "search": [row], "bandwidth": rates}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    tables = report.markdown(tmp_path)
    assert "Some GPU. Seconds are wall time" in tables
    assert "| 16 | 64 | flat | 2.00 | 2.00 | out of memory | 1.00 | out of memory | 1 |" in tables
    assert "| 16 | 64 | flat | 20.0 | 20.0 | 20.0 |" in tables
    assert "| 16 | 64 | flat | 200.00 | 10.00 | 20.00 | 200.00 | 10.00 | 20.00 |" in tables


def test_the_tables_beside_the_records_are_made_from_them():
    assert (command.HERE / "results.md").read_text() == report.markdown(command.HERE / "results")
