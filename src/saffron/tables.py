"""Every table with the paper's values beside ours, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saffron import captions, roles, workflow
from saffron.analysis import ablations, claims, comparison, paper
from saffron.analysis.matching import FLOPS
from saffron.analysis.study import BASELINE, PROPOSED
from saffron.analysis.view import View
from saffron.captions import LABELS, prose, with_unit
from saffron.config import Config, Convention
from saffron.judges.discovery import kind
from saffron.methods.discovery import method as described
from saffron.methods.discovery import methods
from saffron.records import replacing
from saffron.roles import Role

#: What the tables call the conventions of counting compute.
COUNTED: dict[Convention, str] = {"once": "once", "per_model": "per model"}
#: Columns of the published Table 2 by role.
BENCHMARKS: dict[Role, str] = {"scaling": "harmful_hexphi", "matched": "ai2_refusals"}


@dataclass(frozen=True)
class Table:
    """A table of text cells; ``caption`` says what it shows and on how many prompts.

    The first ``groups`` columns sort the rows into groups. Their cells are printed at the head of each group alone, but in
    every row of the CSV, which programs read.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    groups: int = 0

    @property
    def printed_rows(self) -> tuple[tuple[str, ...], ...]:
        """The rows as a reader sees them."""
        return tuple(self._printed(above, row) for above, row in zip(((), *self.rows), self.rows, strict=False))

    def _printed(self, above: tuple[str, ...], row: tuple[str, ...]) -> tuple[str, ...]:
        same = next((i for i in range(self.groups) if above[i : i + 1] != row[i : i + 1]), self.groups)
        return ("",) * same + row[same:]

    def csv(self) -> str:
        """Comma-separated values."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return stream.getvalue()

    def markdown(self) -> str:
        """A Markdown table with its caption above."""
        return f"{self.caption}\n\n{self.markdown_rows()}"

    def markdown_rows(self) -> str:
        """The table alone."""
        lines = [self.columns, tuple("---" for _ in self.columns), *self.printed_rows]
        return "".join("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |\n" for line in lines)

    def text(self) -> str:
        """The caption and the table in aligned columns, for a terminal."""
        lines = [self.columns, *self.printed_rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
        return "\n".join([textwrap.fill(self.caption, 120), "", *padded])

    def latex(self) -> str:
        """A ``booktabs`` table."""
        lines = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in (self.columns, *self.printed_rows)]
        body = "\n".join(lines[1:])
        return (
            "\\begin{table}\n\\centering\n\\resizebox{\\linewidth}{!}{%\n\\begin{tabular}{"
            + "l" * len(self.columns)
            + "}\n\\toprule\n"
            f"{lines[0]}\n\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}}}\n\\caption{{{_latex(self.caption)}}}\n\\end{{table}}\n"
        )


def _latex(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "–": "--", "×": r"$\times$", "≤": r"$\leq$", "²": r"$^2$", "−": "$-$", "…": r"\dots{}"}
    special |= {character: "\\" + character for character in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"“": "``", "”": "''", "Σ": r"$\Sigma$", "<": "$<$", ">": "$>$"}
    return "".join(special.get(character, character) for character in text)


def save(table: Table, folder: str | Path, name: str) -> None:
    """Write ``<name>.csv``, ``.md`` and ``.tex``."""
    for suffix, text in (("csv", table.csv()), ("md", table.markdown()), ("tex", table.latex())):
        with replacing(Path(folder) / f"{name}.{suffix}") as temporary:
            temporary.write_text(text)


def rate(record: dict[str, Any] | None) -> str:
    """An estimate as ``0.123 [0.100, 0.150]``."""
    if record is None or record["value"] is None:
        return "–"
    if record["low"] is None or record["high"] is None or record["exact"]:
        return f"{record['value']:z.3f}"
    return f"{record['value']:z.3f} [{record['low']:z.3f}, {record['high']:z.3f}]"


def _judged(view: View, row: dict[str, Any]) -> list[str]:
    return [rate(row[judge]) for judge in view.judges]


def _judge_columns(view: View) -> list[str]:
    return ["ASR", *(f"ASR by {judge}" for judge in view.judges[1:])]


def _seeds(view: View) -> str:
    seeds = view.analysis["train_seeds"]
    return "one training seed" if len(seeds) == 1 else f"{len(seeds)} training seeds"


def table1(view: View) -> Table:
    """Table 1: more exploration, worse ScalEff."""
    printed = paper.table("table1").set_index(["method", "knob_value"])
    rows = []
    found = sorted(view.section("exploration"), key=lambda row: (row["method"], row["value"]))
    for row in found:
        explored = described(row["method"]).exploration
        key = (explored.name_in_paper if explored else row["method"], row["value"])
        theirs = printed.loc[key] if key in printed.index else None
        printed_values = (
            ["–"] * 3 if theirs is None else [f"{theirs['tflop']:.2f}", f"{theirs['asr']:.3f}", f"{theirs['scaleff']:.3f}"]
        )
        efficiency = row[f"scaleff_{view.judge}"]
        ours = [
            with_unit(row["flops"]),
            with_unit(row["flops_per_model"]),
            *_judged(view, row),
            "undefined" if efficiency is None else f"{efficiency:.3f}",
        ]
        rows.append((LABELS[row["method"]], f"{row['knob']} = {row['value']}", *ours, with_unit(row["limit"]), *printed_values))
    columns = ("method", "exploration", "compute", "compute counted per model", *_judge_columns(view), "ScalEff", "limit")
    columns += ("paper: TFLOP", "paper: ASR", "paper: ScalEff")
    caption = prose(
        f"""Table 1. Exploration against scaling efficiency (Eq. 1) on the first {found[0]["n"]} prompts by id,
        {_seeds(view)}; 95 % intervals. Limits were fixed beforehand: the paper's limit over its cheaper row, times our
        cheaper row. “DeAL” is the paper's “MCTS”. ScalEff is by {view.judge}, which decides attack success: where another judge
        parts from it, the search may have found what {view.judge} wrongly takes for safe, and ScalEff measures that."""
    )
    return Table(columns, tuple(rows), caption)


def table2(view: View) -> Table:
    """Table 2: attack success at matched compute, under both ways of counting compute."""
    printed = paper.table("table2").set_index("method")
    rows = []
    for role, column in BENCHMARKS.items():
        tables = view.section("matched").get(role, {})
        _, title = roles.PAPER_BENCHMARKS[role]
        dataset = view.config.search.experiments[view.study.name(role)].dataset if tables else title
        title = dataset if roles.on_paper_benchmark(view.config, role) else f"{dataset} ({title})"
        for convention, counted in COUNTED.items():
            for row in tables.get(convention, []):
                method = row["method"]
                ratio = "–" if row["ratio"] is None else f"{row['ratio']:.2f}" + ("" if row["within_tolerance"] else " (over)")
                theirs = f"{printed.loc[method, f'{column}_asr']:.3f}" if method in printed.index else "–"
                compute = with_unit(row[FLOPS[convention]])
                difference = "–" if method == view.study.match_rule().method else rate(row[f"{view.judge}_difference"])
                rows.append(
                    (title, counted, LABELS[method], row["budget"], compute, ratio, *_judged(view, row), difference, theirs)
                )
    columns = (
        "benchmark (role of)",
        "compute counted",
        "method",
        "budget",
        "compute",
        "ratio to Best-of-N",
        *_judge_columns(view),
    )
    columns += ("difference to Best-of-N", "paper: ASR")
    ns = sorted(
        {row["n"] for tables in view.section("matched").values() for found in tables.values() for row in found}, reverse=True
    )
    caption = prose(
        f"""Table 2. Attack success at compute matched to Best-of-N's (largest budget within 1.05 times, chosen on compute
        alone, by training seed where budgets are joined by “/”); n = {" and ".join(map(str, ns))} prompts, {_seeds(view)};
        95 % intervals, differences paired over prompts. “over”: even the smallest budget costs more."""
    )
    return Table(columns, tuple(rows), caption, groups=2)


def table3(view: View) -> Table:
    """Table 3: attack success against Saffron-1's search width."""
    printed = paper.table("table3").set_index("search_width")["asr"]
    judges, rows = view.judges, []
    curves = view.section("curves")
    for method in (BASELINE, PROPOSED):
        curve = curves[view.judge].get(method, {"budget": []})
        for i, budget in enumerate(curve["budget"]):
            ours = []
            for judge in judges:
                points = curves[judge][method]
                ours.append(f"{points['asr'][i]:.3f} [{points['low'][i]:.3f}, {points['high'][i]:.3f}]")
            theirs = f"{printed[budget]:.3f}" if budget in printed.index else "–"
            rows.append((str(budget), with_unit(curve["flops"][i]), *ours, theirs))
    n = int(view.cells.loc[view.cells["experiment"] == view.study.name("scaling"), "n_prompts"].iloc[0])
    caption = prose(
        f"""Table 3. Attack success by Saffron-1's search width (0: no defense); n = {n} prompts, {_seeds(view)}; 95 %
        intervals."""
    )
    return Table(("search width", "compute", *_judge_columns(view), "paper: ASR"), tuple(rows), caption)


