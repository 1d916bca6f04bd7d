"""Making the sandbox's tokenizer and models: all are trained from scratch on the world's corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saffron import records
from saffron.config import as_dict
from saffron.jobs import ModelJob, beside
from saffron.layout import Layout
from saffron.models.loading import load_lm, load_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

#: Between the seed of a guard and that of the other guard beside it.
OTHER_SEED = 1000


def tokenizer(job: ModelJob, layout: Layout) -> None:
    """Write tokenizer and chat formats to ``layout.tokenizer``."""
    from saffron.models.sandbox import vocabulary

    settings = job.models.sandbox
    assert settings is not None  # checked by config.Models
    trained = vocabulary.train(records.read_table(layout.corpus, records.CORPUS), settings.vocab_size, settings.guard_question)
    with records.replacing_folder(layout.tokenizer) as folder:
        vocabulary.save(trained, settings.guard_question, folder)
    records.write_json(beside(layout.tokenizer), as_dict(job))


def policy(job: ModelJob, layout: Layout) -> None:
    """Write the policy's folder."""
    from saffron.models.sandbox.policy import train_policy

    _train(train_policy, job, layout)


def guard(job: ModelJob, layout: Layout) -> None:
    """Write the guard's folder."""
    from saffron.models.sandbox.guard import train_guard

    _train(train_guard, job, layout)


def other_guard(job: ModelJob, layout: Layout) -> None:
    """Write the folder of a guard that no search reads: trained alike from another seed."""
    from saffron.models.sandbox.guard import train_guard

    def train(*arguments: Any) -> Any:
        settings, corpus, vocabulary, formats, own = arguments
        return train_guard(settings, corpus, vocabulary, formats, own + OTHER_SEED)

    _train(train, job, layout)


def deepalign(job: ModelJob, layout: Layout) -> None:
    """Write the DeepAlign policy's folder; it starts from the policy."""
    from saffron.models.sandbox.policy import train_deepalign

    assert job.runtime is not None and job.seed is not None
    runtime = job.runtime.model_copy(update={"device": "cpu", "dtype": "float32"})
    start: Any = load_lm(layout.model("policy", job.seed), runtime).requires_grad_(True)

    def tune(*arguments: Any) -> Any:
        settings, *rest = arguments
        return train_deepalign(settings, start, *rest)

    _train(tune, job, layout)


def _train(function: Any, job: ModelJob, layout: Layout) -> None:
    """Train a sandbox model on one thread count, so that a seed gives the same bytes, and store it with its losses."""
    import torch

    from saffron.chat import ChatFormats

    settings = job.models.sandbox
    assert settings is not None and job.runtime is not None and job.seed is not None  # made by jobs.model
    torch.set_num_threads(job.runtime.torch_threads)
    corpus = records.read_table(layout.corpus, records.CORPUS)
    vocabulary, formats = load_tokenizer(layout.tokenizer), ChatFormats.load(layout.tokenizer)
    model: LlamaForCausalLM
    model, losses = function(settings, corpus, vocabulary, formats, job.seed)
    with records.replacing_folder(layout.model(job.which, job.seed)) as folder:
        model.save_pretrained(folder)
        records.write_table(folder / "losses.parquet", losses, records.LOSSES)
    records.write_json(beside(layout.model(job.which, job.seed)), as_dict(job))
