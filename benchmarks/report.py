"""The table of ``benchmarks/results.md`` from the JSON records beside it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.measure import ratio


def markdown(results: Path) -> str:
    """All tables for which there is a record."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    setup = records["setup"]
    lines = [
        f"Policy of {setup['policy_parameters'] / 1e6:.1f} M and MRM of {setup['mrm_parameters'] / 1e6:.1f} M parameters, "
        f"float32, {setup['prompt_tokens']} prompt tokens, {setup['new_tokens']} new tokens, {setup['threads']} torch thread(s), "
        f"torch {setup['torch']}, CPU. Seconds are CPU time, medians; ratios are medians of ratios taken turn by turn. "
        "A flat policy has random weights and a wide nucleus, a peaked one a nucleus of the size a trained model has.",
        "",
    ]
    parts = {
        "search": _search,
        "stand_in": _stand_in,
        "memory": _memory,
        "growth": _growth,
        "savings": _savings,
        "host_reads": _host_reads,
        "rewards": _rewards,
    }
    for name, table in parts.items():
        if name in records:
            lines += [*table(records[name]), ""]
    return "\n".join(lines)


def _cpu(row: dict[str, Any], name: str) -> list[float]:
    return row["seconds"][name]["cpu"]


def _search(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| prompts | N | policy | engine, s | bare forwards, s | plain batched, s | engine / bare | engine / plain | turns |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        engine, bare, plain = (_cpu(row, name) for name in ("engine", "bare_forwards", "plain_batched"))
        seconds = " | ".join(f"{statistics.median(values):.2f}" for values in (engine, bare, plain))
        lines.append(
            f"| {row['prompts']} | {row['width']} | {row['policy']} | {seconds} "
            f"| {ratio(engine, bare):.2f} | {ratio(engine, plain):.2f} | {len(engine)} |"
        )
    return [*lines, "", *_kv(rows)]


def _stand_in(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| per-token trie at N = 32 | s | times the engine | times the bare forwards |", "|---|---|---|---|"]
    for row in rows:
        for name, label in (("per_token_trie_4", "forwards of at most 4"), ("per_token_trie_n", "forwards of N")):
            values = _cpu(row, name)
            against = " | ".join(f"{ratio(values, _cpu(row, other)):.1f}" for other in ("engine", "bare_forwards"))
            lines.append(f"| {label} | {statistics.median(values):.2f} | {against} |")
    return lines


def _kv(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| prompts | N | policy | unique nodes | bytes of one | engine KV, MB | multiple | plain batched KV, MB | multiple |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        kv = row["kv"]
        columns = " | ".join(
            f"{kv['peak_bytes'][name] / 1e6:.1f} | {kv['multiple_of_unique_nodes'][name]:.2f}"
            for name in ("engine", "plain_batched")
        )
        nodes = f"{kv['unique_nodes']:.0f} | {kv['bytes_per_node']}"
        lines.append(f"| {row['prompts']} | {row['width']} | {row['policy']} | {nodes} | {columns} |")
    return lines


def _memory(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| implementation | prompts | N | peak resident memory grows by, MB |", "|---|---|---|---|"]
    return lines + [f"| {r['implementation']} | {r['prompts']} | {r['width']} | {r['bytes'] / 1e6:.0f} |" for r in rows]


def _growth(record: dict[str, Any]) -> list[str]:
    lines = ["| against | sizes | CPU seconds | time exponent | KV memory exponent |", "|---|---|---|---|---|"]
    for axis, row in record.items():
        sizes = ", ".join(map(str, row["sizes"]))
        seconds = ", ".join(f"{value:.2f}" for value in row["cpu_seconds"])
        lines.append(f"| {axis} | {sizes} | {seconds} | {row['time_exponent']:.2f} | {row['memory_exponent']:.2f} |")
    return lines


def _savings(record: list[dict[str, Any]]) -> list[str]:
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


def _host_reads(record: dict[str, Any]) -> list[str]:
    lines = [
        f"Host reads of a search that selects on the device (N = {record['width']}, compaction every {record['period']} steps; "
        "the reads without a compaction are those of the answers at the end):",
        "",
        "| steps | compactions | host reads |",
        "|---|---|---|",
    ]
    return lines + [f"| {run['steps']} | {run['compactions']} | {run['reads']} |" for run in record["runs"]]


def _rewards(record: dict[str, Any]) -> list[str]:
    labelling, training = record["labelling"], record["training"]
    targets = training["targets_per_second"]
    lines = ["| | packed | one prefix at a time | times faster | FLOP ratio | share of it reached |", "|---|---|---|---|---|---|"]
    for row in labelling:
        labels, share = row["labels_per_second"], 100 * row["share_of_flop_ratio"]
        lines.append(
            f"| Safety4M, labels per CPU second, {row['guard']} | {labels['packed']:.0f} "
            f"| {labels['one_forward_per_prefix']:.1f} | {row['speed_ratio']:.1f} | {row['flop_ratio']:.1f} | {share:.0f} % |"
        )
    return [
        *lines,
        f"| MRM training, targets per CPU second | {targets['packed']:.0f} | {targets['one_prefix_per_row']:.1f} "
        f"| {training['speed_ratio']:.1f} | | |",
        "",
        f"The share is {labelling[0]['definition']}.",
    ]
