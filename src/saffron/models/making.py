"""Stage models: tokenizer, policy, guards and DeepAlign policy, trained in the sandbox, or fetched and trained further.

Both ways have the same functions; what a job's code is, is that of its own way alone (:func:`saffron.jobs.model`).
"""

from __future__ import annotations

from typing import Any

from saffron.config import ConfigError
from saffron.jobs import ModelJob
from saffron.layout import Layout


def _way(job: ModelJob) -> Any:
    if job.models.origin == "hub":
        from saffron.models import trained

        return trained
    from saffron.models.sandbox import making

    return making


def tokenizer(job: ModelJob, layout: Layout) -> None:
    """Write tokenizer and chat formats to ``layout.tokenizer``."""
    _way(job).tokenizer(job, layout)


def policy(job: ModelJob, layout: Layout) -> None:
    """Write the policy to ``layout.model("policy", seed)``."""
    _way(job).policy(job, layout)


def guard(job: ModelJob, layout: Layout) -> None:
    """Write the guard, which is also the paper's judge, to ``layout.model("guard", seed)``."""
    _way(job).guard(job, layout)


def other_guard(job: ModelJob, layout: Layout) -> None:
    """Write the guard that no search reads to ``layout.model("other_guard", seed)``.

    Raises:
        ConfigError: outside the sandbox, if ``models.hub.other_guard`` does not say how to train it.
    """
    _way(job).other_guard(job, layout)


def deepalign(job: ModelJob, layout: Layout) -> None:
    """Write the DeepAlign policy of Section 5.6 to ``layout.model("deepalign", seed)``; it starts from the policy.

    Raises:
        ConfigError: outside the sandbox; the published DeepAlign policy has another tokenizer than the paper's policies.
    """
    if job.models.origin == "hub":
        raise ConfigError("search: policy deepalign exists only with models.from sandbox; remove the runs that use it")
    _way(job).deepalign(job, layout)
