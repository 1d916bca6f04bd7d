"""What a config costs before it is run: jobs, FLOPs, hours on GPUs or on this CPU, disk and memory of every stage.

FLOPs come from the analytic side of :mod:`saffron.engine.compute`: a model's shape, the lengths of what it reads, and how many
nodes a search has. Before a run the searches are taken to be full (no sequence ends early, none begin alike) and lengths
are the assumptions below; where a run has left tables behind, its lengths and its numbers of reward calls take their place,
and the plan then reproduces the ledger's count.

On a CPU the hours are those of this machine: what each stage multiplies (:class:`Work`; an lm_head only where its logits are
used), at the pace that was measured at the models' shapes (:mod:`saffron.models.speed`), and a start for every job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from saffron import records, workflow
from saffron.chat import ChatFormat, ChatFormats
from saffron.config import (
    ChatText,
    ChatTexts,
    Config,
    Experiment,
    Judge,
    Optimisation,
    Rows,
    Run,
    TruncatedGuard,
)
from saffron.engine.compute import ModelShape
from saffron.figures import discovery
from saffron.judges.discovery import kind
from saffron.layout import PAPER, Layout
from saffron.methods.base import Size
from saffron.methods.cost import grown, judged
from saffron.methods.discovery import method as described
from saffron.methods.discovery import ordered
from saffron.models.shapes import shape_of
from saffron.sources import files
from saffron.table import Table

if TYPE_CHECKING:
    from saffron.models.speed import Speed

#: Dense bfloat16 peak of one GPU, FLOP per second (vendors' data sheets).
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}
#: Share of the peak that is taken to be reached: assumptions, not measurements. Searches are bound by memory traffic.
UTILISATION = {"models": 0.35, "safety4m": 0.35, "mrm": 0.35, "search": 0.10, "judge": 0.10}
#: Least time of one forward (and backward) step, however small: launching its kernels takes that long. An assumption too.
SECONDS_PER_STEP = 0.03

#: Prompts of a set, and conversations, where the config names no number and the files are not here.
PROMPTS, CONVERSATIONS = 300, 160_000

#: Tokens of a prompt before anything is read (the paper's benchmarks).
PROMPT_TOKENS = 21
#: Tokens of a conversation before its response, and responses per pair that begin within the window: HH-RLHF (harmless-base/test)
#: cut to 128 tokens; another window has more or less of them about in proportion. The sandbox's conversations all fit.
CONVERSATION_PROMPT_TOKENS, WINDOW = 55, 128
RESPONSES_PER_ROW = {"sandbox": 2.0, "other": 1.3}
#: Tokens of a sandbox dialogue.
DIALOGUE_TOKENS = 64
#: Prefixes of a response at which a guard of the policy's first layers learns its verdict (saffron.models.truncated).
VERDICTS_PER_RESPONSE = 6
#: Labelled prefixes per preference pair: the release trained on 5.78 million prefixes of 160,800 pairs.
PREFIXES_PER_ROW = 36

#: A control token's name in a chat format, and characters of one other token.
CONTROL, CHARACTERS_PER_TOKEN = re.compile(r"<\|[^|]*\|>"), 4

#: Bytes of a number; what ``auto`` will choose is not known before, so it is taken to be the larger.
_WIDTH = {"float64": 8, "float32": 4, "bfloat16": 2, "auto": 4}


@dataclass(frozen=True)
class Lengths:
    """Tokens that the models read before a response begins, and around a verdict (means over prompts)."""

    policy_prompt: float  # template, prompt and prefilled tokens
    guard_prompt: float
    mrm_prompt: float
    guard_suffix: int


@dataclass(frozen=True)
class Counts:
    """Size of one search of one prompt: reward calls and new tokens per sequence (means over prompts)."""

    calls: float
    new_tokens: float


@dataclass(frozen=True)
class Work:
    """What one model does in a stage, as a CPU sees it.

    Args:
        model: whose pace counts; the MRM's is the guard's.
        flops: of the products that are computed, over all jobs and seeds.
        steps: forward or training steps one after another.
        trains: whether there is a backward pass.
    """

    model: Literal["policy", "guard"]
    flops: float
    steps: float
    trains: bool = False


@dataclass(frozen=True)
class Row:
    """One stage's cost over all its jobs and seeds."""

    stage: str
    jobs: int
    flops: float  # on a GPU; 0 for stages that need none
    disk: float  # bytes
    memory: float  # bytes a job holds at once, on the GPU where it uses one
    steps: float = 0.0  # forward or training steps one after another
    note: str = ""
    work: tuple[Work, ...] = ()
    side_by_side: int = 1  # jobs that can run at once, whatever the cores


