"""How results are put into words: names of methods, units, and one caption per figure (what it shows, on how many prompts)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from saffron import workflow
from saffron.analysis.study import LABELS as LABELS
from saffron.analysis.study import PROPOSED
from saffron.analysis.view import View
from saffron.judges.discovery import kind
from saffron.methods.discovery import method, methods
from saffron.roles import Role

UNITS = ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"), (1.0, "FLOP"))


def unit(flops: Sequence[float] | float) -> tuple[float, str]:
    """Scale and name of the unit in which these FLOPs are read best."""
    largest = max([flops] if isinstance(flops, (int, float)) else flops)
    return next(((scale, name) for scale, name in UNITS if largest >= scale), UNITS[-1])


def with_unit(flops: float) -> str:
    """FLOPs with their unit: three digits, zeros among them, or all before the point."""
    scale, name = unit(flops)
    value = flops / scale
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {name}"


def prose(text: str) -> str:
    """A caption on one line."""
    return " ".join(text.split())


def _n(view: View, role: Role) -> str:
    rows = view.cells[view.cells["experiment"] == view.study.name(role)]
    seeds = int(rows["n_seeds"].iloc[0])
    trained = f"{seeds} training seed" + ("s" if seeds != 1 else "")
    return f"n = {int(rows['n_prompts'].iloc[0])} prompts of {rows['dataset'].iloc[0]}, {trained}"


def figure1(view: View) -> str:
    """Figure 1."""
    step = view.recorded.step
    kept = sum(candidate.kept for candidate in step.candidates)
    none = "none of them entered the next beam, other sequences' were better"
    fate = f"{kept} of them entered the next beam (“kept”)" if kept else none
    return prose(
        f"""Figure 1. One step of a real search (prompt {step.prompt_id} of {view.recorded.dataset}, step {step.step},
        training seed {view.seed}): a process reward model reads every candidate ({step.prm_calls} calls), the
        multifurcation reward model scores all of them in {step.mrm_calls} call. A PRM call reads the candidate and the guard's
        verdict question, with the conversation before them cached; the MRM's call reads the last token of the beam sequence.
        Numbers are rewards (logits), R(sa) on the left, M(s)[a] on the right, which approximates it; n =
        {len(step.candidates)} candidates; {fate}."""
    )


def figure2(view: View) -> str:
    """Figure 2, each FLOP counted once."""
    return prose(
        f"""Figure 2. Attack success rate against mean compute per prompt (policy and reward model, each FLOP counted once);
        {_n(view, "scaling")}; bars: 95 % intervals; dashed: ASR = a + b ln(compute), shaded its 95 % band; both from the
        bootstrap over prompts and training seeds; arrow: compute ratio at equal attack success between measured points.
        Right: the paper's points and fits, in its own units."""
    )


def figure2_per_model(view: View) -> str:
    """Figure 2, compute counted per model."""
    proposed = method(PROPOSED)
    others = " or ".join(
        str(count) for count in sorted({other.multiplier() for other in methods().values() if other != proposed})
    )
    return prose(
        f"""Figure 2, compute counted per model, as in the paper: FLOPs times the number of models loaded,
        {" or ".join(map(str, others))} for every PRM method and {proposed.multiplier()} for Saffron-1 (the released script
        loads {proposed.multiplier(fitted=False)}); {_n(view, "scaling")}; otherwise as Figure 2."""
    )


def figure3(view: View) -> str:
    """Figure 3."""
    search = next(s for s in view.recorded.searches if s.method == PROPOSED)
    cost = search.cost()
    errors = {name: view.analysis["quantities"][f"proposition2/{name}_error"]["value"] for name in ("space", "time")}
    return prose(
        f"""Figure 3. The token trie of one real Saffron-1 search (prompt {search.prompt_id} of {view.recorded.dataset},
        width {search.budget}): {cost.space} cached tokens in place of {cost.space_unshared}. A block is shared if more
        than one explored sequence runs through it. (c) Proposition 2: what remains of the unshared time (sum of squared
        lengths) and space (sum of lengths), over n = {len(view.recorded.searches)} recorded searches. Against what the engine
        itself counted in them, the two formulas are off by at most {errors["space"]:g} tokens and {errors["time"]:g} pairs."""
    )


