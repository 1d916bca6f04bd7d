"""The table of ``benchmarks/results.md`` from the JSON records beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.bandwidth import floors
from benchmarks.measure import SECONDS, median, ratio

#: What seconds are, by clock.
CLOCKS = {"cpu": "CPU time", "wall": "wall time between idle states of the device"}


def markdown(results: Path) -> str:
    """All tables for which there is a record."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    setup = records["setup"]
    lines = [
        f"Policy of {setup['policy_parameters'] / 1e6:.1f} M and MRM of {setup['mrm_parameters'] / 1e6:.1f} M parameters, "
        f"{setup['dtype']}, {setup['prompt_tokens']} prompt tokens, {setup['new_tokens']} new tokens, "
        f"{setup['threads']} torch thread(s), torch {setup['torch']}, {setup['device']}. "
        f"Seconds are {CLOCKS[setup['clock']]}, medians; ratios are medians of ratios taken turn by turn. "
        "A flat policy has random weights and a wide nucleus, a peaked one a nucleus of the size a trained model has.",
        "",
    ]
    if "out_of_memory" in setup:
        lines += [f"Ended early, out of memory: {', '.join(setup['out_of_memory'])}.", ""]
    parts = {
        "search": _search,
        "floors": _floors,
        "stand_in": _stand_in,
        "memory": _memory,
        "storage": _storage,
        "growth": _growth,
        "savings": _savings,
        "methods": _methods,
        "host_reads": _host_reads,
        "rewards": _rewards,
    }
    if "bandwidth" in records and "search" in records:
        records["floors"] = {"setup": setup, "bandwidth": records["bandwidth"], "rows": records["search"]}
    clock = setup["clock"]
    for name, table in parts.items():
        if name in records:
            lines += [*table(records[name], clock), ""]
    return "\n".join(lines)


def _number(value: float | None, digits: int, unit: str = "", factor: float = 1.0) -> str:
    """A number, or what stands in its place where memory did not suffice."""
    return "out of memory" if value is None else f"{value * factor:.{digits}f}{unit}"


