"""The short form: a seeded handful of each part that is cheap, and that a part counts, reports and repeats what fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from saffron import records
from saffron.pages import robustness
from torture import checkpoints, faults, kills, mutations, texts
from torture.__main__ import PARTS
from torture.parts import Fault, Part, run, save


@pytest.mark.parametrize(
    ("part", "seeds"),
    [
        (faults.PART, [3, 6, 15, 19, 30, 41, 52, 53]),  # a stage each, every kind of fault, a batch that is halved
        (texts.PART, range(100, 108)),
        (mutations.PART, range(4)),
        (checkpoints.PART, [0, 1, 2, 3, 4, 5]),
    ],
    ids=lambda value: value.name if isinstance(value, Part) else "",
)
def test_a_handful_of_tries(part: Part, seeds: list[int], tmp_path: Path) -> None:
    attempt = part.prepare(tmp_path)
    assert all(attempt(seed) for seed in seeds)


def fails_on(number: int) -> Part:
    def attempt(seed: int) -> str:
        if seed == number:
            raise Fault("something is wrong")
        return "even" if seed % 2 == 0 else "odd"

    return Part("mine", 1000, lambda scratch: attempt)


def test_tries_are_counted_and_a_fault_says_how_to_repeat_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, failed = run(fails_on(7), tmp_path, 5, 4)
    assert failed == [7]
    assert {key: record[key] for key in ("seed", "tries", "full", "outcomes", "faults")} == {
        "seed": 5,
        "tries": 4,
        "full": 1000,
        "outcomes": {"even": 2, "odd": 1},
        "faults": 1,
    }
    assert "mine: something is wrong\nrepeat with: python tests/torture mine --seed 7 --count 1" in capsys.readouterr().err


def test_the_record_of_one_part_leaves_the_others(tmp_path: Path) -> None:
    save(tmp_path / "record.json", {"kills": {"tries": 1}})
    save(tmp_path / "record.json", {"texts": {"tries": 2}})
    save(tmp_path / "record.json", {"kills": {"tries": 3}})
    assert records.read_json(tmp_path / "record.json") == {"kills": {"tries": 3}, "texts": {"tries": 2}}


def test_the_page_has_a_row_for_every_part() -> None:
    assert set(robustness.PARTS) == set(PARTS)
    assert all(f"`{name}`" in robustness.markdown() for name in PARTS)


def test_only_outputs_of_finished_jobs_count_as_finished(tmp_path: Path) -> None:
    project = kills.Project(tmp_path)
    state, made = tmp_path / ".snakemake", ["data/smoke/a.parquet", "data/smoke/b.parquet"]
    for name in made:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
        (state / "metadata").mkdir(parents=True, exist_ok=True)
        (state / "metadata" / kills.encoded(name)).touch()
    (state / "incomplete").mkdir()
    (state / "incomplete" / kills.encoded(made[1])).touch()
    block = tmp_path / "data/smoke/search/seed0/x/.blocks/run/seed0.block0.parquet"
    block.parent.mkdir(parents=True)
    block.touch()
    assert set(kills.finished(project)) == {made[0], block.relative_to(tmp_path).as_posix()}