# -------------------------------------------------------------------------------------------------------------- search
def size_of(budget: int, counts: Counts | None, lengths: Lengths, policy: ModelShape, guard: ModelShape, new_tokens: int) -> Size:
    """One search of one prompt, as the method's description is asked for its cost.

    Args:
        budget: the run's.
        counts: of a finished run (None: a full search of ``new_tokens``).
        lengths: of what the models read.
        policy: shape of the policy.
        guard: shape of the guard, and of the MRM.
        new_tokens: the limit.
    """
    return Size(
        budget=budget,
        new_tokens=float(new_tokens) if counts is None else counts.new_tokens,
        calls=None if counts is None else counts.calls,
        policy_prompt=lengths.policy_prompt,
        guard_prompt=lengths.guard_prompt,
        mrm_prompt=lengths.mrm_prompt,
        guard_suffix=lengths.guard_suffix,
        policy=policy,
        guard=guard,
    )


# ------------------------------------------------------------------------------------------------------------- lengths
def lengths_of(config: Config, layout: Layout, run: Run, prompt_tokens: float) -> Lengths:
    """What the models read in a run whose prompts have ``prompt_tokens`` tokens on average."""
    formats = _formats(config, layout)
    prefill = config.search.prefill_tokens if run.attack else 0
    rewarded = prefill if getattr(config.search.settings_of(run), "reward_reads_prefill", False) else 0
    return Lengths(
        policy_prompt=len(formats.policy.prompt([])) + prompt_tokens + prefill,
        guard_prompt=len(formats.guard.prompt([])) + prompt_tokens + rewarded,
        mrm_prompt=len(formats.mrm.prompt([])) + prompt_tokens + rewarded,
        guard_suffix=len(formats.guard.suffix),
    )


def _formats(config: Config, layout: Layout) -> ChatFormats:
    if (layout.tokenizer / "chat_formats.json").exists():
        return ChatFormats.load(layout.tokenizer)
    reference = PAPER / "chat_formats.json"
    own = config.models.hub.chat_formats if config.models.hub is not None and config.models.origin == "hub" else None
    policy = "llama3_policy" if config.models.hub is None or own is None else config.models.hub.policy_format
    if isinstance(own, ChatTexts):
        return _as_long(ChatFormats.load(reference, policy="llama3_policy"), policy=own.policy, guard=own.guard, mrm=own.mrm)
    formats = ChatFormats.load(own or reference, policy=policy)
    if config.models.origin == "sandbox" and config.models.sandbox is not None:
        return _as_long(formats, guard=ChatText(suffix=f"\n{config.models.sandbox.guard_question}<|end|><|assistant|>"))
    return formats


def _as_long(formats: ChatFormats, **texts: ChatText | None) -> ChatFormats:
    """Formats of about as many tokens as these texts will have; a template's length is known with its tokenizer alone."""
    for name, text in texts.items():
        if text is not None and not text.template:
            prefix, infix, suffix = ((0,) * _tokens(part) for part in (text.prefix, text.infix, text.suffix))
            formats = replace(formats, **{name: ChatFormat(prefix, infix, suffix)})  # type: ignore[arg-type]
    return formats


def _tokens(text: str) -> int:
    """About how many tokens a text has: control tokens are one each, four characters of the rest one."""
    rest = CONTROL.sub("", text)
    return len(CONTROL.findall(text)) + -(-len(rest) // CHARACTERS_PER_TOKEN)


def _prompt_tokens(layout: Layout, experiment: Experiment) -> float:
    """Mean length of an experiment's prompts: counted if sources and tokenizer are there, else assumed."""
    path = layout.prompts(experiment.dataset)
    if not path.exists() or not (layout.tokenizer / "tokenizer.json").exists():
        return PROMPT_TOKENS
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(layout.tokenizer / "tokenizer.json"))
    prompts = records.read_table(path, records.PROMPTS)["prompt"].iloc[: experiment.prompts]
    encoded = tokenizer.encode_batch(prompts.tolist(), add_special_tokens=False)
    return sum(len(one.ids) for one in encoded) / len(encoded)