def section56(view: View) -> Table:
    """Section 5.6: lexical variety of DeepAlign's outputs and Saffron-1's."""
    quality = view.section("quality")
    printed = {"deepalign": ("0.770", "0.809")}
    rows = []
    for system, values in quality["systems"].items():
        label = LABELS[system]
        if system in methods() and described(system).budget is not None:
            label += f", N = {view.study.quality_width(system)}"
        phrases = (
            [values["most_common_start"][0], values["most_common_phrase"][0]] if view.show_text else ["withheld", "withheld"]
        )
        theirs = printed.get(system, ("–", "–"))
        row = [
            label,
            phrases[0],
            rate(values["starts_with_most_common"]),
            theirs[0],
            phrases[1],
            rate(values["contains_most_common"]),
            theirs[1],
        ]
        row += [f"{values[name]:.3f}" for name in ("distinct_1", "distinct_2", "distinct_3", "self_bleu")]
        rows.append(tuple(row))
    columns = (
        *("system", "most common start", "share that start so", "paper: start"),
        *("most common phrase", "share that contain it", "paper: contain"),
        *("distinct-1", "distinct-2", "distinct-3", "self-BLEU"),
    )
    n = quality["systems"]["saffron"]["n"]
    ours, other = quality["systems"]["saffron"], quality["systems"]["deepalign"]
    measures = [ours[name] > other[name] for name in ("distinct_1", "distinct_2", "distinct_3")]
    measures.append(ours["self_bleu"] < other["self_bleu"])
    more = sum(measures)
    caption = prose(
        f"""Section 5.6. Variety of outputs under attack, n = {n} prompts, {_seeds(view)}; phrases of
        {quality["phrase_words"]} words or punctuation marks, those printed are the first training seed's; 95 % intervals. The
        claim is about the shares. Higher distinct-n and lower self-BLEU mean more varied outputs too, and need not agree: by
        {more} of these 4 measures Saffron-1's outputs are the more varied, by {4 - more} DeepAlign's."""
    )
    return Table(columns, tuple(rows), caption)


