"""The model card of a trained MRM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saffron import records
from saffron.config import Config
from saffron.layout import Layout

BIASES = {
    "trained": "trained from zero",
    "frozen_random": "an untouched random initialisation, as in the released weights",
    "absent": "none (zeros)",
}


def write(folder: Path, config: Config, layout: Layout, seed: int, variant: str, evaluation: dict[str, Any]) -> None:
    """Write ``README.md`` beside the weights."""
    labels = records.read_json(layout.safety4m(seed) / "card.json")
    with records.replacing(folder / "README.md") as temporary:
        temporary.write_text(render(config, seed, variant, evaluation, labels))


def render(config: Config, seed: int, variant: str, evaluation: dict[str, Any], labels: dict[str, Any]) -> str:
    """The card as markdown.

    Args:
        config: the whole config.
        seed: of the training.
        variant: name in ``mrm.variants``.
        evaluation: the record ``evaluation.json``.
        labels: the record ``card.json`` of the Safety4M it learned from.
    """
    spans = evaluation["intervals"]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "tags: [reward-model, safety, peft]",
            "---",
            f"# Saffron-1, {config.name}, seed {seed}, variant {variant}",
            "",
            "A multifurcation reward model (SAFFRON-1, section 4.1): one call gives M(s), a reward for every possible next",
            "token, where M(s)[a] predicts the guard's R of the response s + a.",
            "",
            "## Loading",
            "",
            "```python",
            "from saffron.config import Runtime",
            "from saffron.models import load_mrm",
            "",
            'model, unseen = load_mrm("<this folder>", Runtime())',
            "```",
            "",
            "`merged/` alone is not the model: its architecture has no unembedding bias, so that `from_pretrained` leaves the",
            "one in `head.safetensors` out without a word. `load_mrm` puts it in. Tokens marked in `unseen_mask` were never a",
            "target.",
            "",
            *(_loaded(config) if config.mrm.origin == "released" else _trained(config, variant, labels)),
            "",
            "## Agreement with the guard on held-out prefixes",
            "",
            f"{evaluation['n_points']:,} of {evaluation['held_out_prefixes']:,} prefixes of the test split;"
            f" {100 * evaluation['confidence']:g} % intervals by bootstrap over responses.",
            "",
            "| statistic | value | interval |",
            "|---|---:|---|",
            *(f"| {name} | {_number(evaluation[name])} | {_span(spans[name])} |" for name in spans),
            "",
        ]
    )


def _trained(config: Config, variant: str, labels: dict[str, Any]) -> list[str]:
    settings = config.mrm
    rows = "prefixes, one a row" if settings.order == "paper" else "responses, all prefixes of one in one pass"
    train = labels["splits"].get("train", {"prefixes": 0})
    return [
        "## Training",
        "",
        f"- Starts from: {labels['guard']}. Labels: {labels['name']}, {train['prefixes']:,} prefixes in the train split.",
        f"- LoRA of rank {settings.lora_rank}, alpha {settings.lora_alpha:g}, dropout 0, on q_proj and v_proj;"
        f" unembedding bias: {BIASES[settings.variants[variant].bias]}; its weight is frozen.",
        "- Loss: squared error on the observed next token alone (Eq. 5).",
        f"- AdamW, betas 0.9 and 0.999, epsilon 1e-8, no weight decay, learning rate {settings.learning_rate:g}"
        f" ({settings.schedule}), batches of {settings.batch_size} {rows}, {settings.epochs:g} epochs.",
    ]


def _loaded(config: Config) -> list[str]:
    return [
        "## Origin",
        "",
        "- The authors' released adapter, merged into the guard; nothing was trained here.",
        f"- The released unembedding bias is {'added' if config.mrm.released_bias else 'left out (zeros)'}.",
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _span(bounds: list[float] | None) -> str:
    return "undefined" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
