"""What is added to stored outputs without searching again: an independent judge's reward and the policy's likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from saffron import records
from saffron.config import as_dict
from saffron.jobs import AssessJob, beside
from saffron.layout import Layout

if TYPE_CHECKING:
    from saffron.search.inputs import AttackedPrompt

#: Columns that name an output.
OUTPUT = ("dataset", "prompt_id", "method", "budget", "settings_id", "train_seed", "search_seed")
#: One row per row of a records.SEARCH table. ``log_likelihood`` is the mean of log p(token) under the policy;
#: ``independent_reward`` the R of a judge that no search read, null if there is none.
ASSESSMENT = pa.schema(
    [*map(records.SEARCH.field, OUTPUT), ("log_likelihood", pa.float64()), ("independent_reward", pa.float64())]
)
#: Outputs per forward pass.
BATCH = 64


def assess(job: AssessJob, layout: Layout) -> None:
    """Assess every output of an experiment and write ``layout.assessment``.

    Raises:
        RecordError: if the search table or a prompt set is missing.
        ModelError: if a model is missing.
    """
    import torch

    from saffron import models
    from saffron.methods.base import SearchModels
    from saffron.methods.verdicts import judge
    from saffron.models import device
    from saffron.search.inputs import Inputs

    first = job.runs[0]
    seed, experiment, runtime = first.seed, first.experiment, first.runtime
    torch.set_num_threads(runtime.torch_threads)
    table = records.read_table(layout.search(seed, experiment), records.SEARCH)
    policy = models.load_lm(layout.model("policy", seed), runtime)
    independent = models.load_lm(layout.model("judge", seed), runtime) if job.judge else None
    parts, batch = [], BATCH
    for run in job.runs:
        inputs = Inputs(run, layout)
        prompts = {prompt.prompt_id: prompt for prompt in inputs.prompts}
        judging = None if independent is None else SearchModels(policy, independent, inputs.formats)
        mine = table[(table["method"] == run.method) & (table["settings_id"] == run.settings_id)]
        for start in range(0, len(mine), BATCH):
            some = mine.iloc[start : start + BATCH]
            read = [prompts[prompt_id] for prompt_id in some["prompt_id"]]
            outputs = [ids.tolist() for ids in some["output_ids"]]
            rewards = None if judging is None else judge(judging, [prompt.judge_ids for prompt in read], outputs)
            pairs = list(zip(read, outputs, strict=True))
            likelihoods, batch = device.in_batches(partial(log_likelihoods, policy), pairs, batch, what="search.max_new_tokens")
            parts.append(some.assign(log_likelihood=likelihoods, independent_reward=rewards))
    rows = pd.concat(parts).sort_index().astype({"independent_reward": float})
    path = layout.assessment(seed, experiment)
    records.write_json(beside(path), as_dict(job))
    records.write_table(path, rows, ASSESSMENT)


def log_likelihoods(policy: Any, pairs: Sequence[tuple[AttackedPrompt, list[int]]]) -> list[float]:
    """Mean log-probability per token (nats) of each output after its prompt, as the policy reads it (prefill included)."""
    import torch
    from torch.nn.functional import log_softmax

    rows = [[*prompt.search.policy_ids, *output] for prompt, output in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *([0] * (longest - len(row)))] for row in rows], device=policy.device)
    with torch.no_grad():
        found = log_softmax(policy(input_ids=ids).logits[:, :-1].double(), -1).gather(2, ids[:, 1:, None])[..., 0]
    return [
        float(values[len(row) - len(output) - 1 : len(row) - 1].mean())
        for values, row, (_, output) in zip(found, rows, pairs, strict=True)
    ]