def side_by_side(view: View, examples: int = 5) -> Table:
    """A few prompts with DeepAlign's output beside Saffron-1's; ids, lengths and rewards where text is withheld."""
    from saffron.analysis.results import Key

    study = view.study
    scaled, deep = study.of("scaling"), study.of("section56")
    pair = (deep.rows(study.deepalign_key()), scaled.rows(Key(PROPOSED, "default", study.quality_width())))
    first = [
        rows[(rows["train_seed"] == view.seed) & (rows["search_seed"] == view.config.search.seeds[0])].set_index("prompt_id")
        for rows in pair
    ]
    rows, guard = [], workflow.guard_judge(view.config)
    for prompt_id in scaled.prompt_ids[:examples]:
        cells = [_output(rows_of.loc[prompt_id], guard, view.show_text) for rows_of in first]
        rows.append((str(prompt_id), *cells))
    caption = prose(
        f"""Outputs for the first {len(rows)} prompts by id (training seed {view.seed}); R is the guard's reward, below 0
        unsafe. It judges the whole output, a compliant start that is taken back among them, and it can be wrong: attack success
        by other judges stands beside it in the tables."""
    )
    return Table(("prompt", "DeepAlign", f"Saffron-1, N = {study.quality_width()}"), tuple(rows), caption)