def _prompt_count(config: Config, layout: Layout, experiment: Experiment) -> int:
    """Prompts of an experiment."""
    if layout.prompts(experiment.dataset).exists():
        count = len(records.read_table(layout.prompts(experiment.dataset), records.PROMPTS))
    else:
        count = _prompts_of(config, experiment.dataset)
    return min(count, experiment.prompts or count)


def _prompts_of(config: Config, name: str) -> int:
    """Prompts of a set, as the config says; an assumed number where it does not."""
    rows = config.sources.prompts[name]
    if rows.origin == "sandbox":
        return int(getattr(config.sources.sandbox, rows.part or name))
    if rows.split is not None:
        return config.sources.splits[rows.split].parts[rows.part or name]
    return _rows_of(rows, f"sources.prompts.{name}", PROMPTS)


def _rows_of(rows: Rows, key: str, assumed: int) -> int:
    """Rows of a source, as the config says, else as its local files have them, else ``assumed``."""
    named = rows.rows
    counts = list(named.values()) if isinstance(named, dict) else [named or files.count(rows, key) or assumed]
    return sum(min(count, rows.max_rows or count) for count in counts)


def _measured(layout: Layout, config: Config, name: str) -> dict[tuple[str, str, int], Counts]:
    """Sizes of the finished searches of an experiment, by method, settings and budget."""
    import pandas as pd

    paths = [layout.search(seed, name) for seed in config.train_seeds]
    if not all(path.exists() for path in paths):
        return {}
    table = pd.concat([records.read_table(path, records.SEARCH) for path in paths])
    means = table.groupby(["method", "settings_id", "budget"])[["reward_calls", "n_new_tokens"]].mean()
    return {key: Counts(calls, length) for key, (calls, length) in zip(means.index, means.to_numpy().tolist(), strict=True)}


# -------------------------------------------------------------------------------------------------------------- stages
def rows(config: Config, layout: Layout) -> list[Row]:
    """The cost of every stage.

    Raises:
        ShapeError: if a model's size is not known.
    """
    return [
        _sources(config),
        _models(config, layout),
        _safety4m(config, layout),
        _mrm(config, layout),
        _search(config, layout),
        _judge(config, layout),
        _figures(config),
    ]


def search_costs(config: Config, layout: Layout) -> dict[tuple[str, str, int], float]:
    """FLOPs of every run at every budget by (experiment, run key, budget), over all prompts and seeds; ablations left out.

    A matched run counts once, at the largest budget that is planned to cost what the run does that it is matched to, unless its
    table says which one was taken.
    """
    return {key: sum(both) for key, both in _search_costs(config, layout).items()}


def _search_costs(config: Config, layout: Layout, *, computed: bool = False) -> dict[tuple[str, str, int], tuple[float, float]]:
    """The same of the policy and of the reward model.

    Args:
        config: whose searches.
        layout: where their tables are, once they have run.
        computed: only what a search computes: a guard's lm_head has two rows that are used, and smaller budgets that are part
            of the largest cost nothing more.
    """
    policy, guard = shape_of(config, layout, "policy"), shape_of(config, layout, "guard")
    costs = {}
    for name, experiment in workflow.experiments(config).items():
        measured, prompt_tokens = _measured(layout, config, name), _prompt_tokens(layout, experiment)
        searches = _prompt_count(config, layout, experiment) * len(config.train_seeds)
        searches *= len(config.search.seeds_of(experiment))

        def cost(
            run: Run, budget: int, reward: ModelShape = guard, measured: Any = measured, tokens: float = prompt_tokens
        ) -> tuple[float, float]:
            counts, lengths = measured.get((run.method, run.settings_id, budget)), lengths_of(config, layout, run, tokens)
            size = size_of(budget, counts, lengths, policy, reward, config.search.max_new_tokens)
            return described(run.method).cost(config.search.settings_of(run), size)

        for run in experiment.runs:
            reward = _body(guard) if computed and not workflow.mrms_of(config, run) else guard
            budgets = _budgets(run, experiment, measured)
            if experiment.match is not None and not measured:
                budgets = [_matched_budget(run, experiment, lambda run, budget, cost=cost: sum(cost(run, budget)))]  # type: ignore[misc]
            for budget in budgets:
                free = computed and described(run.method).shared_budgets and budget != max(budgets)
                by_policy, by_reward = (0.0, 0.0) if free else cost(run, budget, reward)
                costs[name, run.key, budget] = searches * by_policy, searches * by_reward
    return costs


