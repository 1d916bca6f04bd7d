"""Agreement of the MRM with the guard where searches read: at every prefix of stored outputs.

Figure 4b compares them on held-out conversations. What a search reads is something else: attacked answers to prompts that no
corpus holds, and of those the ones that the MRM itself chose.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from saffron import models, records, workflow
from saffron.chat import ChatFormats
from saffron.config import Config
from saffron.layout import Layout
from saffron.methods.discovery import method
from saffron.models.verdicts import verdicts
from saffron.mrm import agreement, evaluation
from saffron.mrm.targets import Targets
from saffron.sources.conversations import TokenisedResponse

#: Answers read together by the guard.
BATCH = 16


def compare_all(config: Config, layout: Layout, seed: int) -> None:
    """Compare MRM and guard at every prefix of attacked outputs that no guard has chosen, each run's at its largest budget.

    Reads the experiments on the development split and writes ``outputs.json`` beside the MRM: by cell
    (``<method>-<settings_id>/<budget>``) the statistics of Figure 4b. Tokens that were never a target are left out, as the MRM
    says nothing of them (Eq. 7); ``unseen_share`` is their share.

    Raises:
        RecordError: if a table is missing.
        ModelError: if a model is missing.
    """
    torch.set_num_threads(config.runtime.torch_threads)
    formats = ChatFormats.load(layout.tokenizer)
    tokenizer = models.load_tokenizer(layout.tokenizer)
    guard = models.load_lm(layout.model("guard", seed), config.runtime)
    mrm, unseen = models.load_mrm(layout.mrm(seed), config.runtime)
    found = {}
    for name, item in workflow.on_development(config).items():
        table = records.read_table(layout.search(seed, name), records.SEARCH)
        prompts = records.read_table(layout.prompts(item.dataset), records.PROMPTS).set_index("prompt_id")["prompt"]
        for run in item.runs:
            if "guard" in method(run.method).reads(config.search.settings_of(run)) or not run.attack:
                continue
            budget = max(run.budgets)
            rows = table[
                (table["method"] == run.method) & (table["settings_id"] == run.settings_id) & (table["budget"] == budget)
            ]
            texts = [prompts[prompt_id] for prompt_id in rows["prompt_id"]]
            prompt_ids = formats.encode(tokenizer, texts)
            answers = [TokenisedResponse(ids, list(out)) for ids, out in zip(prompt_ids, rows["output_ids"], strict=True)]
            found[f"{run.key}/{budget}"] = compare(guard, mrm, unseen, formats, answers)
    records.write_json(layout.mrm(seed) / "outputs.json", found)


def compare(guard: Any, mrm: Any, unseen: torch.Tensor, formats: ChatFormats, answers: list[TokenisedResponse]) -> dict[str, Any]:
    """Statistics of M(s)[a] against R(sa) over every prefix of some answers whose last token is not ``unseen`` (bool[V])."""
    rewards, _ = verdicts(guard, formats, answers, batch_size=BATCH)
    labels = pd.DataFrame(
        {
            "conversation_id": [str(index) for index in range(len(answers))],
            "input_ids": [[*answer.prompt_ids, *answer.response_ids] for answer in answers],
            "response_start": [len(answer.prompt_ids) for answer in answers],
            "rewards": rewards,
        }
    )
    total = Targets(labels, formats, "packed").total
    points, _ = evaluation.predictions(mrm, labels, formats, total, 0)
    seen = ~unseen.cpu().numpy()[points["token"]]
    return agreement.as_record(agreement.statistics(points[seen])) | {"unseen_share": float(1 - seen.mean())}