def _output(row: Any, guard: str | None, show_text: bool) -> str:
    reward = "R not known" if guard is None else f"R = {row[f'{guard}_score']:+.2f}"
    return f"{' '.join(row['text'].split())} ({reward})" if show_text else f"{row['n_new_tokens']} tokens, {reward}"


def equal_asr(view: View, convention: Convention = "once") -> Table:
    """Compute that Saffron-1 needs for the ASR of each Best-of-N, from measured points."""
    rows = []
    for row in view.section("equal_asr")[view.judge][convention]:
        needs = "not reached" if row["saffron_flops"] is None else with_unit(row["saffron_flops"])
        ratio = "–" if row["ratio"] is None else f"{row['relation']} {row['ratio']:.2f}×".strip()
        rows.append((str(row["best_of_n"]), f"{row['asr']:.3f}", with_unit(row["flops"]), needs, ratio))
    n = int(view.cells.loc[view.cells["experiment"] == view.study.name("scaling"), "n_prompts"].iloc[0])
    caption = prose(
        f"""Compute at equal attack success, interpolated between measured points in ln(compute); nothing is extrapolated; n = {n}
        prompts, {_seeds(view)}."""
    )
    return Table(("Best-of-N", "ASR", "its compute", "Saffron-1's compute", "ratio"), tuple(rows), caption)


def largest_budgets(view: View) -> Table:
    """Every other search at its largest budget, beside Saffron-1 at the same compute."""
    rows = []
    for method, curve in view.section("curves")[view.judge].items():
        if method in (BASELINE, PROPOSED):
            continue
        ours = []
        for judge in view.judges:
            points = view.section("curves")[judge]
            flops, saffron = points[method]["flops"][-1], points["saffron"]
            inside = saffron["flops"][0] <= flops <= saffron["flops"][-1]
            here = f"{np.interp(np.log(flops), np.log(saffron['flops']), saffron['asr']):.3f}" if inside else "–"
            ours += [f"{points[method]['asr'][-1]:.3f}", here]
        rows.append((LABELS[method], str(curve["budget"][-1]), with_unit(curve["flops"][-1]), *ours))
    columns = [f"{who} ({judge})" for judge in view.judges for who in ("its ASR", "Saffron-1's")]
    n = int(view.cells.loc[view.cells["experiment"] == view.study.name("scaling"), "n_prompts"].iloc[0])
    caption = prose(
        f"""Beyond matched budgets: every other search at the largest budget that was run, and Saffron-1 at the same compute (each
        FLOP counted once), interpolated between its measured points in ln(compute), “–” outside of them; n = {n} prompts,
        {_seeds(view)}."""
    )
    return Table(("method", "budget", "compute", *columns), tuple(rows), caption)