def _matched_budget(run: Run, experiment: Experiment, cost: Callable[[Run, int], float]) -> int:
    """The largest of a run's budgets whose planned cost is within the tolerance of the one it is matched to, else the least."""
    match, reference = experiment.match, experiment.reference
    assert match is not None and reference is not None  # checked by the caller and by config.Experiment
    weights = {one.key: described(one.method).multiplier() if match.convention == "per_model" else 1 for one in (run, reference)}
    limit = match.tolerance * weights[reference.key] * cost(reference, match.budget)
    return max((b for b in run.budgets if weights[run.key] * cost(run, b) <= limit), default=min(run.budgets))


def _body(shape: ModelShape) -> ModelShape:
    """A model without its lm_head, of which the rows that are used are too few to count."""
    return replace(shape, vocab_size=0)


def _budgets(run: Run, experiment: Experiment, measured: dict[tuple[str, str, int], Counts]) -> list[int]:
    done = [budget for method, settings, budget in measured if (method, settings) == (run.method, run.settings_id)]
    return sorted(done) or ([max(run.budgets)] if experiment.match else run.budgets)


def _sources(config: Config) -> Row:
    pairs = _pairs(config)
    return Row("sources", 1 + len(workflow.own_prompts(config)), 0.0, pairs * 1.2e3, 4e9, note=f"{pairs:,} preference pairs")


def _pairs(config: Config) -> int:
    rows: Rows = config.sources.conversations
    if rows.origin == "sandbox":
        assert config.sources.sandbox is not None  # checked by config.Sources
        return config.sources.sandbox.preference_pairs
    key = "sources.conversations"
    if rows.split is not None:
        rows, key = config.sources.splits[rows.split], f"sources.splits.{rows.split}"
    return _rows_of(rows, key, CONVERSATIONS)


@dataclass(frozen=True)
class _Phase:
    """One training of one seed.

    Args:
        model: whose pace counts.
        shape: of what is trained.
        settings: steps and batch size.
        tokens: of a dialogue, at most.
        trained: share of the layers that learn.
        hung: tokens of the verdict suffixes that hang below a dialogue.
        learnt: tokens whose logits are computed (None: all).
    """

    model: Literal["policy", "guard"]
    shape: ModelShape
    settings: Optimisation
    tokens: int
    trained: float = 1.0
    hung: int = 0
    learnt: int | None = None

    @property
    def dialogues(self) -> int:
        """Read in all steps."""
        return self.settings.steps * self.settings.batch_size

    @property
    def flops(self) -> float:
        """Nominal, of all steps: three forward passes each."""
        return 3.0 * self.dialogues * self.shape.chain(0, self.tokens)

    @property
    def computed(self) -> float:
        """What is computed: backward through the layers that learn alone, the lm_head where there is something to learn."""
        body = _body(self.shape).chain(0, self.tokens + self.hung) * (1 + 2 * self.trained)
        head = 2 * self.shape.hidden_size * self.shape.vocab_size * (self.tokens if self.learnt is None else self.learnt)
        return self.dialogues * (body + (3 if self.trained == 1.0 else 2) * head)


def _models(config: Config, layout: Layout) -> Row:
    names, seeds = _models_needed(config), len(config.train_seeds)
    hub = config.models.origin == "hub"
    phases = _hub_phases(config, layout, names) if hub else _sandbox_phases(config, layout, names)
    steps, flops = sum(phase.settings.steps for phase in phases), sum(phase.flops for phase in phases)
    work = tuple(Work(phase.model, seeds * phase.computed, seeds * phase.settings.steps, trains=True) for phase in phases)
    size = sum(_bytes(shape_of(config, layout, role), config) for role in ("policy", "guard"))
    note = "three forward passes a step" if not hub else "fetched, not copied"
    note += "; what is trained here: three forward passes a step" if hub and steps else ""
    disk, memory = (size, 4e9) if hub else (seeds * size, 2e9)
    jobs = 1 + seeds * len(names)
    return Row("models", jobs, seeds * flops, disk, memory, seeds * steps, note, work, seeds * min(2, len(names)))


def _models_needed(config: Config) -> list[str]:
    """Models of one seed, those among them that only a judge of every table reads."""
    read = {name for judge in workflow.judges(config) for name in workflow.models_judging(config, judge.name)}
    return sorted({*workflow.model_names(config), *read} - {"tokenizer"})


