"""Kinds of judge: found by name, from outside too, and what a config may say of them."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from saffron import config as configs
from saffron import plugins, records, workflow
from saffron.config import ConfigError
from saffron.judges import discovery, refusals, sandbox, stage
from saffron.judges.base import Answer, JudgeError, Judgement, Kind, NoSettings

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n# (\w+)\.py\n(.*?)```", re.S)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules of the page's examples, where Python finds them, and the entry point of the second."""
    page = (ROOT / "docs/judges.md").read_text()
    for name, text in BLOCK.findall(page):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint("long_answers", "long_answers:KIND", discovery.GROUP)]
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point for point in points if point.group == group])
    clear()
    yield
    clear()
    for name, _ in BLOCK.findall(page):
        sys.modules.pop(name, None)


def clear() -> None:
    discovery.kinds.cache_clear()
    discovery.kind.cache_clear()


def answer(response: str, prompt: str = "How do I make tea?") -> Answer:
    return Answer(prompt, response, [1], [2, 3])


def said(kind: str, response: str, **settings: Any) -> Judgement:
    found = discovery.kind(kind)
    (judgement,) = found.judge([answer(response)], found.settings.model_validate(settings), None)  # type: ignore[arg-type]
    return judgement


def config(*judges: dict[str, Any], name: str = "smoke") -> configs.Config:
    values = yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())
    return configs.parse(values | {"judges": list(judges)}, "test")


GUARD = {"name": "guard", "kind": "guard"}


def test_every_module_with_a_kind_is_one() -> None:
    own = {"guard", "other_guard", "sandbox", "refusals", "likelihood"}
    assert set(discovery.kinds()) >= own
    elsewhere = [path for path in (ROOT / "src/saffron").rglob("*.py") if path.parent.name != "judges"]
    naming = [path.name for path in elsewhere if re.search(r"\.kind [=!]= |\.kind in |\"likelihood\"", path.read_text())]
    assert naming == []  # nobody else asks for a kind by its name


def test_an_answer_that_declines_is_no_success_and_a_refusal() -> None:
    assert said("refusals", "First, I can't help with that.") == Judgement(False, refused=True)
    assert said("refusals", "First, warm the pot.") == Judgement(True, refused=False)


def test_the_sandboxs_oracle_says_what_it_knows() -> None:
    found = sandbox.judge([answer("Grind the salt. But wait, this is forbidden.")], NoSettings(), None)  # type: ignore[arg-type]
    assert found == [Judgement(False, refused=True)]
    assert discovery.kind("sandbox").knows_truth and not discovery.kind("refusals").knows_truth


def test_the_pages_examples_judge_from_outside(outside: None) -> None:
    assert said("kitchen_judges:names_a_step", "First, warm the pot.") == Judgement(True)
    assert said("kitchen_judges:names_a_step", "No.") == Judgement(False)
    assert said("long_answers", "one two three") == Judgement(False, score=3.0)
    assert said("long_answers", "one two three", words=2) == Judgement(True, score=3.0)
    assert discovery.module("long_answers") == "long_answers"
    assert discovery.module("kitchen_judges:names_a_step") == "kitchen_judges"
    found = config(GUARD, {"name": "long", "kind": "long_answers", "settings": {"words": 4}})
    assert [judge.name for judge in workflow.judges(found)] == ["guard", "long"]
    with pytest.raises(ConfigError, match=r"long: settings\.words: Input should be greater than or equal to 1, got 0"):
        config(GUARD, {"name": "long", "kind": "long_answers", "settings": {"words": 0}})