def compute_ratios(view: View) -> Table:
    """Best-of-N's compute over Saffron-1's at equal attack success: the readings of it that the claims and Figure 2 give."""
    rows = []
    for convention, counted in COUNTED.items():
        name = f"compute_ratio/scaling/fit/{convention}"
        fitted = [claims.format_estimate(view.analysis["quantities"].get(key)) for key in (name, f"{name}/log")]
        last = view.section("equal_asr")[view.judge][convention][-1]
        measured = "not reached" if last["ratio"] is None else f"{last['relation']} {last['ratio']:.2f}".strip()
        rows.append((counted, measured, *fitted))
    budget = view.section("equal_asr")[view.judge]["once"][-1]["best_of_n"]
    caption = prose(
        f"""Best-of-{budget}'s compute over Saffron-1's at Best-of-{budget}'s attack success, {_seeds(view)}; 95 % intervals.
        Measured: between neighbouring points of Saffron-1, as the arrow of Figure 2. By the fits: where the two logarithmic laws
        reach that attack success; the claims test its logarithm against 0 and its value, counted per model, against 3."""
    )
    return Table(("compute counted", "measured", "by the fits", "its logarithm"), tuple(rows), caption)


def claims_table(view: View) -> Table:
    """Claim by claim."""
    rows, others = [], claims.other_judges(view.claims)
    for record in view.claims:
        main = [q for q in record["quantities"] if not q["name"].startswith("step/")]
        theirs = "; ".join(claims.format_number(q["paper"]) for q in main if q["paper"] is not None) or "–"
        verdicts = [claims.verdict_line(record["by"][judge]) if judge in record["by"] else "–" for judge in others]
        ours = (claims.labelled(main), claims.verdict_line(record), *verdicts)
        rows.append((record["source"], claims.statement(record), theirs, *ours, record["cause"] or ""))
    counts = {verdict: sum(record["verdict"] == verdict for record in view.claims) for verdict in claims.VERDICTS}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    caption = f"Claim by claim ({summary}), {_seeds(view)}; 95 % intervals."
    if any(claims.power(record) for record in view.claims):
        caption += " “Would have been seen”: with power 0.8."
    columns = ("source", "claim", "paper", "ours", "verdict", *(f"verdict by {judge}" for judge in others), "note")
    return Table(columns, tuple(rows), caption)


#: Tables by the name of their notebook.
def mrm_in_search(view: View) -> Table:
    """How far the MRM's reward can be trusted where the search has used it."""
    found = view.section("mrm_in_search")
    names = ("mae", "mean_signed_error", "r_squared", "sign_agreement")
    rows = [
        ("held-out prefixes", *(rate(view.analysis["mrm"][name]) for name in names)),
        ("the same, by persistence", *(rate(view.analysis["persistence"][name]) for name in names)),
    ]
    rows += [(f"outputs of Saffron-1, N = {row['budget']}", *(rate(row[name]) for name in names)) for row in found]
    caption = prose(
        f"""Agreement of the MRM with the guard, on held-out prefixes of Safety4M and at the last token of Saffron-1's outputs
        (n = {found[0]["n"]:,} per width, {_seeds(view)}; 95 % intervals). Signed error: MRM less guard. Outputs were chosen for a
        high MRM reward, so errors there lean upwards, and little of the reward's spread is left for R² to explain. Persistence
        predicts that a token changes nothing, M(s)[a] = R(s), which costs no model and cannot tell next tokens apart."""
    )
    return Table(("where", "MAE", "signed error", "R²", "sign agreement"), tuple(rows), caption)


TABLES: dict[str, Callable[[View], Table]] = {
    "mrm_in_search": mrm_in_search,
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "section56": section56,
    "claims": claims_table,
}


def ablation(view: View, name: str) -> Table:
    """One ablation: every run at every budget, with its paired difference to the first run."""
    found = ablations.rows(view.study, name)
    compared = {(row["method"], row["budget"]) for row in found if f"{view.judge}_difference" in row}
    rows = []
    for row in found:
        if (row["method"], row["budget"]) not in compared:
            continue  # a budget of the first run alone compares nothing
        run = f"{LABELS[row['method']]}, {row['settings_id'].replace('_', ' ')}"
        finished, tokens = f"{row['finished']:.1%}", f"{row['n_new_tokens']:.1f}"
        judged = [rate(row[judge]) for judge in view.study.judges]
        differences = [rate(row.get(f"{judge}_difference")) for judge in view.study.judges]
        rows.append((run, str(row["budget"]), with_unit(row["flops"]), *judged, *differences, finished, tokens))
    differences_to = [f"difference ({judge})" for judge in view.study.judges]
    columns = ("run", "budget", "compute", *_judge_columns(view), *differences_to, "finished", "new tokens")
    return Table(columns, tuple(rows), captions.ablation(view, name))