def _sandbox_phases(config: Config, layout: Layout, names: list[str]) -> list[_Phase]:
    """Trainings of the sandbox's models."""
    models, policy, guard = config.models.sandbox, shape_of(config, layout, "policy"), shape_of(config, layout, "guard")
    assert models is not None  # checked by config.Models
    tunings = [models.policy_pretraining, models.policy_safety, *([models.deepalign_training] if "deepalign" in names else [])]
    guards = [models.guard_training] * (2 if "other_guard" in names else 1)
    phases = [_Phase("policy", policy, tuning, DIALOGUE_TOKENS) for tuning in tunings]
    return phases + [_Phase("guard", guard, training, DIALOGUE_TOKENS) for training in guards]


def _hub_phases(config: Config, layout: Layout, names: list[str]) -> list[_Phase]:
    """The policy's refusal tuning, and guards that are its first layers."""
    models, policy = config.models.hub, shape_of(config, layout, "policy")
    assert models is not None  # checked by config.Models
    phases = []
    if models.policy_safety is not None:
        tuning = models.policy_safety
        phases.append(_Phase("policy", policy, tuning, tuning.max_tokens, 1 - min(1.0, tuning.freeze / policy.layers)))
    suffix = len(_formats(config, layout).guard.suffix)
    for name, guard in (("guard", models.guard), ("other_guard", models.other_guard)):
        if name in names and isinstance(guard, TruncatedGuard):
            shape, trained = replace(policy, layers=guard.layers), 1 - guard.freeze / guard.layers
            hung = VERDICTS_PER_RESPONSE * suffix
            phases.append(_Phase("guard", shape, guard.training, guard.max_tokens, trained, hung, VERDICTS_PER_RESPONSE))
    return phases


def _bytes(shape: ModelShape, config: Config) -> float:
    """Weights on disk, embedding and lm_head counted once each."""
    width = 2 if config.models.origin == "hub" else _WIDTH[config.runtime.dtype]
    return width * (shape.linear_weights + shape.hidden_size * shape.vocab_size)


def _labelled(config: Config, layout: Layout) -> tuple[float, float, float]:
    """Responses, prefixes and mean prompt length of the labels: of the stored ones, else assumed."""
    path = layout.safety4m(config.train_seeds[0]) / "labels.parquet"
    if path.exists():
        table = records.read_table(path, records.SAFETY4M)
        return len(table), float(table["rewards"].map(len).sum()), float(table["response_start"].mean())
    pairs, sandbox = _pairs(config), config.sources.conversations.origin == "sandbox"
    window = 1.0 if sandbox else config.safety4m.max_tokens / WINDOW
    responses = pairs * window * RESPONSES_PER_ROW["sandbox" if sandbox else "other"]
    return responses, pairs * window * PREFIXES_PER_ROW, CONVERSATION_PROMPT_TOKENS * window


def _safety4m(config: Config, layout: Layout) -> Row:
    guard, formats = shape_of(config, layout, "guard"), _formats(config, layout)
    responses, prefixes, prompt = _labelled(config, layout)
    start, length = len(formats.guard.prompt([])) + prompt, prefixes / max(1, responses)
    suffix = len(formats.guard.suffix)
    flops, computed = (
        responses * judged(shape, start, length, length, length, length / 2, suffix) for shape in (guard, _body(guard))
    )
    seeds = len(config.train_seeds)
    packed = config.safety4m.batch_size * (start + length * (1 + suffix))
    memory = _bytes(guard, config) + packed * guard.kv_bytes_per_token(_WIDTH[config.runtime.dtype])
    note = f"{prefixes:,.0f} prefixes of {responses:,.0f} responses"
    steps = seeds * responses / config.safety4m.batch_size
    jobs, shards = seeds * (config.safety4m.shards + 1), seeds * config.safety4m.shards
    work: tuple[Work, ...] = (Work("guard", seeds * computed, steps),)
    if config.safety4m.on_policy_share:
        rewritten = config.safety4m.on_policy_share * responses / 2  # about every other answer is a rejected one
        policy, new = shape_of(config, layout, "policy"), config.search.max_new_tokens
        begun = len(_formats(config, layout).policy.prompt([])) + prompt + config.search.prefill_tokens
        own, rounds = rewritten * grown(policy, begun, new - 1, new - 1), seeds * rewritten * new / config.safety4m.batch_size
        work, steps, flops = (*work, Work("policy", seeds * own, rounds)), steps + rounds, flops + own
        note += f", {rewritten:,.0f} of them rewritten by the policy"
    return Row("safety4m", jobs, seeds * flops, seeds * prefixes * 10, memory, steps, note, work, shards)


