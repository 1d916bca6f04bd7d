"""The dataset card: what was labelled, what was dropped and why, and how the rewards are distributed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from saffron import cards, records
from saffron.jobs import LabelJob
from saffron.layout import Layout
from saffron.sources.conversations import Counts

#: The side of an answer that the policy has rewritten.
ON_POLICY = "on_policy"

#: Edges of the reward histogram, in logits; the outer bins are open.
EDGES = [-10.0, -8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


def summarise(job: LabelJob, layout: Layout, counts: Counts, labels: pd.DataFrame, unseen: np.ndarray) -> dict[str, Any]:
    """The record ``card.json``.

    Args:
        job: names the sources and the guard, and its settings are quoted.
        layout: of this config.
        counts: where each assistant turn went before labelling.
        labels: a records.SAFETY4M table.
        unseen: bool[V], true for tokens that are never a target in the train split.
    """
    rewards = np.concatenate(labels["rewards"].tolist()) if len(labels) else np.empty(0)
    prefixes = labels["rewards"].map(len)
    on_policy = {} if job.on_policy is None else {"on_policy": _on_policy(job, labels)}
    labelled_rows = len(labels[["split", "source_row"]].drop_duplicates())
    return {
        "name": f"Safety4M, {job.config}",
        "source": source(layout),
        "guard": job.guard,
        "max_tokens": job.safety4m.max_tokens,
        "turns": job.safety4m.turns,
        "end_of_sequence": job.safety4m.end_of_sequence,
        "source_rows": {"total": counts.rows, "with_labels": labelled_rows, "without_labels": counts.rows - labelled_rows},
        "responses": {
            "assistant_turns": counts.turns,
            "not_selected": counts.not_selected,
            "without_prompt": counts.without_prompt,
            "empty": counts.empty,
            "duplicates": counts.duplicates,
            "outside_the_window": counts.kept - len(labels),
            "labelled": len(labels),
        },
        "conversations_without_response": counts.conversations_without_response,
        **on_policy,
        "splits": {
            split: {"responses": int(mask.sum()), "prefixes": int(prefixes[mask].sum())}
            for split, mask in ((name, labels["split"] == name) for name in sorted(labels["split"].unique()))
        },
        "prefixes_per_source_row": round(int(prefixes.sum()) / counts.rows, 3) if counts.rows else 0.0,
        "rewards": _distribution(rewards),
        "vocabulary": {"size": len(unseen), "unseen": int(unseen.sum())},
        "digests": {"conversations": records.sha256(layout.conversations)},
    }


def _on_policy(job: LabelJob, labels: pd.DataFrame) -> dict[str, Any]:
    """What part of the labels is on the policy's own answers."""
    assert job.on_policy is not None
    train = labels[labels["split"] == "train"]
    own = train[train["side"] == ON_POLICY]
    prefixes = int(own["rewards"].map(len).sum())
    return {
        "share": job.safety4m.on_policy_share,
        "prefill_tokens": job.on_policy.prefill_tokens,
        "max_new_tokens": job.on_policy.max_new_tokens,
        "responses": len(own),
        "prefixes": prefixes,
        "fraction_of_train_responses": len(own) / len(train) if len(train) else 0.0,
        "fraction_of_train_prefixes": prefixes / int(train["rewards"].map(len).sum()) if len(train) else 0.0,
        "rewards": _distribution(np.concatenate(own["rewards"].tolist()) if len(own) else np.empty(0)),
    }


def source(layout: Layout) -> dict[str, str]:
    """Name, licence and the hub's word for the licence of the conversations that were read.

    Raises:
        RecordError: if there is no record of the sources.
    """
    origin = records.read_json(layout.sources_record, ("origins",))["origins"]["conversations"]
    name = origin["name"]
    if "revision" in origin:
        name += f", {origin['revision']}" if origin["revision"] == "local mirror" else f" at revision {origin['revision']}"
    if "split" in origin:
        name += f", its split {origin['split']}"
    return {"name": name, "licence": origin["licence"], "licence_id": origin["licence_id"]}


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write ``card.json`` and the same as ``README.md``, a dataset card in the hub's form."""
    records.write_json(folder / "card.json", record)
    with records.replacing(folder / "README.md") as temporary:
        temporary.write_text(render(record))