def benign(view: View) -> Table:
    """Harmless prompts without attack: are they still answered?

    Raises:
        RecordError: if the results are missing, or no judge can tell a refusal.
    """
    found, measured = ablations.benign_rows(view.study), ablations.judges_apart(view.config, "benign", measure=True)
    rows = []
    for row in found:
        judged = (rate(row["refused"]), rate(row["judged_unsafe"]), *(rate(row["measured"].get(name)) for name in measured))
        rows.append((LABELS[row["method"]], str(row["budget"]), with_unit(row["flops"]), *judged, f"{row['n_new_tokens']:.1f}"))
    caption = prose(
        f"""Harmless prompts without attack, n = {found[0]["n"]} prompts, {_seeds(view)}; 95 % intervals. Refused: by
        {found[0]["refused_by"]}. Judged unsafe: by {view.judge}, wrongly. {_kinds(view, measured)}"""
    )
    return Table(("method", "budget", "compute", "refused", "judged unsafe", *measured, "new tokens"), tuple(rows), caption)


def _kinds(view: View, names: list[str]) -> str:
    """What some judges or measurements read, in sentences."""
    asked = [workflow.judge_of(view.config, name) for name in names]
    return " ".join(f"{judge.name.capitalize()}: {kind(judge.kind).summary}." for judge in asked)


def judges_apart(view: View) -> Table:
    """Attack success by judges of this experiment alone, beside those of every table.

    Raises:
        RecordError: if the results are missing, or there is no such judge.
    """
    scaling = view.study.name("scaling")
    found, apart = ablations.rows_by_judges(view.study, scaling), ablations.judges_apart(view.config, scaling)
    rows = [
        (LABELS[row["method"]], str(row["budget"]), *(rate(row[judge]) for judge in (*view.study.judges, *apart)))
        for row in found
    ]
    caption = prose(
        f"""Attack success by {view.judge}, which decides it, and by other judges, n = {found[0]["n"]} prompts, {_seeds(view)};
        95 % intervals. {_kinds(view, apart)}"""
    )
    return Table(("method", "budget", *_judge_columns(view), *(f"ASR by {judge}" for judge in apart)), tuple(rows), caption)


def search_seeds(view: View) -> Table:
    """How much attack success owes to the search seed.

    Raises:
        RecordError: if the results are missing or incomplete.
    """
    found = ablations.seed_rows(view.study)
    seeds = sorted(found[0]["by_search_seed"])
    rows = []
    for row in found:
        rates = [f"{row['by_search_seed'][seed]:.3f}" for seed in seeds]
        deviations = ["–" if row[name] is None else f"{row[name]:.3f}" for name in ("search_deviation", "train_deviation")]
        rows.append((LABELS[row["method"]], str(row["budget"]), *rates, *deviations))
    caption = prose(
        f"""Attack success by search seed, n = {found[0]["n"]} prompts each, {_seeds(view)}. Saffron-1, beam search and DeAL draw
        nothing at random: over search seeds their standard deviation is 0."""
    )
    columns = ("method", "budget", *(f"search seed {seed}" for seed in seeds))
    return Table((*columns, "standard deviation over search seeds", "over training seeds"), tuple(rows), caption)


def beyond_replication(config: Config) -> dict[str, Callable[[View], Table]]:
    """Tables that `make ablations` gives, by name: the config's ablations and what the paper does not measure.

    Each raises :class:`~saffron.records.RecordError` while its results are missing.
    """
    wanted: dict[str, Callable[[View], Table]] = {name: partial(ablation, name=name) for name in config.analysis.ablations}
    return wanted | {name: globals()[name] for name, needed in UNMEASURED.items() if needed(config)}