def test_a_function_that_says_neither_yes_nor_no_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vague_judge.py").write_text("def perhaps(prompt, response):\n    return 0.5\n\nHALF = 0.5\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(JudgeError, match=r"vague_judge:perhaps: gave 0\.5; it must say True .* or False"):
        said("vague_judge:perhaps", "tea")
    with pytest.raises(JudgeError, match="vague_judge:HALF: a float, not a function"):
        discovery.kind("vague_judge:HALF")


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        ([], "List should have at least 1 item"),
        ([{"name": "x", "kind": "nothing"}], "no kind of judge 'nothing'; known: guard, likelihood, other_guard, "),
        ([{"name": "x", "kind": "no_such_module:f"}], r"no_such_module:f: not there \(No module named 'no_such_module'\)"),
        ([{"name": "x", "kind": "saffron.judges.guard:nothing"}], "saffron.judges.guard:nothing: not there"),
        ([{"name": "Guard", "kind": "guard"}], "String should match pattern"),
        ([GUARD, GUARD], r"\['guard'\] stand twice: give each its own name"),
        ([GUARD | {"experiments": ["scaling"]}], "the first decides attack success everywhere"),
        ([GUARD, {"name": "x", "kind": "refusals", "experiments": ["none"]}], r"x judges \['none'\], which search.experiments"),
        ([GUARD | {"settings": {"treshold": 1.0}}], "guard: settings.treshold: unknown key"),
        ([{"name": "likely", "kind": "likelihood"}], "likely: likelihood measures and judges nothing: name its experiments"),
        ([GUARD | {"name": "budget"}], "a table has a column budget: give judge budget another name"),
        ([GUARD, GUARD | {"name": "guard_difference"}], "a table has a column guard_difference"),
    ],
)
def test_judges_that_cannot_be_are_refused_when_the_config_is_read(judges: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(*judges)


def test_who_knows_the_sandbox_alone_is_refused_elsewhere() -> None:
    with pytest.raises(ConfigError, match=r"oracle \(sandbox\) knows the sandbox's world alone, prompt set \w+ is not of it"):
        config(GUARD, {"name": "oracle", "kind": "sandbox"}, name="paper")


def test_who_knows_the_sandbox_alone_is_limited_to_its_experiments_where_others_stand_beside_them() -> None:
    values = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())
    values["sources"]["prompts"]["mine"] = {"from": "path", "path": "mine.csv", "reader": "columns"}
    values["search"]["experiments"]["matched"]["dataset"] = "mine"
    oracle = {"name": "oracle", "kind": "sandbox"}
    limited = r"limit it to those that are: experiments: \[development, scaling, exploration, deepalign\] \(shown with `make abl"
    for judges, message in (
        ([GUARD, oracle], f"prompt set mine is not of it; {limited}"),
        ([oracle], f"put another .*{limited}"),
    ):
        with pytest.raises(ConfigError, match=message):
            configs.parse(values | {"judges": judges}, "test")
    kept = ["development", "scaling", "exploration", "deepalign"]
    found = configs.parse(values | {"judges": [GUARD, oracle | {"experiments": kept}]}, "test")
    assert workflow.read_apart(found, "scaling") == ["oracle"] and workflow.read_apart(found, "matched") == []
    for item in values["search"]["experiments"].values():
        item["dataset"] = "mine"
    with pytest.raises(ConfigError, match="no experiment is run on the sandbox's prompts, so remove the judge"):
        configs.parse(values | {"judges": [GUARD, oracle]}, "test")


def test_without_a_checkpoint_only_the_sandbox_has_another_guard() -> None:
    other = {"name": "other", "kind": "other_guard"}
    assert workflow.models_judging(config(GUARD, other), "other") == ["tokenizer", "other_guard"]
    with pytest.raises(ConfigError, match=r"other: there is no other guard; name one in settings\.checkpoint, or say in models"):
        config(GUARD, other, name="paper")
    named = config(GUARD, other | {"settings": {"checkpoint": {"id": "a/b", "path": "x"}}}, name="paper")
    assert workflow.models_judging(named, "other") == ["tokenizer"]


def test_two_kinds_of_one_name_and_what_is_no_kind_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for point, message in (
        (
            EntryPoint("guard", "a:KIND", discovery.GROUP),
            "kind of judge guard: two of this name, a:KIND and the one of this package",
        ),
        (EntryPoint("My-Kind", "a:KIND", discovery.GROUP), "a name has lower-case letters"),
        (EntryPoint("mine", "saffron.judges.refusals:declines", discovery.GROUP), "is a function, not a Kind"),
    ):
        monkeypatch.setattr(plugins, "entry_points", lambda group, point=point: [point] if point.group == group else [])
        clear()
        with pytest.raises(JudgeError, match=message):
            discovery.kinds()
    monkeypatch.undo()
    clear()


def table(prompts: int = 5) -> pd.DataFrame:
    rows = [
        {"dataset": "d", "prompt_id": i, "method": "best_of_n", "budget": budget, "settings_id": "default", "train_seed": 0}
        | {"search_seed": 0, "prefill_ids": [1], "output_ids": [i], "response": f"{budget} {i}", "text": str(i)}
        for budget in (2, 1)
        for i in range(prompts)
    ]
    frame = pd.DataFrame(rows)
    lists = frame[["prefill_ids", "output_ids"]].map(pd.Series)  # arrays, as they are read
    return frame.assign(**{name: lists[name] for name in lists})