def figure4a(view: View) -> str:
    """Figure 4a."""
    return prose(
        f"""Figure 4a. Saffron-1's attack success against compute, search widths beside the points; {_n(view, "scaling")};
        bars: 95 % intervals; dashed: logarithmic fit, shaded its 95 % band; grey: the paper's curve, its compute scaled so that
        N = 1 coincides."""
    )


def figure4b(view: View) -> str:
    """Figure 4b."""
    frame = view.mrm_evaluation
    conversations = frame["conversation_id"].nunique()
    return prose(
        f"""Figure 4b. MRM reward M(s)[a] against PRM reward R(sa) on n = {len(frame):,} held-out prefixes of
        {conversations:,} conversations (training seed {view.seed}); colour: prefixes per cell. Persistence: M(s)[a] = R(s)."""
    )


def scaleff(view: View) -> str:
    """ScalEff against the limit."""
    return prose(
        f"""ScalEff (Eq. 1) of Table 1's rows as a function of the compute limit; {_n(view, "exploration")}; dotted: the limit
        fixed beforehand. Without an attack that passes, ScalEff is undefined."""
    )


#: What each ablation changes.
ABLATIONS = {
    "ablation_bias": "Bias of the lm_head trained, frozen at a random value, or absent",
    "ablation_unseen": "Conservative constraint (Eq. 7) on or off; EOS counted as seen or unseen",
    "ablation_prefill": "The reward model (MRM or PRM) reading the prefilled tokens or not; the judges as ever",
    "ablation_top_p": "Nucleus of candidates",
    "ablation_scorer": "Candidates scored by the MRM or by PRM calls, in the same search",
    "ablation_semantics": "The paper's search or the released code's",
}


def ablation(view: View, name: str) -> str:
    """An ablation, a table or a figure."""
    ablation = view.config.analysis.ablations[name]
    results = view.study.results(ablation.experiment)
    seeds = len(results.seeds)
    trained = f"{seeds} training seed" + ("s" if seeds != 1 else "")
    return prose(
        f"""{ABLATIONS.get(name, name)}. n = {len(results.prompt_ids)} prompts of {results.dataset}, {trained}; 95 % intervals;
        differences are paired, to {ablation.runs[0].partition("-")[2]} of the same method."""
    )


def overoptimisation(view: View) -> str:
    """ASR by the judge that decides it against ASR by the next one."""
    first, *others = (workflow.judge_of(view.config, judge) for judge in view.judges[:2])
    other = f" and by {others[0].name} ({kind(others[0].kind).summary})" if others else ""
    return prose(
        f"""Over-optimisation: attack success by {first.name}{other}, as the budget of the searches, which maximise the guard's
        reward, grows; {_n(view, "scaling")}; shaded: 95 % intervals. A gap that widens with N is reward without safety."""
    )


def sharing(view: View) -> str:
    """Trie sharing on or off."""
    searches = view.section("tries")[str(view.seed)]
    return prose(
        f"""Trie sharing on or off, compute only: outputs are the same. Nominal FLOPs with which the policy reads what a search
        explored, each token of the trie once or every explored sequence on its own (Proposition 2); above the bars: what sharing
        leaves. n = {len(searches)} recorded searches, training seed {view.seed}."""
    )


#: Captions by file name of the figure.
CAPTIONS: dict[str, Callable[[View], str]] = {
    "figure1": figure1,
    "figure2": figure2,
    "figure2_per_model": figure2_per_model,
    "figure3": figure3,
    "figure4a": figure4a,
    "figure4b": figure4b,
    "scaleff": scaleff,
    "overoptimisation": overoptimisation,
    "sharing": sharing,
    **{name: partial(ablation, name=name) for name in ABLATIONS},
}