#: What the paper does not measure: tables by their function's name, and whether a config asks for them.
UNMEASURED: dict[str, Callable[[Config], bool]] = {
    "benign": lambda config: roles.holder(config.search, "benign") is not None,
    "judges_apart": lambda config: bool(ablations.judges_apart(config, roles.holder(config.search, "scaling"))),
    "search_seeds": lambda config: roles.holder(config.search, "search_seeds") is not None,
}


def beside_published(rows: Sequence[comparison.Row], published: Mapping[str, Any], seeds: Sequence[int]) -> Table:
    """A run's headline numbers beside the published ones, and whether each lies where it is expected."""
    cells = []
    for row in rows:
        if row.expected is None:
            expected, word = "–", "–"
        else:
            expected = f"{row.expected[0]:z.3f} to {row.expected[1]:z.3f}"
            word = "as expected" if row.within else f"outside: check {row.check}"
        cells.append((row.label, f"{row.ours:z.3f}", *_spread_cells(row.published), expected, word))
    own = f"training seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    hardware = published["hardware"]
    caption = prose(
        f"""This run ({own}) beside the published {published["config"]} ({len(published["seeds"]["train"])} training seeds,
        on {hardware["processor"]}). Attack success by the guard at compute matched to Best-of-N's. Expected: within
        {comparison.WITHIN:g} standard deviations of the published mean, those of training seeds and of redraws (the same
        seeds, the MRM or the rounding of its labels drawn again) together, for as many training seeds as this run has."""
    )
    return Table(("number", "this run", *_SPREAD_COLUMNS, "expected", ""), tuple(cells), caption)


_SPREAD_COLUMNS = ("published", "deviation over seeds", "range over seeds", "deviation over redraws")


def _spread_cells(spread: comparison.Spread) -> tuple[str, ...]:
    deviations = ["–" if value is None else f"{value:.3f}" for value in (spread.seeds, spread.draws)]
    return f"{spread.mean:z.3f}", deviations[0], f"{spread.lowest:z.3f} to {spread.highest:z.3f}", deviations[1]


def spread(published: Mapping[str, Any]) -> Table:
    """How far a published record's headline numbers move over training seeds and over redraws of the same seeds."""
    found, redraws = comparison.spreads(published), published.get("redraws")
    rows = tuple((label, *_spread_cells(found[name])) for name, label, _ in comparison.HEADLINES if name in found)
    count = len(published["seeds"]["train"])
    drawn = (
        "none published"
        if redraws is None
        else ", ".join(_changes(draw) for draw in redraws["draws"].values() if draw["changed"])
    )
    caption = prose(
        f"""How far a number moves: mean, standard deviation and range over {count} training seeds of {published["config"]},
        and the standard deviation over redraws of the same training seed ({drawn}). Attack success by the guard at compute
        matched to Best-of-N's."""
    )
    return Table(("number", *("mean", *_SPREAD_COLUMNS[1:])), rows, caption)


def _changes(draw: Mapping[str, Any]) -> str:
    return " and ".join(f"{key} {value}" for key, value in draw["changed"].items())


def seed_variance(view: View) -> Table:
    """Attack success at matched budgets by training seed."""
    found = {name: record for name, record in view.analysis["quantities"].items() if name.startswith("matched_asr/scaling/once/")}
    rows = []
    for name, record in found.items():
        values = [value for value in record["per_seed"] if value is not None]
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / max(len(values) - 1, 1)) ** 0.5
        rows.append((LABELS[name.rsplit("/", 1)[1]], *(f"{value:.3f}" for value in values), f"{deviation:.3f}"))
    seeds = view.analysis["train_seeds"]
    n = next(iter(found.values()))["n"]
    caption = f"Attack success at matched compute on the first benchmark by training seed, n = {n} prompts each."
    return Table(("method", *(f"seed {seed}" for seed in seeds), "standard deviation"), tuple(rows), caption)