def _search(rows: list[dict[str, Any]], clock: str) -> list[str]:
    lines = [
        "| prompts | N | policy | engine, s | bare forwards, s | plain batched, s | engine / bare | engine / plain | turns |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    names = ("engine", "bare_forwards", "plain_batched")
    for row in rows:
        engine, bare, plain = (row["seconds"][name][clock] for name in names)
        seconds = " | ".join(_number(median(values), 2) for values in (engine, bare, plain))
        lines.append(
            f"| {row['prompts']} | {row['width']} | {row['policy']} | {seconds} "
            f"| {_number(ratio(engine, bare), 2)} | {_number(ratio(engine, plain), 2)} | {len(engine)} |"
        )
    lines += ["", *_kv([row for row in rows if "kv" in row])]
    if any("peak_bytes" in row for row in rows):
        lines += ["", *_peaks([(f"{row['prompts']} | {row['width']} | {row['policy']}", row) for row in rows], names)]
    return lines


def _peaks(rows: list[tuple[str, dict[str, Any]]], names: tuple[str, ...]) -> list[str]:
    """Peak memory of a GPU."""
    titles = " | ".join(f"{name.replace('_', ' ')}, GB" for name in names)
    lines = [f"| prompts | N | policy | peak GPU memory, weights included: {titles} |", "|---" * (3 + len(names)) + "|"]
    for key, row in rows:
        lines.append(f"| {key} | " + " | ".join(f"{row['peak_bytes'][name] / 1e9:.1f}" for name in names) + " |")
    return lines


def _floors(record: dict[str, Any], clock: str) -> list[str]:
    setup, rates = record["setup"], record["bandwidth"]["bytes_per_second"]
    lines = [
        f"Memory bandwidth of the device: {rates['read'] / 1e9:.0f} GB/s read (a sum), {rates['copied'] / 1e9:.0f} GB/s read "
        "and written (a copy). Floor of a step at the higher of the two: the weights of policy and MRM once "
        f"({record['bandwidth']['weights'] / 1e9:.2f} GB), and the keys and values of the prompts and the beam's newest tokens "
        "(a tree's least), or of every sequence's whole context (rows of a batch). Wall time, prompts' reading included:",
        "",
        "| prompts | N | policy | engine, ms per step | floor of a tree, ms | engine / floor | bare forwards, ms per step "
        "| floor of rows, ms | bare / floor |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        least = floors(record["bandwidth"], row["prompts"], row["width"], setup["prompt_tokens"], setup["new_tokens"])
        cells = []
        for name, floor in (("engine", least["tree"]), ("bare_forwards", least["rows"])):
            whole = median(row["seconds"][name]["wall"])
            step = None if whole is None else whole / setup["new_tokens"]
            times = None if step is None else step / floor
            cells += [_number(step, 2, factor=1e3), f"{floor * 1e3:.2f}", _number(times, 2)]
        lines.append(f"| {row['prompts']} | {row['width']} | {row['policy']} | {' | '.join(cells)} |")
    return lines


def _stand_in(rows: list[dict[str, Any]], clock: str) -> list[str]:
    lines = ["| per-token trie at N = 32 | s | times the engine | times the bare forwards |", "|---|---|---|---|"]
    for row in rows:
        for name, label in (("per_token_trie_4", "forwards of at most 4"), ("per_token_trie_n", "forwards of N")):
            values = row["seconds"][name][clock]
            others = (row["seconds"][other][clock] for other in ("engine", "bare_forwards"))
            against = " | ".join(_number(ratio(values, other), 1) for other in others)
            lines.append(f"| {label} | {_number(median(values), 2)} | {against} |")
    return lines


def _kv(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| prompts | N | policy | unique nodes | bytes of one | engine KV, MB | multiple | plain batched KV, MB | multiple |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kv = row["kv"]
        columns = " | ".join(
            f"{_number(kv['peak_bytes'].get(name), 1, factor=1e-6)} | {_number(kv['multiple_of_unique_nodes'].get(name), 2)}"
            for name in ("engine", "plain_batched")
        )
        nodes = f"{kv['unique_nodes']:.0f} | {kv['bytes_per_node']}"
        lines.append(f"| {row['prompts']} | {row['width']} | {row['policy']} | {nodes} | {columns} |")
    return lines


def _memory(rows: list[dict[str, Any]], clock: str) -> list[str]:
    lines = ["| implementation | prompts | N | peak resident memory grows by, MB |", "|---|---|---|---|"]
    return lines + [f"| {r['implementation']} | {r['prompts']} | {r['width']} | {r['bytes'] / 1e6:.0f} |" for r in rows]


#: Above this a row says so.
ALLOWED = 1.1
REASONS = (
    "best_of_n: each sample has a row of its own, so that none attends over the others' tokens (time, paid for with memory): "
    "what samples share is held once for each of them. The guard reads whole samples and keeps none.",
    "beam_search, deal: nodes of children and rollouts that were read and dropped count, and their storage is used again, so "
    "that they lie lower.",
    "rebase, saffron on a CPU: the host sees how many sequences go on and reads these alone. What is above 1 is the room for the "
    "steps up to the next compaction, nodes that died since the last one, the prompts of a batch that hold fewer nodes than the "
    "fullest, and the keys or values of one layer, which are held twice while storage grows.",
    "rebase, saffron on a GPU: to see how many sequences go on, the host would have to wait for the device in every step (time, "
    "paid for with memory). N rows are read and N nodes reserved for each step up to the next compaction; where N samples spell "
    "the same few sequences, or a nucleus is a single token, most of these nodes are filler. Such searches are the small ones.",
)


def _storage(rows: list[dict[str, Any]], clock: str) -> list[str]:
    lines = [
        "Peak storage over (unique nodes x bytes of one node) of every method, each model's trie on its own, sequences free to "
        "end (small models, on whose sizes the multiple does not depend, of as many layers as policy and MRM of 40 M and 10 M "
        f"parameters; {rows[0]['new_tokens']} new tokens). A host beside a CPU sees in every step how many rows there are, one "
        "beside a GPU at compactions; the latter is what a search does on a GPU, done here on a CPU.",
        "",
        "| beside a | method | N | prompt tokens | policy | policy nodes | multiple | reward nodes | multiple | above 1.1 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tries = row["tries"]
        cells = " | ".join(f"{tries[name]['nodes']:.0f} | {tries[name]['multiple']:.2f}" for name in ("policy", "reward"))
        above = [{"policy": "policy", "reward": "reward model"}[name] for name in tries if tries[name]["multiple"] > ALLOWED]
        first = f"| {row['host'].upper()} | {row['run']} | {row['budget']} | {_lengths(row['prompt_tokens'])} | {row['policy']}"
        lines.append(f"{first} | {cells} | {', '.join(above) or 'no'} |")
    return [*lines, "", *(f"- {reason}" for reason in REASONS)]


def _lengths(tokens: list[int]) -> str:
    same = len(tokens) > 3 and len(set(tokens)) == 1
    return f"{len(tokens)} x {tokens[0]}" if same else ", ".join(map(str, tokens))


def _growth(record: dict[str, Any], clock: str) -> list[str]:
    second = SECONDS[clock]
    lines = [f"| against | sizes | {second}s | time exponent | KV memory exponent |", "|---|---|---|---|---|"]
    for axis, row in record.items():
        sizes = ", ".join(map(str, row["sizes"]))
        seconds = ", ".join(f"{value:.2f}" for value in row[f"{clock}_seconds"])
        exponents = " | ".join(_number(row[f"{what}_exponent"], 2) for what in ("time", "memory"))
        lines.append(f"| {axis} | {sizes} | {seconds} | {exponents} |")
    return lines


def _savings(record: list[dict[str, Any]], clock: str) -> list[str]:
    lines = [
        "| work left out | prompts | N | CPU s without | with | time ratio | executed FLOP ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record:
        seconds = row["cpu_seconds"]
        lines.append(
            f"| {row['what']} | {row['prompts']} | {row['width']} | {seconds['without']:.2f} | {seconds['with']:.2f} "
            f"| {row['time_ratio']:.2f} | {row['flop_ratio']:.2f} |"
        )
    return lines


def _methods(rows: list[dict[str, Any]], clock: str) -> list[str]:
    lines = [
        "One prompt batch of every search method by the pipeline's own code (a peaked policy; default settings of each method; "
        "guard and MRM are one model). Tokens are those of the answers, FLOPs those executed.",
        "",
        "| method | budget | prompts | s | tokens/s | TFLOP/s | PRM or MRM calls | peak GPU memory, GB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peak = row.get("peak_bytes", {}).get(row["run"])
        cells = (
            _number(median(row["seconds"][clock]), 2),
            _number(row.get("tokens_per_second"), 1),
            _number(row.get("executed_flops_per_second"), 3, factor=1e-12),
            _number(row.get("reward_calls"), 0),
            "–" if peak is None else f"{peak / 1e9:.1f}",
        )
        lines.append(f"| {row['run']} | {row['budget']} | {row['prompts']} | {' | '.join(cells)} |")
    return lines


def _host_reads(record: dict[str, Any], clock: str) -> list[str]:
    lines = [
        f"Host reads of a search that selects on the device (N = {record['width']}, compaction every {record['period']} steps; "
        "the reads without a compaction are those of the answers at the end):",
        "",
        "| steps | compactions | host reads |",
        "|---|---|---|",
    ]
    lines += [f"| {run['steps']} | {run['compactions']} | {run['reads']} |" for run in record["runs"]]
    lines += [
        "",
        "The same of every method, counted as calls that read a tensor (on a GPU: as what CUDA reports as synchronising). With "
        "`scorer: prm` each candidate is a row of the guard's forward, and only the policy's distribution says how many there "
        "are: that number is read, the one copy inside a step of any method that selects on the device. (On a CPU, and wherever "
        "a tree is recorded, Saffron-1 lists its candidates on the host in every step.)",
        "",
        "| method | in a step | in a compaction | at the end |",
        "|---|---|---|---|",
    ]
    return lines + [f"| {row['run']} | {row['step']} | {row['compaction']:g} | {row['rest']:g} |" for row in record["methods"]]


def _rewards(record: dict[str, Any], clock: str) -> list[str]:
    second = SECONDS[clock]
    lines = ["| | packed | one prefix at a time | times faster | FLOP ratio | share of it reached |", "|---|---|---|---|---|---|"]
    for row in record["labelling"]:
        labels = row["labels_per_second"]
        lines.append(
            f"| Safety4M, labels per {second}, {row['guard']} | {_number(labels['packed'], 0)} "
            f"| {_number(labels['one_forward_per_prefix'], 1)} | {_number(row.get('speed_ratio'), 1)} "
            f"| {_number(row.get('flop_ratio'), 1)} | {_number(row.get('share_of_flop_ratio'), 0, ' %', 100)} |"
        )
    training = [record["training"]] if "training" in record else []
    for row in training:
        targets = row["targets_per_second"]
        lines.append(
            f"| MRM training, targets per {second} | {_number(targets['packed'], 0)} "
            f"| {_number(targets['one_prefix_per_row'], 1)} | {_number(row['speed_ratio'], 1)} | | |"
        )
    definitions = [row["definition"] for row in record["labelling"] if "definition" in row]
    lines += ["", f"The share is {definitions[0]}."] if definitions else []
    peaks = [
        f"{row.get('guard', 'MRM training')} {row['peak_bytes']['packed'] / 1e9:.1f} GB"
        for row in (*record["labelling"], *training)
        if "peak_bytes" in row
    ]
    lines += ["", f"Peak GPU memory of the packed pass, weights of policy and MRM included: {', '.join(peaks)}."] if peaks else []
    return lines