def render(record: dict[str, Any]) -> str:
    """The card as markdown."""
    from huggingface_hub import DatasetCardData

    rewards, rows, vocabulary = record["rewards"], record["source_rows"], record["vocabulary"]
    source = record["source"]
    lines = [
        *cards.front_matter(
            DatasetCardData(
                pretty_name=record["name"],
                license=cards.licence(source["licence_id"]),
                configs=[{"config_name": "default", "data_files": "labels.parquet"}],
            )
        ),
        f"# {record['name']}",
        "",
        "Token-level safety rewards: for every prefix of every response, R = logit(safe) - logit(unsafe) of the guard",
        "(SAFFRON-1, sections 3.1 and 4.2).",
        "",
        f"- Source: {source['name']}. Licence: {source['licence']}.",
        f"- Guard: {record['guard']}.",
        f"- Assistant turns: `{record['turns']}`; prompt and response cut to the first {record['max_tokens']} tokens"
        + (", EOS being the last token of a response that fits." if record["end_of_sequence"] else "; EOS is never a target."),
        *_rewritten(record.get("on_policy")),
        f"- {rows['total']:,} source rows, {rows['with_labels']:,} with at least one label;"
        f" {record['prefixes_per_source_row']} prefixes per source row.",
        f"- {vocabulary['unseen']:,} of {vocabulary['size']:,} tokens are never a target in the train split"
        " (`unseen_mask.safetensors`).",
        "",
        "## Columns of labels.parquet",
        "",
        "`input_ids` holds prompt and response without a template; the response begins at `response_start`;",
        "`rewards[i]` belongs to the prefix that ends with response token i. `conversation_id` is split, source row, side and",
        "turn. A later turn's prompt is all earlier text, its first header left out.",
        "",
        "## Splits",
        "",
        "| split | responses | prefixes |",
        "|---|---:|---:|",
        *(f"| {name} | {part['responses']:,} | {part['prefixes']:,} |" for name, part in record["splits"].items()),
        "",
        "## Where every assistant turn went",
        "",
        "| | turns |",
        "|---|---:|",
        *(f"| {name.replace('_', ' ')} | {count:,} |" for name, count in record["responses"].items()),
        "",
        f"{record['conversations_without_response']:,} conversations have no assistant turn. Of two equal (prompt, response)",
        "pairs the first is kept, the train split first, so that no pair of the test split was trained on.",
        "",
        "## Rewards",
        "",
    ]
    if rewards["count"]:
        lines += [
            f"Mean {rewards['mean']:.3f}, standard deviation {rewards['standard_deviation']:.3f}, range {rewards['min']:.2f} to"
            f" {rewards['max']:.2f}; {100 * rewards['fraction_negative']:.1f} % are negative.",
            "",
            "| R | prefixes |",
            "|---|---:|",
            *(f"| {name} | {count:,} |" for name, count in zip(_bins(rewards["edges"]), rewards["histogram"], strict=True)),
            "",
        ]
    return "\n".join(lines)


def _rewritten(own: dict[str, Any] | None) -> list[str]:
    """What the card says of the policy's own answers."""
    if own is None:
        return []
    return [
        f"- {own['responses']:,} answers of the train split ({own['prefixes']:,} prefixes,"
        f" {100 * own['fraction_of_train_prefixes']:.1f} % of that split's) are the policy's own under attack, side `on_policy`:"
        f" their first {own['prefill_tokens']} tokens are those of an answer of the source, and at most"
        f" {own['max_new_tokens']} tokens after them were drawn from the policy."
    ]


def _distribution(rewards: np.ndarray) -> dict[str, Any]:
    if not len(rewards):
        return {"count": 0}
    histogram, _ = np.histogram(rewards, [-np.inf, *EDGES, np.inf])
    return {
        "count": len(rewards),
        "mean": float(rewards.mean(dtype=np.float64)),
        "standard_deviation": float(rewards.std(dtype=np.float64)),
        "min": float(rewards.min()),
        "max": float(rewards.max()),
        "fraction_negative": float((rewards < 0).mean()),
        "edges": EDGES,
        "histogram": histogram.tolist(),
    }


def _bins(edges: list[float]) -> list[str]:
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and above"]