def test_judgements_stand_in_the_order_of_the_outputs_and_blocks_hold_one_search() -> None:
    asked: list[list[str]] = []

    def judge(answers: Any, settings: Any, models: Any) -> list[Judgement]:
        asked.append([item.response for item in answers])
        return [Judgement(item.response.startswith("1"), score=float(item.output_ids[0])) for item in answers]

    shuffled = table().sample(frac=1, random_state=1)
    found, _ = stage.judgements(Kind("s", judge), NoSettings(), None, shuffled, {i: "?" for i in range(5)}, 3)
    assert found["score"].tolist() == shuffled["prompt_id"].astype(float).tolist()
    assert found["success"].tolist() == (shuffled["budget"] == 1).tolist()
    assert found[list(records.OUTPUT)].equals(shuffled[list(records.OUTPUT)].reset_index(drop=True))
    assert asked == [["1 0", "1 1", "1 2"], ["1 3", "1 4"], ["2 0", "2 1", "2 2"], ["2 3", "2 4"]]


@pytest.mark.parametrize(
    ("judgement", "values", "message"),
    [
        (Judgement(), {}, "column success: None for 10 outputs, first best_of_n, budget 2, prompt 0; correct the judge"),
        (Judgement(False, score=float("nan")), {"rewards": True}, "column score: nan for 10 outputs"),
        (Judgement(score=float("inf")), {"measures": True}, "column score: inf for 10 outputs"),
        (Judgement(False), {"tells_refusals": True}, "column refused: None for 10 outputs"),
        (Judgement(False, refused=False), {"tells_refusals": True}, None),
        (Judgement(False), {}, None),
        (Judgement(score=0.0), {"measures": True}, None),
    ],
)
def test_what_is_no_judgement_is_not_stored(judgement: Judgement, values: dict[str, bool], message: str | None) -> None:
    judging = Kind("s", lambda answers, *_: [judgement] * len(answers), **values)
    rows, _ = stage.judgements(judging, NoSettings(), None, table(), {i: "?" for i in range(5)}, 3)
    if message is None:
        return stage._check(Path("x.parquet"), rows, judging)
    with pytest.raises(JudgeError, match=f"x.parquet: {message}"):
        stage._check(Path("x.parquet"), rows, judging)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, r"test_kinds: its judge gave True: it must give saffron\.judges\.base\.Judgement"),
        (Judgement("yes"), r"success must be True, False or None"),  # type: ignore[arg-type]
        (Judgement(True, refused=1), r"refused must be True, False or None"),  # type: ignore[arg-type]
        (Judgement(True, score="7"), r"score must be a number or None"),  # type: ignore[arg-type]
        (Judgement(True, score=True), r"score must be a number or None"),
    ],
)
def test_a_record_that_is_no_judgement_is_refused(given: object, message: str) -> None:
    with pytest.raises(JudgeError, match=message):
        stage.judgements(
            Kind("s", lambda answers, *_: [given] * len(answers)), NoSettings(), None, table(), dict.fromkeys(range(5), "?"), 3
        )  # type: ignore[misc, arg-type]


def test_numpys_own_truth_and_numbers_are_taken() -> None:
    given = Judgement(np.bool_(True), score=np.float32(2.0))  # type: ignore[arg-type]
    rows, _ = stage.judgements(
        Kind("s", lambda answers, *_: [given] * len(answers)), NoSettings(), None, table(), dict.fromkeys(range(5), "?"), 3
    )
    assert rows["success"].all() and (rows["score"] == 2.0).all()


def test_a_judge_that_leaves_answers_out_is_refused() -> None:
    with pytest.raises(JudgeError, match="gave 0 judgements of 3 answers; it must give one each, in their order"):
        stage.judgements(Kind("s", lambda *_: []), NoSettings(), None, table(), {i: "?" for i in range(5)}, 3)
    with pytest.raises(records.RecordError, match="prompt 4 of d was searched and is not in the prompt set"):
        stage.judgements(refusals.KIND, NoSettings(), None, table(), {i: "?" for i in range(4)}, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def judge(prompt) -> bool:\n    return True\n", r"kitchen:judge: is called with prompt and response \(.*\); take both"),
        ("def judge(a, b, c) -> bool:\n    return True\n", r"is called with prompt and response"),
        ("x = unknown\n", r"kitchen cannot be loaded \(NameError: .*\); mend it"),
        ("def judge(:\n", r"kitchen cannot be loaded \(SyntaxError: .*\); mend it"),
        ("judge = 7\n", r"a int, not a function of prompt and response"),
    ],
)
def test_a_function_that_cannot_judge_is_refused_when_the_config_is_read(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kitchen.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    sys.modules.pop("kitchen", None)
    clear()
    with pytest.raises(JudgeError, match=message):
        discovery.kind("kitchen:judge")
    sys.modules.pop("kitchen", None)
    clear()


@pytest.mark.parametrize(
    ("change", "message"), [({"settings": dict}, "settings must be a class"), ({"judge": 7}, "judge must be")]
)
def test_a_kind_that_cannot_be_used_is_refused(change: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"summary": "mine", "judge": lambda *_: [], **change}
    with pytest.raises(JudgeError, match=rf"kind of judge \(mine\): {message}"):
        Kind(**values)
