"""What a config costs before it is run: jobs, FLOPs, GPU hours, disk and memory of every stage.

FLOPs come from the analytic side of :mod:`saffron.engine.compute`: a model's shape, the lengths of what it reads, and how many
nodes a search has. Before a run the searches are taken to be full (no sequence ends early, none begin alike) and lengths
are the assumptions below; where a run has left tables behind, its lengths and its numbers of reward calls take their place,
and the plan then reproduces the ledger's count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from saffron import records, workflow
from saffron.chat import ChatFormat, ChatFormats
from saffron.config import (
    ChatText,
    ChatTexts,
    Config,
    Experiment,
    HubModels,
    Optimisation,
    Rows,
    Run,
    SandboxModels,
    TruncatedGuard,
)
from saffron.engine.compute import ModelShape
from saffron.figures import discovery
from saffron.judges.discovery import kind
from saffron.layout import PAPER, Layout
from saffron.methods.base import Size
from saffron.methods.cost import judged
from saffron.methods.discovery import method as described
from saffron.models.shapes import shape_of
from saffron.sources import files
from saffron.table import Table

#: Dense bfloat16 peak of one GPU, FLOP per second (vendors' data sheets).
PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}
#: Share of the peak that is taken to be reached: assumptions, not measurements. Searches are bound by memory traffic.
UTILISATION = {"models": 0.35, "safety4m": 0.35, "mrm": 0.35, "search": 0.10, "judge": 0.10}
#: Least time of one forward (and backward) step, however small: launching its kernels takes that long. An assumption too.
SECONDS_PER_STEP = 0.03

#: Prompts of a set, and conversations, where the config names no number and the files are not here.
PROMPTS, CONVERSATIONS = 300, 160_000

#: Tokens of a prompt before anything is read (the paper's benchmarks) and of a conversation's parts, cut to 128.
PROMPT_TOKENS = 21
CONVERSATION_PROMPT_TOKENS = 60
RESPONSES_PER_ROW = 2
#: Tokens of a sandbox dialogue.
DIALOGUE_TOKENS = 64
#: Labelled prefixes per preference pair: the release trained on 5.78 million prefixes of 160,800 pairs.
PREFIXES_PER_ROW = 36

#: A control token's name in a chat format, and characters of one other token.
CONTROL, CHARACTERS_PER_TOKEN = re.compile(r"<\|[^|]*\|>"), 4

_WIDTH = {"float64": 8, "float32": 4, "bfloat16": 2}


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
class Row:
    """One stage's cost over all its jobs and seeds."""

    stage: str
    jobs: int
    flops: float  # on a GPU; 0 for stages that need none
    disk: float  # bytes
    memory: float  # bytes a job holds at once, on the GPU where it uses one
    steps: float = 0.0  # forward or training steps one after another
    note: str = ""


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

    A matched run counts once, at its largest budget, unless its table says which one was taken.
    """
    policy, guard = shape_of(config, layout, "policy"), shape_of(config, layout, "guard")
    costs = {}
    for name, experiment in workflow.experiments(config).items():
        measured, prompt_tokens = _measured(layout, config, name), _prompt_tokens(layout, experiment)
        searches = _prompt_count(config, layout, experiment) * len(config.train_seeds)
        searches *= len(config.search.seeds_of(experiment))
        for run in experiment.runs:
            settings, lengths = config.search.settings_of(run), lengths_of(config, layout, run, prompt_tokens)
            for budget in _budgets(run, experiment, measured):
                counts = measured.get((run.method, run.settings_id, budget))
                size = size_of(budget, counts, lengths, policy, guard, config.search.max_new_tokens)
                costs[name, run.key, budget] = searches * sum(described(run.method).cost(settings, size))
    return costs


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


def _models(config: Config, layout: Layout) -> Row:
    shapes = [shape_of(config, layout, role) for role in ("policy", "guard")]
    jobs = 1 + len(config.train_seeds) * len(workflow.model_names(config))
    size = sum(_bytes(shape, config) for shape in shapes)
    seeds = len(config.train_seeds)
    if config.models.hub is not None and config.models.origin == "hub":
        flops, steps = _training_of(config.models.hub, shapes)
        note = "fetched, not copied" + ("; what is trained here: three forward passes a step" if steps else "")
        return Row("models", jobs, seeds * flops, size, 4e9, seeds * steps, note)
    assert config.models.sandbox is not None  # checked by config.Models
    flops, steps = _sandbox_training(config.models.sandbox, shapes)
    return Row("models", jobs, seeds * flops, seeds * size, 2e9, seeds * steps, "three forward passes a step")


def _sandbox_training(models: SandboxModels, shapes: list[ModelShape]) -> tuple[float, float]:
    """FLOPs and steps of policy and guard of one seed."""
    phases = [(shapes[0], models.policy_pretraining), (shapes[0], models.policy_safety), (shapes[1], models.guard_training)]
    flops = sum(3 * phase.steps * phase.batch_size * shape.chain(0, DIALOGUE_TOKENS) for shape, phase in phases)
    return flops, sum(phase.steps for _, phase in phases)


def _training_of(models: HubModels, shapes: list[ModelShape]) -> tuple[float, float]:
    """FLOPs and steps of one seed's refusal tuning and of its guard, if the guard is the policy's first layers."""
    phases: list[tuple[ModelShape, Optimisation, int]] = []
    if models.policy_safety is not None:
        phases.append((shapes[0], models.policy_safety, models.policy_safety.max_tokens))
    if isinstance(models.guard, TruncatedGuard):
        phases.append((shapes[1], models.guard.training, models.guard.max_tokens))
    flops = sum(3 * phase.steps * phase.batch_size * shape.chain(0, tokens) for shape, phase, tokens in phases)
    return flops, sum(phase.steps for _, phase, _ in phases)


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
    pairs = _pairs(config)
    return pairs * RESPONSES_PER_ROW, pairs * PREFIXES_PER_ROW, CONVERSATION_PROMPT_TOKENS


def _safety4m(config: Config, layout: Layout) -> Row:
    guard, formats = shape_of(config, layout, "guard"), _formats(config, layout)
    responses, prefixes, prompt = _labelled(config, layout)
    start, length = len(formats.guard.prompt([])) + prompt, prefixes / max(1, responses)
    suffix = len(formats.guard.suffix)
    flops = responses * judged(guard, start, length, length, length, length / 2, suffix)
    seeds = len(config.train_seeds)
    packed = config.safety4m.batch_size * (start + length * (1 + suffix))
    memory = _bytes(guard, config) + packed * guard.kv_bytes_per_token(_WIDTH[config.runtime.dtype])
    note = f"{prefixes:,.0f} prefixes of {responses:,.0f} responses"
    steps = seeds * responses / config.safety4m.batch_size
    return Row("safety4m", seeds * (config.safety4m.shards + 1), seeds * flops, seeds * prefixes * 10, memory, steps, note)


def _mrm(config: Config, layout: Layout) -> Row:
    guard, formats = shape_of(config, layout, "guard"), _formats(config, layout)
    responses, prefixes, prompt = _labelled(config, layout)
    start, length = len(formats.mrm.prompt([])) + prompt, prefixes / max(1, responses)
    body = ModelShape(**{**guard.__dict__, "vocab_size": 0})  # observed tokens' rows of the lm_head alone are multiplied
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
    return Row("mrm", 2 * trained, flops, trained * size, 3 * size, 0.0 if released else trained * per_step, note)


def _search(config: Config, layout: Layout) -> Row:
    policy, guard = shape_of(config, layout, "policy"), shape_of(config, layout, "guard")
    costs = search_costs(config, layout)
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
    note = f"sizes of finished searches: {', '.join(done)}" if done else "full searches, the upper end"
    blocks = {
        name: len(config.search.seeds_of(item)) * -(-_prompt_count(config, layout, item) // config.search.block_size)
        for name, item in experiments.items()
    }
    steps = seeds * sum(blocks[name] for name, _, _ in costs) * config.search.max_new_tokens
    return Row("search", jobs, sum(costs.values()), 50e6, memory, steps, note)


def _judge(config: Config, layout: Layout) -> Row:
    guard, width = shape_of(config, layout, "guard"), _WIDTH[config.runtime.dtype]
    judges, parts = workflow.judges(config), workflow.judging_parts(config).values()
    experiments, seeds = workflow.experiments(config), len(config.train_seeds)
    parts_read = [names for names in parts if set(names) <= set(experiments)]
    reading = [judge for judge in judges if kind(judge.kind).computes(judge.settings_of_kind)]  # by a model of the guard's size
    flops, answers, longest = 0.0, 0, 0
    for name, experiment in experiments.items():
        measured, tokens = _measured(layout, config, name), _prompt_tokens(layout, experiment)
        searched = _prompt_count(config, layout, experiment) * len(config.search.seeds_of(experiment))
        for run in experiment.runs:
            lengths = lengths_of(config, layout, run, tokens)
            for budget in _budgets(run, experiment, measured):
                counts = measured.get((run.method, run.settings_id, budget))
                written = config.search.max_new_tokens if counts is None else counts.new_tokens
                length = round(lengths.guard_prompt + written + lengths.guard_suffix)
                flops += searched * guard.chain(0, length)
                answers, longest = answers + searched, max(longest, length)
    memory = _bytes(guard, config) + config.search.block_size * longest * guard.kv_bytes_per_token(width)
    steps = seeds * len(reading) * answers / config.search.block_size
    note = f"{seeds * answers:,} outputs by {', '.join(judge.name for judge in judges)}"
    jobs = seeds * len(judges) * len(parts_read)
    return Row("judge", jobs, seeds * len(reading) * flops, seeds * len(judges) * answers * 10, memory, steps, note)


def _figures(config: Config) -> Row:
    return Row("analysis, figures", 1 + len(discovery.pages(config, "replicate")) + 1, 0.0, 20e6, 2e9)


# ------------------------------------------------------------------------------------------------------------- display
def gpu_hours(row: Row, gpu: str) -> float:
    """Hours on one GPU: FLOPs at the assumed share of its peak, but no step faster than the assumed least."""
    computing = row.flops / (PEAKS[gpu] * UTILISATION[row.stage]) if row.flops else 0.0
    return max(computing, row.steps * SECONDS_PER_STEP) / 3600


def render(config: Config, layout: Layout) -> str:
    """The plan as a markdown table.

    Raises:
        ShapeError: if a model's size is not known.
    """
    table = rows(config, layout)
    header = ["stage", "jobs", "PFLOP", *(f"{gpu} hours" for gpu in PEAKS), "disk", "memory per job", "note"]
    cells = []
    for row in table:
        hours = [f"{gpu_hours(row, gpu):,.2f}" if row.flops else "" for gpu in PEAKS]
        sizes = (_size(row.disk), _size(row.memory))
        cells.append((row.stage, str(row.jobs), _quantity(row.flops / 1e15), *hours, *sizes, row.note))
    hours = [f"{sum(gpu_hours(row, gpu) for row in table):,.2f}" for gpu in PEAKS]
    flops, disk = sum(row.flops for row in table) / 1e15, sum(row.disk for row in table)
    cells.append(("**total**", str(sum(row.jobs for row in table)), _quantity(flops), *hours, _size(disk), "", ""))
    printed = Table(tuple(header), tuple(cells)).markdown_rows(right=header[1:-1])
    shares = ", ".join(f"{stage} {100 * share:g} %" for stage, share in UTILISATION.items())
    peaks = ", ".join(f"{gpu} {peak / 1e12:g}" for gpu, peak in PEAKS.items())
    notes = [
        "FLOPs are nominal (each token once). Hours are assumptions, not measurements: the larger of FLOPs at a share of the",
        f"peak ({shares}; peak in TFLOP/s: {peaks}),",
        f"and {1e3 * SECONDS_PER_STEP:g} ms a step. Jobs of a stage run side by side. Ablations come on top.",
    ]
    return "\n".join([f"Plan of {config.name}", "", printed, *notes])


def _quantity(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
