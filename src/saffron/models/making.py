"""Stage models: tokenizer, policy, guards and DeepAlign policy, trained in the sandbox or fetched from the hub.

torch is imported inside the functions, as the tokenizer's job needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saffron import records
from saffron.config import ConfigError, as_dict
from saffron.jobs import ModelJob, beside
from saffron.layout import Layout
from saffron.models.loading import load_lm, load_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

#: Between the seed of a guard and that of the other guard beside it in the sandbox.
OTHER_SEED = 1000


def tokenizer(job: ModelJob, layout: Layout) -> None:
    """Write tokenizer and chat formats to ``layout.tokenizer``."""
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.tokenizer(job, layout)
    from saffron.models.sandbox import vocabulary

    settings = job.models.sandbox
    assert settings is not None  # checked by config.Models
    trained = vocabulary.train(records.read_table(layout.corpus, records.CORPUS), settings.vocab_size, settings.guard_question)
    with records.replacing_folder(layout.tokenizer) as folder:
        vocabulary.save(trained, settings.guard_question, folder)
    records.write_json(beside(layout.tokenizer), as_dict(job))


def policy(job: ModelJob, layout: Layout) -> None:
    """Write the policy to ``layout.model("policy", seed)``."""
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.policy(job, layout)
    from saffron.models.sandbox.policy import train_policy

    _train(train_policy, job, layout)


def guard(job: ModelJob, layout: Layout) -> None:
    """Write the guard, which is also the paper's judge, to ``layout.model("guard", seed)``."""
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.guard(job, layout)
    from saffron.models.sandbox.guard import train_guard

    _train(train_guard, job, layout)


def other_guard(job: ModelJob, layout: Layout) -> None:
    """Write the guard that no search reads to ``layout.model("other_guard", seed)``; the sandbox's is trained from another seed.

    Raises:
        ConfigError: outside the sandbox, if ``models.hub.other_guard`` does not say how.
    """
    if job.models.origin == "hub":
        from saffron.models import hub

        return hub.other_guard(job, layout)
    from saffron.models.sandbox.guard import train_guard

    def train(*arguments: Any) -> Any:
        settings, corpus, vocabulary, formats, own = arguments
        return train_guard(settings, corpus, vocabulary, formats, own + OTHER_SEED)

    _train(train, job, layout)


def deepalign(job: ModelJob, layout: Layout) -> None:
    """Write the DeepAlign policy of Section 5.6 to ``layout.model("deepalign", seed)``; it starts from the policy.

    Raises:
        ConfigError: outside the sandbox; the published DeepAlign policy has another tokenizer than the paper's policies.
    """
    if job.models.origin == "hub":
        raise ConfigError("search: policy deepalign exists only with models.from sandbox; remove the runs that use it")
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
