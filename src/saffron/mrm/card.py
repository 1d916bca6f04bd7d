"""The model card of a trained MRM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saffron import cards, records
from saffron.config import MRM
from saffron.jobs import EvaluateJob
from saffron.layout import Layout

BIASES = {
    "trained": "trained from zero",
    "frozen_random": "an untouched random initialisation, as in the released weights",
    "absent": "none (zeros)",
}

#: What it is and how it is loaded; the same for every MRM.
WHAT = (
    "",
    "A multifurcation reward model (SAFFRON-1, section 4.1): one call gives M(s), a reward for every possible next",
    "token, where M(s)[a] predicts the guard's R of the response s + a.",
    "",
    "## Loading",
    "",
    "```python",
    "import saffron",
    "",
    'mrm = saffron.MRM.from_pretrained("<this folder, or its id on the hub>")',
    "outputs = policy.generate(**inputs, custom_generate=saffron.generate, mrm=mrm, width=32, max_new_tokens=32)",
    "```",
    "",
    "`merged/` alone is not the model: its architecture has no lm_head bias, so that transformers' `from_pretrained` leaves the",
    "one in `head.safetensors` out silently. `saffron.MRM` puts it in. Tokens marked in `unseen_mask` were never a target.",
    "",
)


def write(folder: Path, job: EvaluateJob, layout: Layout, evaluation: dict[str, Any]) -> None:
    """Write ``README.md`` beside the weights."""
    labels = records.read_json(layout.safety4m(job.seed) / "card.json")
    with records.replacing(folder / "README.md") as temporary:
        temporary.write_text(render(job, evaluation, labels))


def render(job: EvaluateJob, evaluation: dict[str, Any], labels: dict[str, Any]) -> str:
    """The card as markdown.

    Args:
        job: of the evaluation; names the config, the training seed and the variant.
        evaluation: the record ``evaluation.json``.
        labels: the record ``card.json`` of the Safety4M it learned from.
    """
    spans = evaluation["intervals"]
    return "\n".join(
        [
            *_front_matter(labels["guard"]),
            f"# Saffron-1, {job.config}, seed {job.seed}, variant {job.variant}",
            *WHAT,
            *(_loaded(job.mrm) if job.mrm.origin == "released" else _trained(job.mrm, job.variant, labels)),
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
            "Persistence, which predicts that a token changes nothing (M(s)[a] = R(s)), on the same prefixes: MAE"
            f" {_number(evaluation['persistence']['mae'])}, R² {_number(evaluation['persistence']['r_squared'])}.",
            "",
        ]
    )


def plain() -> str:
    """A card that says what can be said of any MRM."""
    return "\n".join([*_front_matter(None), "# Saffron-1", *WHAT])


def _front_matter(guard: str | None) -> list[str]:
    """What the hub reads of a card; the guard is named as the base where it is a model on the hub."""
    from huggingface_hub import ModelCardData

    base = guard if guard is not None and cards.is_hub_id(guard) else None
    tags = ["reward-model", "safety", "peft"]
    return cards.front_matter(ModelCardData(base_model=base, library_name="transformers", tags=tags))


def _trained(settings: MRM, variant: str, labels: dict[str, Any]) -> list[str]:
    rows = "prefixes, one a row" if settings.order == "paper" else "responses, all prefixes of one in one pass"
    train = labels["splits"].get("train", {"prefixes": 0})
    return [
        "## Training",
        "",
        f"- Starts from: {labels['guard']}. Labels: {labels['name']}, {train['prefixes']:,} prefixes in the train split.",
        f"- Conversations: {labels['source']['name']}. Licence: {labels['source']['licence']}.",
        f"- LoRA of rank {settings.lora_rank}, alpha {settings.lora_alpha:g}, dropout 0, on"
        f" {', '.join(settings.lora_modules)};"
        f" lm_head bias: {BIASES[settings.variants[variant].bias]}; its weight is frozen.",
        *_start(settings),
        "- Loss: squared error on the observed next token alone (Eq. 5).",
        f"- AdamW, betas 0.9 and 0.999, epsilon 1e-8, no weight decay, learning rate {settings.learning_rate:g}"
        f" ({settings.schedule}), batches of {settings.batch_size} {rows}, {settings.epochs:g} epochs.",
    ]


def _start(settings: MRM) -> list[str]:
    """What was done to the lm_head beforehand, without which the adapter alone is not the model."""
    centred = ", the rows of the two verdict words less their mean" if settings.centred_verdicts else ""
    changed = settings.unembedding_scale != 1 or settings.centred_verdicts
    weight = f"the guard's{centred}, times {settings.unembedding_scale:g}"
    return [f"- The lm_head's weight: {weight}; `adapter/` was trained with it."] if changed else []


def _loaded(settings: MRM) -> list[str]:
    return [
        "## Origin",
        "",
        "- The authors' released adapter, merged into the guard; nothing was trained here.",
        f"- The released lm_head bias is {'added' if settings.released_bias else 'left out (zeros)'}.",
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _span(bounds: list[float] | None) -> str:
    return "undefined" if bounds is None else f"{bounds[0]:.4f} to {bounds[1]:.4f}"