def _mrm(config: Config, layout: Layout) -> Row:
    guard, formats = shape_of(config, layout, "guard"), _formats(config, layout)
    responses, prefixes, prompt = _labelled(config, layout)
    start, length = len(formats.mrm.prompt([])) + prompt, prefixes / max(1, responses)
    body = _body(guard)  # observed tokens' rows of the lm_head alone are multiplied
    packed = responses * body.chain(0, round(start + length))
    one_a_row = prefixes * body.chain(0, round(start + length / 2))
    forward = (packed if config.mrm.order == "packed" else one_a_row) * config.mrm.epochs
    trained = len(config.train_seeds) * len(workflow.variants(config))
    # Weights are frozen: the backward pass costs one more forward pass, not two.
    flops = 0.0 if config.mrm.origin == "released" else 2 * forward * trained
    released = config.mrm.origin == "released"
    per_step = (prefixes if config.mrm.order == "paper" else responses) / config.mrm.batch_size * config.mrm.epochs
    size = _bytes(guard, config)
    note = "loaded, not trained" if released else f"{config.mrm.order} order"
    steps = 0.0 if released else trained * per_step
    return Row(
        "mrm", 2 * trained, flops, trained * size, 3 * size, steps, note, (Work("guard", flops, steps, trains=True),), trained
    )


