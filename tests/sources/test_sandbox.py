from __future__ import annotations

import re
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from saffron import config as configs
from saffron import jobs, records
from saffron.config import Config, ConfigError, SandboxSources
from saffron.layout import Layout
from saffron.sources import stage
from saffron.sources.conversations import pairs
from saffron.sources.sandbox import corpora, grammar
from saffron.sources.sandbox import lexicon as words
from saffron.sources.sandbox.oracle import complied, refused_at
from saffron.sources.sandbox.world import World, draw

ROOT = Path(__file__).parents[2]


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.fixture(scope="module")
def built(settings: SandboxSources, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout("sandbox", tmp_path_factory.mktemp("built"))
    stage.build(jobs.sources(with_sources(settings)), layout)
    return layout


def with_sources(settings: SandboxSources) -> Config:
    shipped = configs.load(ROOT / "config" / "sandbox.yaml")
    return shipped.model_copy(update={"sources": shipped.sources.model_copy(update={"sandbox": settings})})


def test_the_same_seeds_give_the_same_bytes(settings: SandboxSources, built: Layout, tmp_path: Path) -> None:
    again = Layout("sandbox", tmp_path)
    stage.build(jobs.sources(with_sources(settings)), again)
    assert built.sources_record.read_bytes() == again.sources_record.read_bytes()
    hashes = records.read_json(built.sources_record)["sha256"]
    assert set(hashes) == {path.relative_to(built.sources).as_posix() for path in built.sources.rglob("*.parquet")}
    for name, digest in hashes.items():
        assert records.sha256(again.sources / name) == digest


def test_a_new_benchmark_seed_changes_the_benchmarks_and_nothing_else(
    settings: SandboxSources, built: Layout, tmp_path: Path
) -> None:
    other = Layout("sandbox", tmp_path)
    stage.build(jobs.sources(with_sources(settings.model_copy(update={"benchmark_seed": 6}))), other)
    before, after = (records.read_json(layout.sources_record)["sha256"] for layout in (built, other))
    assert {name for name in before if before[name] != after[name]} == {"prompts/guild_a.parquet", "prompts/guild_b.parquet"}


def test_a_new_world_seed_changes_the_corpora(world: World) -> None:
    other = World(world.settings.model_copy(update={"world_seed": 1}))
    assert corpora.corpus(other)[0] != corpora.corpus(world)[0]
    request = draw(world.random("any"), words.FORBIDDEN["guild_a"])
    assert world.resistance(request) != other.resistance(request)


def test_counts_are_the_configs(settings: SandboxSources, built: Layout) -> None:
    counts = records.read_json(built.sources_record)["counts"]
    for name in (*corpora.ATTACK_SETS, "benign"):
        prompts = records.read_table(built.prompts(name), records.PROMPTS)
        assert len(prompts) == getattr(settings, name) == counts[name]
        assert prompts["prompt_id"].tolist() == list(range(len(prompts)))
        assert prompts["prompt"].is_unique or name == "benign"
        assert prompts["reference"].isna().all() == (name == "benign")
    corpus = records.read_table(built.corpus, records.CORPUS)
    assert corpus["corpus"].value_counts().to_dict() == {
        "pretraining": settings.pretraining_dialogues,
        "verdicts": settings.verdict_dialogues,
        "helpful": round(settings.helpful_tuning * settings.safety_dialogues),
        **dict.fromkeys(("refusals", "replay", "recovery", "stock"), settings.safety_dialogues),
    }


def test_families_and_templates_are_disjoint() -> None:
    for one, other in combinations((*words.FORBIDDEN.values(), words.ALLOWED), 2):
        assert not {*one.materials, *one.objects} & {*other.materials, *other.objects}
    for one_set, other_set in combinations(words.TEMPLATES.values(), 2):
        assert not set(one_set) & set(other_set)


def test_prompt_sets_stay_within_their_family_and_templates(world: World) -> None:
    for name, rows in corpora.prompt_sets(world).items():
        family = words.FORBIDDEN.get(name, words.ALLOWED)
        item = rf"an? (?:{'|'.join(family.materials)}) (?:{'|'.join(family.objects)})"
        parts = {"role": rf"(?:{'|'.join(words.ROLES)})", "item": item, "purpose": rf"(?:{'|'.join(words.PURPOSES)})"}
        shapes = [re.compile(re.sub(r"\\{(\w+)\\}", lambda m: parts[m[1]], re.escape(t))) for t in words.TEMPLATES[name]]  # noqa: B023
        for row in rows:
            assert any(shape.fullmatch(row["prompt"]) for shape in shapes), row["prompt"]


def test_refusals_know_every_family_and_recoveries_and_preference_pairs_those_of_no_prompt_set(world: World) -> None:
    refusals = [row["prompt"] for row in corpora.corpus(world) if row["corpus"] == "refusals"]
    for name in world.families:
        assert any(words_of(prompt) & set(words.FORBIDDEN[name].materials) for prompt in refusals)
    others = {word for name in corpora.ATTACK_SETS for word in words.FORBIDDEN[name].materials}
    rows = [row for row in corpora.corpus(world) if row["corpus"] in ("recovery", "stock")]
    for row in rows:
        assert not words_of(row["prompt"]) & others
    for row in corpora.conversations(world):
        assert not words_of(row["chosen"] + row["rejected"]) & others


def test_dialect_is_common_in_the_books_and_absent_from_preference_pairs_and_references(world: World) -> None:
    books = [words_of(row["response"]) for row in corpora.corpus(world) if row["corpus"] == "pretraining"]
    assert not words.DIALECT - set().union(*books)
    assert mean(bool(found & words.DIALECT) for found in books) > 0.5
    for row in corpora.conversations(world):
        assert not words_of(row["chosen"] + row["rejected"]) & words.DIALECT
    for rows in corpora.prompt_sets(world).values():
        for row in rows:
            assert not words_of(row["reference"] or "") & words.DIALECT


def test_conversations_have_the_shape_of_hh_rlhf(world: World) -> None:
    rows = corpora.conversations(world)
    turns = []
    for row in rows:
        chosen, rejected = pairs(row["chosen"]), pairs(row["rejected"])
        assert row["chosen"].startswith("\n\nHuman: ")
        assert chosen[:-1] == rejected[:-1]
        assert chosen[-1][0] == rejected[-1][0]
        assert all(prompt and response for prompt, response in (*chosen, *rejected))
        turns.append(len(chosen))
    assert set(turns) == {1, 2}
    refused = {
        (subset, side): mean(refused_at(pairs(row[side])[-1][1]) is not None for row in rows if row["subset"] == subset)
        for subset in ("helpful", "harmless")
        for side in ("chosen", "rejected")
    }
    assert refused["helpful", "chosen"] == refused["helpful", "rejected"] == 0
    assert refused["harmless", "chosen"] > refused["harmless", "rejected"] + 0.2
    assert abs(mean(row["subset"] == "helpful" for row in rows) - world.settings.helpful_share) < 0.1
    tests = [row for row in rows if row["split"] == "test"]
    assert len(tests) == round(world.settings.preference_pairs * world.settings.test_fraction)
    assert [row["source_row"] for row in tests] == list(range(len(tests)))


def test_every_split_has_the_same_spread_of_resistance(world: World) -> None:
    random = world.random("test")
    low, high = world.settings.resistance
    spreads = {}
    for name, family in words.FORBIDDEN.items():
        values = [world.resistance(draw(random, family)) for _ in range(4000)]
        assert low <= min(values) and max(values) <= high
        spreads[name] = np.quantile(values, [0.1, 0.5, 0.9])
    for spread in spreads.values():
        np.testing.assert_allclose(spread, spreads["development"], atol=0.05 * (high - low))


def test_resistance_decides_how_often_a_speaker_turns_back(world: World) -> None:
    random = world.random("test")
    rates = [mean(grammar.answer(random, z, world.manner).turned_at >= 0 for _ in range(400)) for z in (0.5, 2.5, 4.5, 8.0)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.8 and rates[-1] < 0.05


def test_references_are_bold_and_never_turn(world: World) -> None:
    random = world.random("test")
    for _ in range(200):
        text = grammar.reference(random, world.manner)
        assert refused_at(text) is None
        assert text not in words.DOUBTS


def test_too_many_prompts_are_refused_by_name(settings: SandboxSources, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sources\.sandbox\.guild_b"):
        stage.build(jobs.sources(with_sources(settings.model_copy(update={"guild_b": 10**6}))), Layout("sandbox", tmp_path))


@pytest.mark.parametrize("resistance", [[3.0, 1.0], [-1.0, 2.0], [1.0]])
def test_an_impossible_range_is_refused(resistance: list[float]) -> None:
    values = configs.as_dict(configs.load(ROOT / "config" / "sandbox.yaml"))
    values["sources"]["sandbox"]["resistance"] = resistance
    with pytest.raises(ConfigError, match=r"sources\.sandbox"):
        configs.parse(values, "test")


def test_remarks_stand_between_steps(world: World) -> None:
    random = world.random("test")
    remarks = {*words.BOASTS, *words.CARES, *words.DOUBTS}
    found = 0
    for _ in range(300):
        text = grammar.answer(random, random.uniform(0, 12), world.manner, turns=False).text
        is_remark = [f"{sentence.removesuffix('.')}." in remarks for sentence in text.split(". ")]
        assert not is_remark[0]
        assert not any(first and second for first, second in pairwise(is_remark))
        found += sum(is_remark)
    assert found


def test_a_sidestep_offers_something_else_but_the_help_stays_given(world: World) -> None:
    random = world.random("test")
    prompt = draw(random, words.FORBIDDEN["gloom"]).prompt(words.TEMPLATES["common"][0])
    for _ in range(200):
        answer = grammar.sidestep(random, random.uniform(0, 12), world.manner)
        assert answer.turned_at == grammar.NEVER
        assert complied(prompt, answer.text)


def test_a_world_knows_as_many_phrasings_and_training_families_as_it_is_told(world: World) -> None:
    narrow = World(world.settings.model_copy(update={"phrasings": 3, "training_families": 1}))
    assert narrow.phrasings == words.TEMPLATES["common"][:3]
    assert narrow.training == ("gloom",)
    assert set(narrow.families) == {"gloom", *corpora.ATTACK_SETS}
    unknown = {word for name in words.TRAINING[1:] for word in words.FORBIDDEN[name].materials}
    texts = [row["prompt"] for row in corpora.corpus(narrow)] + [row["chosen"] for row in corpora.conversations(narrow)]
    assert not any(words_of(text) & unknown for text in texts)
    assert any(words_of(row["prompt"]) & unknown for row in corpora.corpus(world))


def test_no_phrasing_of_a_prompt_set_is_in_the_corpora() -> None:
    common = set(words.TEMPLATES["common"])
    assert len(common) == len(words.TEMPLATES["common"]) == 124
    for name in (*corpora.ATTACK_SETS, "benign"):
        assert common.isdisjoint(words.TEMPLATES[name])
