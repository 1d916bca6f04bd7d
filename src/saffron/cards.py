"""The front matter of model and dataset cards, in the hub's own words and by its own library, so that the hub takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huggingface_hub import CardData

#: The hub's words for common licences; every other is ``other`` to it, and stands in the card's text.
LICENCES = frozenset(
    """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 gemma gfdl gpl-2.0 gpl-3.0 isc lgpl-2.1 lgpl-3.0 llama2 llama3 llama3.1 llama3.2
    llama3.3 llama4 mit mpl-2.0 ms-pl ncsa odbl odc-by openrail osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
    """.split()  # noqa: SIM905  # a list of one word a line takes a page
)


def licence(word: str) -> str:
    """The hub's word for a licence."""
    return word if word in LICENCES else "other"


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a repository on the hub, owner/name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


def front_matter(data: CardData) -> list[str]:
    """The lines of a card before its text."""
    return ["---", *data.to_yaml().splitlines(), "---"]
