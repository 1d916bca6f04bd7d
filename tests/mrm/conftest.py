from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.mrm.examples import FORMATS, VOCABULARY, labels, tiny_guard

from saffron import records
from saffron.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """The files that the stage reads: guard, chat formats, labels with their card, mask."""
    layout = Layout("sandbox", tmp_path)
    tiny_guard().save_pretrained(layout.model("guard", 0))
    FORMATS.save(layout.tokenizer)
    table = labels()
    records.write_table(layout.safety4m(0) / "labels.parquet", table, records.SAFETY4M)
    mask = np.ones(VOCABULARY, dtype=bool)
    for row in table[table["split"] == "train"].itertuples():
        mask[row.input_ids[row.response_start :]] = False
    save_file({"unseen_mask": mask}, layout.safety4m(0) / "unseen_mask.safetensors")
    source = {"name": "someone/chats", "licence": "MIT"}
    card = {"name": "test labels", "guard": "a tiny guard", "splits": {}, "source": source}
    records.write_json(layout.safety4m(0) / "card.json", card)
    return layout
