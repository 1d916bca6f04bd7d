"""The whole path of config/paper.yaml, from the datasets to every search, on a replica."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from replica import config as replica_config
from replica import pipeline
from saffron import config as configs
from saffron import models, records, workflow
from saffron.chat import ChatFormats
from saffron.config import Config
from saffron.layout import Layout
from saffron.runs import plan, report


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Layout]:
    folder = tmp_path_factory.mktemp("replica")
    settings = configs.load(replica_config.write(folder))
    layout = Layout(settings.name, folder / "out")
    pipeline.run(settings, layout)
    return settings, layout


def test_the_replica_runs_what_the_paper_config_runs(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    paper = configs.load(replica_config.PAPER)
    assert settings.search.experiments.keys() == paper.search.experiments.keys()
    for name, experiment in workflow.experiments(paper).items():
        assert [run.key for run in settings.search.experiments[name].runs] == [run.key for run in experiment.runs]
        table = records.read_table(layout.search(0, name), records.SEARCH)
        assert {f"{row.method}-{row.settings_id}" for row in table.itertuples()} == {run.key for run in experiment.runs}


def test_every_search_table_is_complete(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    for name, experiment in workflow.experiments(settings).items():
        table = records.read_table(layout.search(0, name), records.SEARCH)
        prompts = records.read_table(layout.prompts(experiment.dataset), records.PROMPTS)
        count = min(len(prompts), experiment.prompts or len(prompts))
        budgets = table.groupby(["method", "settings_id"])["budget"].nunique()
        expected = sum(1 if experiment.match else len(run.budgets) for run in experiment.runs)
        assert budgets.sum() == expected
        assert len(table) == expected * count
        assert np.isfinite(table[["flops_policy", "flops_reward"]]).all().all()
        for judge in ("guard", "refusals"):
            judged = records.read_table(layout.judgements(0, judge, name), records.JUDGEMENTS)
            assert judged[list(records.OUTPUT)].equals(table[list(records.OUTPUT)]) and judged["success"].notna().all()
        assert table["output_ids"].map(max).max() < 128_256
        assert (table["n_new_tokens"] <= settings.search.max_new_tokens).all()


def test_the_judge_is_the_guard_in_the_papers_format(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    formats = ChatFormats.load(layout.tokenizer)
    guard = models.load_lm(layout.model("guard", 0), settings.runtime)
    tokenizer = models.load_tokenizer(layout.tokenizer)
    prompts = records.read_table(layout.prompts("harmful_hexphi"), records.PROMPTS).set_index("prompt_id")["prompt"]
    table = records.read_table(layout.search(0, "scaling"), records.SEARCH)
    judged = records.read_table(layout.judgements(0, "guard", "scaling"), records.JUDGEMENTS)
    for row in table.assign(score=judged["score"]).iloc[::4].itertuples():
        prompt = tokenizer.encode(prompts[row.prompt_id], add_special_tokens=False)
        logits = guard(torch.tensor([formats.guard.render(prompt, list(row.output_ids))])).logits[0, -1]
        assert row.score == pytest.approx(float(logits[19_193] - logits[39_257]), abs=1e-3)


def test_labels_and_unseen_tokens_are_over_the_whole_vocabulary(finished: tuple[Config, Layout]) -> None:
    _, layout = finished
    labels = records.read_table(layout.safety4m(0) / "labels.parquet", records.SAFETY4M)
    assert set(labels["split"]) == {"train", "test"}
    _, unseen = models.load_mrm(layout.mrm(0), configs.Runtime(device="cpu"))
    seen = {token for row in labels[labels["split"] == "train"].itertuples() for token in row.input_ids[row.response_start :]}
    assert unseen.shape == (128_256,)
    assert set((~unseen).nonzero()[:, 0].tolist()) == seen | {128_009}  # the default variant counts EOS as seen


def test_the_plan_agrees_with_the_replicas_ledger(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    names = workflow.experiments(settings)
    counted = sum(
        records.read_table(layout.search(0, name), records.SEARCH)[["flops_policy", "flops_reward"]].sum().sum() for name in names
    )
    planned = sum(plan.search_costs(settings, layout).values())
    assert planned == pytest.approx(counted, rel=0.05)


def test_the_analysis_gives_a_verdict_on_every_claim(finished: tuple[Config, Layout]) -> None:
    _, layout = finished
    claims = records.read_json_list(layout.analysis / "claims.json")
    assert {"figure1.one_call"} < {claim["id"] for claim in claims}
    assert all(claim["verdict"] for claim in claims)


def test_the_report_shows_no_prompt_and_no_output(finished: tuple[Config, Layout]) -> None:
    settings, layout = finished
    report.write(settings, layout)
    page = (layout.figures / "report.html").read_text()
    texts: list[str] = []
    for dataset in ("harmful_hexphi", "ai2_refusals"):
        prompts = records.read_table(layout.prompts(dataset), records.PROMPTS)
        texts += [*prompts["prompt"], *(reference[:30] for reference in prompts["reference"])]
    for name in workflow.experiments(settings):
        texts += list(records.read_table(layout.search(0, name), records.SEARCH)["text"])
    assert settings.name in page
    assert [text for text in texts if len(text.strip()) > 8 and text in page] == []
