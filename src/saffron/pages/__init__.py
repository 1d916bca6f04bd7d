"""Our pages: README and site. What they show of our results is generated from the published records."""

from __future__ import annotations

from pathlib import Path

from saffron import records
from saffron.pages import blocks, picture
from saffron.runs import publish


def pages(root: Path = Path()) -> list[Path]:
    """Pages that can hold generated blocks: the README, and what the site is made of; paths below the project's root."""
    return [Path("README.md"), *sorted(path.relative_to(root) for path in (root / "docs").rglob("*.md"))]


def write(root: Path = Path()) -> None:
    """Make pictures and generated blocks again from the published records.

    Raises:
        BlockError: if a page has a block that cannot be made.
    """
    ours = publish.published(root)
    picture.write(ours, root)
    for page in pages(root):
        text = (root / page).read_text("utf-8")
        made = blocks.regenerate(text, ours)
        if made != text:
            with records.replacing(root / page) as temporary:
                temporary.write_text(made, "utf-8")