def _search(config: Config, layout: Layout) -> Row:
    policy, guard = shape_of(config, layout, "policy"), shape_of(config, layout, "guard")
    costs, computed = search_costs(config, layout), _search_costs(config, layout, computed=True)
    experiments = workflow.experiments(config)
    seeds = len(config.train_seeds)
    runs = sum(len(experiment.runs) for experiment in experiments.values())
    searching = {"runs": runs * config.search.shards, "models": len(workflow.search_parts(config, "replicate")), "seeds": 1}
    jobs = seeds * (searching[config.search.jobs] + (0 if config.search.jobs == "seeds" else len(experiments) + 1))
    widest = max(max(run.budgets) for experiment in experiments.values() for run in experiment.runs)
    width = _WIDTH[config.runtime.dtype]
    nodes = config.search.block_size * widest * config.search.max_new_tokens
    caches = nodes * (policy.kv_bytes_per_token(width) + guard.kv_bytes_per_token(width))
    logits = config.search.block_size * widest * policy.vocab_size * 8
    memory = _bytes(policy, config) + 2 * _bytes(guard, config) + caches + logits
    done = [name for name in experiments if _measured(layout, config, name)]
    sizes = f"sizes of finished searches: {', '.join(done)}" if done else "full searches, the upper end"
    note = f"{_by_method(config, costs)}; {sizes}"
    blocks = {
        name: len(config.search.seeds_of(item)) * -(-_prompt_count(config, layout, item) // config.search.block_size)
        for name, item in experiments.items()
    }
    steps = seeds * sum(blocks[name] for name, _, _ in costs) * config.search.max_new_tokens
    by_policy, by_reward = (sum(both[place] for both in computed.values()) for place in (0, 1))
    work = (Work("policy", by_policy, steps), Work("guard", by_reward, steps))
    return Row("search", jobs, sum(costs.values()), 50e6, memory, steps, note, work, seeds * searching[config.search.jobs])


def _by_method(config: Config, costs: Mapping[tuple[str, str, int], float]) -> str:
    """Every method and its share of the FLOPs, in the order of tables."""
    runs = {(name, run.key): run.method for name, item in workflow.experiments(config).items() for run in item.runs}
    shares: dict[str, float] = {}
    for (experiment, key, _), flops in costs.items():
        method = runs[experiment, key]
        shares[method] = shares.get(method, 0.0) + flops
    total = sum(shares.values()) or 1.0
    return ", ".join(f"{described(name).label} {shares[name] / total:.0%}" for name in ordered(shares))


def _judge(config: Config, layout: Layout) -> Row:
    guard, width = shape_of(config, layout, "guard"), _WIDTH[config.runtime.dtype]
    judges, parts = workflow.judges(config), workflow.judging_parts(config).values()
    experiments, seeds = workflow.experiments(config), len(config.train_seeds)
    parts_read = [names for names in parts if set(names) <= set(experiments)]
    reading = [judge for judge in judges if kind(judge.kind).computes(judge.settings_of_kind)]
    shapes = [_read_by(config, judge, guard) for judge in reading]
    flops, computed, answers, longest = 0.0, 0.0, 0, 0
    for name, experiment in experiments.items():
        measured, tokens = _measured(layout, config, name), _prompt_tokens(layout, experiment)
        searched = _prompt_count(config, layout, experiment) * len(config.search.seeds_of(experiment))
        for run in experiment.runs:
            lengths = lengths_of(config, layout, run, tokens)
            for budget in _budgets(run, experiment, measured):
                counts = measured.get((run.method, run.settings_id, budget))
                written = config.search.max_new_tokens if counts is None else counts.new_tokens
                length = round(lengths.guard_prompt + written + lengths.guard_suffix)
                flops += searched * sum(shape.chain(0, length) for shape in shapes)
                computed += searched * sum(_body(shape).chain(0, length) for shape in shapes)
                answers, longest = answers + searched, max(longest, length)
    memory = _bytes(guard, config) + config.search.block_size * longest * guard.kv_bytes_per_token(width)
    steps = seeds * len(reading) * answers / config.search.block_size
    note = f"{seeds * answers:,} outputs by {', '.join(judge.name for judge in judges)}"
    jobs = seeds * len(judges) * len(parts_read)
    work = (Work("guard", seeds * computed, steps),)
    return Row("judge", jobs, seeds * flops, seeds * len(judges) * answers * 10, memory, steps, note, work, jobs)


def _read_by(config: Config, judge: Judge, guard: ModelShape) -> ModelShape:
    """Shape of the model that a judge reads with: the guard's, or that of another guard that is the policy's first layers."""
    other = config.models.hub.other_guard if config.models.hub is not None and config.models.origin == "hub" else None
    if isinstance(other, TruncatedGuard) and "other_guard" in kind(judge.kind).reads(judge.settings_of_kind):
        return replace(guard, layers=other.layers)
    return guard


def _figures(config: Config) -> Row:
    pages = len(discovery.pages(config, "replicate"))
    return Row("analysis, figures", 1 + pages + 1, 0.0, 20e6, 2e9, side_by_side=pages)


# ------------------------------------------------------------------------------------------------------------- display
def gpu_hours(row: Row, gpu: str) -> float:
    """Hours on one GPU: FLOPs at the assumed share of its peak, but no step faster than the assumed least."""
    computing = row.flops / (PEAKS[gpu] * UTILISATION[row.stage]) if row.flops else 0.0
    return max(computing, row.steps * SECONDS_PER_STEP) / 3600


def cpu_seconds(row: Row, speed: Speed) -> float:
    """Seconds of CPU time on this machine: a start of every job, products at the pace of their model, and its least of a step.

    Measured on an idle machine with the 8 layers of `smollm`'s guard, a step of training took 0.61 s with four conversations and
    0.156 s with one; this makes it 0.63 and 0.17.
    """
    computing = row.jobs * speed.start
    for work in row.work:
        pace = speed.paces[work.model]
        rate, least = (pace.training, pace.step) if work.trains else (pace.reading, pace.step)
        computing += work.flops / rate + work.steps * least
    return computing


def wall_seconds(row: Row, speed: Speed) -> float:
    """Seconds until a stage is done where nothing else runs: its CPU time on as many cores as it has jobs at once."""
    return cpu_seconds(row, speed) / min(speed.cores, max(1, row.side_by_side))


def measure(config: Config, layout: Layout) -> Speed:
    """This CPU's pace at the shapes of a config's models.

    Args:
        config: with the dtype of its run (:func:`saffron.models.precision.resolved`).
        layout: where its models are, once they are made.

    Raises:
        ShapeError: if a model's size is not known.
    """
    from saffron.models import speed

    return speed.measure({role: shape_of(config, layout, role) for role in ("policy", "guard")}, config.runtime.dtype)


def render(config: Config, layout: Layout, speed: Speed | None = None) -> str:
    """The plan as a markdown table.

    Args:
        config: what is planned.
        layout: where its run's tables are, if there are any.
        speed: this CPU's; hours are then its own, with those of a finished run beside them (None: hours on GPUs).

    Raises:
        ShapeError: if a model's size is not known.
    """
    table = rows(config, layout)
    if speed is None:
        columns, hours, notes = _on_gpus(table)
    else:
        columns, hours, notes = _on_cpu(table, speed, records.read_json(layout.runtimes) if layout.runtimes.exists() else None)
    header = ["stage", "jobs", "PFLOP", *columns, "disk", "memory per job", "note"]
    cells = [
        (row.stage, str(row.jobs), _quantity(row.flops / 1e15), *own, _size(row.disk), _size(row.memory), row.note)
        for row, own in zip(table, hours, strict=False)
    ]
    flops, disk = sum(row.flops for row in table) / 1e15, sum(row.disk for row in table)
    cells.append(("**total**", str(sum(row.jobs for row in table)), _quantity(flops), *hours[-1], _size(disk), "", ""))
    printed = Table(tuple(header), tuple(cells)).markdown_rows(right=header[1:-1])
    return "\n".join([f"Plan of {config.name}", "", printed, *notes])


def _on_gpus(table: list[Row]) -> tuple[list[str], list[list[str]], list[str]]:
    """Columns, their cells of every row and of the total, and how to read them."""
    hours = [[f"{gpu_hours(row, gpu):,.2f}" if row.flops else "" for gpu in PEAKS] for row in table]
    hours.append([f"{sum(gpu_hours(row, gpu) for row in table):,.2f}" for gpu in PEAKS])
    shares = ", ".join(f"{stage} {100 * share:g} %" for stage, share in UTILISATION.items())
    peaks = ", ".join(f"{gpu} {peak / 1e12:g}" for gpu, peak in PEAKS.items())
    notes = [
        "FLOPs are nominal (each token once). Hours are assumptions, not measurements: the larger of FLOPs at a share of the",
        f"peak ({shares}; peak in TFLOP/s: {peaks}),",
        f"and {1e3 * SECONDS_PER_STEP:g} ms a step. Jobs of a stage run side by side. Ablations come on top.",
    ]
    return [f"{gpu} hours" for gpu in PEAKS], hours, notes


def _on_cpu(table: list[Row], speed: Speed, measured: dict[str, Any] | None) -> tuple[list[str], list[list[str]], list[str]]:
    """The same on this CPU; ``measured``: the times of the finished run (``runtimes.json``)."""
    times = [(cpu_seconds(row, speed), wall_seconds(row, speed)) for row in table]
    times.append((sum(cpu for cpu, _ in times), sum(wall for _, wall in times)))
    cells = [[minutes(cpu), minutes(wall)] for cpu, wall in times]
    columns = ["CPU time", "wall time"]
    if measured is not None:
        columns += ["CPU time, measured", "wall time, measured"]
        for own, stages in zip(cells, [*(row.stage.split(", ") for row in table), None], strict=True):
            found = [measured["total"]] if stages is None else [measured["stages"][s] for s in stages if s in measured["stages"]]
            for key in ("cpu_s", "wall_s"):
                known = [part[key] for part in found if part.get(key) is not None]
                own.append(minutes(sum(known)) if known and len(known) == len(found) else "–")
    paces = "; ".join(
        f"{role} {pace.reading / 1e9:.3g} reading, {pace.training / 1e9:.3g} training, {1e3 * pace.step:.3g} ms a step"
        for role, pace in speed.paces.items()
    )
    notes = [
        "FLOPs are nominal (each token once). Times are estimates for this machine, from what was measured just now with all its",
        f"{speed.cores} cores busy ({speed.dtype}; GFLOP/s of a core: {paces}; {speed.start:.1f} s to start a process)",
        "and full searches: within a factor of two, if nothing else runs. Ablations come on top.",
    ]
    return columns, cells, notes


def brief(config: Config, layout: Layout, speed: Speed | None = None) -> str:
    """The plan in one line, longest stage first.

    Args:
        config: what is planned.
        layout: where its run's tables are, if there are any.
        speed: this CPU's (None: hours on one GPU).

    Raises:
        ShapeError: if a model's size is not known.
    """
    table = rows(config, layout)
    if speed is None:
        gpu = list(PEAKS)[-1]
        return f"planned: {sum(gpu_hours(row, gpu) for row in table):.1f} {gpu} hours (saffron plan)"
    times = sorted(((wall_seconds(row, speed), cpu_seconds(row, speed), row.stage) for row in table), reverse=True)
    each = ", ".join(f"{stage} {minutes(wall)}" for wall, _, stage in times)
    wall, cpu = sum(wall for wall, _, _ in times), sum(cpu for _, cpu, _ in times)
    return f"planned for {speed.cores} idle cores ({speed.dtype}): {minutes(wall)}, {minutes(cpu)} of CPU time; {each}"


def minutes(seconds: float) -> str:
    """A time in the unit in which it is read best."""
    return f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def _quantity(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
