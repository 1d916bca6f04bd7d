"""Section 5.6: lexical variety of the outputs of the DeepAlign policy and of Saffron-1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from saffron import roles
from saffron.analysis import quality
from saffron.analysis.results import Key
from saffron.analysis.sections.base import Section, difference
from saffron.analysis.statistics import Cells, Estimate, finite
from saffron.analysis.study import Study
from saffron.roles import BASELINE, PROPOSED

Array = NDArray[np.float64]


def section(study: Study) -> Section:
    """Variety of outputs, with paired differences."""
    if not (study.has("section56") and study.has("scaling")):
        return Section()
    record = quality_record(study)
    return Section({"quality": record}, {study.judge: _quality_quantities(record)})


def quality_record(study: Study) -> dict[str, Any]:
    """Section 5.6: lexical variety of DeepAlign's outputs and of Saffron-1's at width 32, with paired differences."""
    outputs = outputs_by_system(study)
    record: dict[str, Any] = {"phrase_words": quality.PHRASE_WORDS, "systems": {}, "differences": {}}
    present: dict[str, dict[str, list[Array]]] = {"starts_with_most_common": {}, "contains_most_common": {}}
    for system, by_seed in outputs.items():
        per_seed = []
        for texts in by_seed:
            tokens = [quality.words(text) for text in texts]
            start, phrase = quality.most_common_start(tokens), quality.most_common_phrase(tokens)
            present["starts_with_most_common"].setdefault(system, []).append(start.present.astype(float))
            present["contains_most_common"].setdefault(system, []).append(phrase.present.astype(float))
            values = {f"distinct_{n}": quality.distinct(tokens, n) for n in (1, 2, 3)}
            values |= {"self_bleu": quality.self_bleu(tokens), "words": float(np.mean([len(t) for t in tokens]))}
            per_seed.append((values, start.text, phrase.text))
        record["systems"][system] = {
            "label": system,
            "n": len(by_seed[0]),
            "most_common_start": [start for _, start, _ in per_seed],
            "most_common_phrase": [phrase for _, _, phrase in per_seed],
            **{name: finite(float(np.mean([values[name] for values, _, _ in per_seed]))) for name in per_seed[0][0]},
        }
    systems = list(outputs)
    boot = study.bootstrap(
        Cells(tuple(systems), {name: np.stack([np.stack(v[s]) for s in systems]) for name, v in present.items()})
    )
    for name in present:
        for i, system in enumerate(systems):
            record["systems"][system][name] = boot.rate(name, i).as_record()
        between = difference(boot, systems.index("saffron"), systems.index("deepalign"), name)
        record["differences"][name] = between.as_record()
    return record


def outputs_by_system(study: Study) -> dict[str, list[list[str]]]:
    """Outputs by system and training seed, in order of prompts (first search seed)."""
    scaled = study.of("scaling")
    compared = (PROPOSED, study.match_rule().method, BASELINE)
    chosen = {"deepalign": (study.of("section56"), deepalign_key(study))}
    chosen |= {method: (scaled, Key(method, "default", width(study, method))) for method in compared}
    outputs: dict[str, list[list[str]]] = {}
    for system, (results, key) in chosen.items():
        rows = results.rows(key)
        rows = rows[rows["search_seed"] == study.config.search.seeds[0]].sort_values("prompt_id")
        outputs[system] = [rows.loc[rows["train_seed"] == seed, "text"].tolist() for seed in results.seeds]
    return outputs


def deepalign_key(study: Study) -> Key:
    """The cell of section 5.6's DeepAlign policy."""
    run = roles.deepalign_run(study.config.search.experiments[study.name("section56")])
    assert run is not None  # checked by config.Search
    return Key(run.method, run.settings_id, 0)


def width(study: Study, method: str = PROPOSED) -> int:
    """Budget of a method in section 5.6."""
    budgets = study.of("scaling").budgets(method)
    return 32 if 32 in budgets else max(budgets)


def _quality_quantities(record: dict[str, Any]) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for name in ("starts_with_most_common", "contains_most_common"):
        for system, values in record["systems"].items():
            found[f"section56/{system}/{name}"] = Estimate.from_record(values[name])
        found[f"section56/{name}/saffron-deepalign"] = Estimate.from_record(record["differences"][name])
    return found
