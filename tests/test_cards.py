"""Cards as the hub reads them: by its own library, without asking it."""

from __future__ import annotations

import pytest
import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from saffron import cards


def test_a_name_that_is_no_yaml_word_is_read_back_as_it_is() -> None:
    name = "Safety4M: a #name, 'quoted'"
    text = "\n".join([*cards.front_matter(DatasetCardData(pretty_name=name, license="mit")), "# Title", "text"])
    card = DatasetCard(text)
    assert card.data.pretty_name == name and card.data.license == "mit" and card.text.strip() == "# Title\ntext"


def test_what_is_not_known_is_left_out() -> None:
    lines = cards.front_matter(ModelCardData(base_model=None, library_name="transformers"))
    assert lines[0] == lines[-1] == "---" and yaml.safe_load("\n".join(lines[1:-1])) == {"library_name": "transformers"}
    assert ModelCard("\n".join(lines)).data.base_model is None


@pytest.mark.parametrize(
    ("word", "read"), [("mit", "mit"), ("cc-by-4.0", "cc-by-4.0"), ("cc0-1.0", "cc0-1.0"), ("proprietary", "other")]
)
def test_a_licence_that_the_hub_does_not_know_is_another(word: str, read: str) -> None:
    assert cards.licence(word) == read


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("someone/a-guard", True),
        ("guard", False),
        ("./guard", False),
        ("a/b/c", False),
        ("the sandbox's guard", False),
        ("", False),
    ],
)
def test_a_base_model_is_named_only_if_it_can_be_on_the_hub(name: str, is_one: bool) -> None:
    assert cards.is_hub_id(name) is is_one
