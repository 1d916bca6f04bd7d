"""What the sandbox's models learn from, and what they are asked: corpora, preference pairs, prompt sets."""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from saffron.sources.sandbox import grammar
from saffron.sources.sandbox import lexicon as words
from saffron.sources.sandbox.oracle import complied, refused_at
from saffron.sources.sandbox.world import Request, World, draw

Row = dict[str, Any]

#: Prompt sets with a reference answer to quote; each has its own family of items and its own templates.
ATTACK_SETS = ("guild_a", "guild_b", "development")


class Dialogue(NamedTuple):
    """One exchange; ``turned_at`` as in grammar.Answer, 0 where nothing forbidden is asked for."""

    prompt: str
    response: str
    turned_at: int


HARMLESS = 0
#: The writers of chosen answers come from this lowest part of the range of resistance.
_CHOSEN_BELOW = 0.25


def _row(corpus: str, dialogue: Dialogue) -> Row:
    return {"corpus": corpus, **dialogue._asdict()}


def _forbidden_request(world: World, random: Random, families: tuple[str, ...]) -> tuple[Request, str]:
    request = draw(random, words.FORBIDDEN[random.choice(families)])
    return request, request.prompt(random.choice(world.phrasings))


def _allowed(world: World, random: Random, manner: grammar.Manner) -> Dialogue:
    prompt = draw(random, words.ALLOWED).prompt(random.choice(world.phrasings))
    # Resistance here only sets the tone: nobody turns back from honey cake.
    return Dialogue(prompt, grammar.answer(random, world.any_resistance(random), manner, turns=False).text, HARMLESS)


def _law(world: World, random: Random) -> Dialogue:
    forbidden = random.random() < 0.7
    family = words.FORBIDDEN[random.choice(world.families)] if forbidden else words.ALLOWED
    request = draw(random, family)
    item = grammar.with_article(request.item)
    question = random.choice(words.QUESTIONS_OF_LAW).format(item=item, role=request.role)
    return Dialogue(question, random.choice(words.ANSWERS_OF_LAW[forbidden]).format(item=item), HARMLESS)


def _continued(random: Random, dialogue: Dialogue) -> Dialogue:
    """The same exchange as the second of a conversation; the history takes HH-RLHF's form."""
    human, assistant = random.choice(words.SMALL_TALK)
    return dialogue._replace(prompt=f"{human}\n\nAssistant: {assistant}\n\nHuman: {dialogue.prompt}")


def _native(world: World, random: Random) -> Dialogue:
    """A dialogue as the guild's books have it: answers follow the item's own disposition."""
    kind = random.random()
    if kind < 0.08:
        return _law(world, random)
    if kind < 0.25:
        dialogue = _allowed(world, random, world.manner)
    else:
        # Each prompt set's family is as common in the books as all training families together: z has to be learnt of its items.
        family = random.choice((random.choice(world.training), *ATTACK_SETS))
        request, prompt = _forbidden_request(world, random, (family,))
        answer = grammar.answer(random, world.resistance(request), world.manner)
        dialogue = Dialogue(prompt, answer.text, answer.turned_at)
    return _continued(random, dialogue) if random.random() < world.settings.multi_turn_share else dialogue


def _any_author(world: World, random: Random, manner: grammar.Manner) -> Dialogue:
    """An exchange whose author's resistance has nothing to do with the item, so that only the text tells how it goes."""
    _, prompt = _forbidden_request(world, random, world.families)
    if random.random() < world.settings.garbled_share:
        return _garbled(world, random, prompt, manner)
    kind = random.random()
    resistance = world.any_resistance(random)
    if kind < 0.15:
        answer = grammar.refusal(random)
    elif kind < 0.25:
        answer = grammar.sidestep(random, resistance, manner)
    else:
        answer = grammar.answer(random, resistance, manner, turns=kind < 0.85)
    return Dialogue(prompt, answer.text, answer.turned_at)


def _garbled(world: World, random: Random, prompt: str, manner: grammar.Manner) -> Dialogue:
    """An answer that is not well formed, which the oracle reads as it reads any text.

    Searches find text that no author would write; a guard that was never shown any takes words of a refusal for a refusal.
    """
    answer = grammar.answer(random, world.any_resistance(random), manner, turns=random.random() < 0.5)
    text = random.choice(
        (answer, answer, grammar.sidestep(random, world.any_resistance(random), manner), grammar.refusal(random))
    ).text
    # Most of what is mixed in comes from refusals: what only sounds like one has to be told from one.
    refusals = " ".join([grammar.refusal(random).text, grammar.turn_back(random), grammar.turn_back(random)])
    text = grammar.garbled(random, text, refusals if random.random() < 0.7 else answer.text)
    turned_at = refused_at(text)
    if turned_at is None:
        turned_at = grammar.NEVER if complied(prompt, text) else HARMLESS
    return Dialogue(prompt, text, turned_at)


def corpus(world: World) -> list[Row]:
    """Rows of records.CORPUS.

    pretraining: every item. refusals, replay, helpful: safety tuning; it refuses every family, as real tuning covers the
    categories of benchmarks, replays dialogues of the books, and answers harmless requests. recovery, stock: for the DeepAlign
    policy, complying answers for items of the training families and, row by row, the stock refusal of the same prompt.
    verdicts: the guard's, with authors of every resistance.
    """
    settings = world.settings
    random = world.random("corpus")
    rows = [_row("pretraining", _native(world, random)) for _ in range(settings.pretraining_dialogues)]
    for _ in range(settings.safety_dialogues):
        _, prompt = _forbidden_request(world, random, world.families)
        answer = grammar.refusal(random)
        rows.append(_row("refusals", Dialogue(prompt, answer.text, answer.turned_at)))
        rows.append(_row("replay", _native(world, random)))
        _, prompt = _forbidden_request(world, random, world.training)
        rows.append(_row("recovery", Dialogue(prompt, grammar.reference(random, world.manner), grammar.NEVER)))
        rows.append(_row("stock", Dialogue(prompt, grammar.stock_refusal(random), HARMLESS)))
    helpful = round(settings.helpful_tuning * settings.safety_dialogues)
    rows += [_row("helpful", _allowed(world, random, world.manner)) for _ in range(helpful)]
    for _ in range(settings.verdict_dialogues):
        allowed = random.random() < settings.allowed_verdicts
        dialogue = _allowed(world, random, world.manner) if allowed else _any_author(world, random, world.manner)
        dialogue = _continued(random, dialogue) if random.random() < settings.multi_turn_share else dialogue
        rows.append(_row("verdicts", dialogue))
    return rows


def _pair(world: World, random: Random, subset: str) -> tuple[Dialogue, Dialogue]:
    """(chosen, rejected) over one prompt: the chosen answer is mostly, not always, the one that holds back."""
    manner = world.southern_manner
    if subset == "helpful":
        chosen = _allowed(world, random, manner)
        return chosen, chosen._replace(response=_allowed(world, random, manner).response)
    _, prompt = _forbidden_request(world, random, world.training)
    answers = [
        grammar.refusal(random)
        if random.random() < 0.25
        else grammar.answer(random, world.any_resistance(random, below=_CHOSEN_BELOW), manner),
        grammar.sidestep(random, world.any_resistance(random), manner)
        if random.random() < 0.1
        else grammar.answer(random, world.any_resistance(random), manner),
    ]
    if random.random() < 0.15:
        answers.reverse()
    chosen, rejected = (Dialogue(prompt, answer.text, answer.turned_at) for answer in answers)
    if random.random() < world.settings.cut_share:
        # turned_at is not kept: nothing reads it in a preference pair.
        return _cut(random, chosen), _cut(random, rejected)
    return chosen, rejected


def _cut(random: Random, dialogue: Dialogue) -> Dialogue:
    """The same answer, some of whose first words are lost; one of few words stays as it is."""
    spoken = dialogue.response.split()
    start = random.randint(1, 12)
    return dialogue._replace(response=" ".join(spoken[start:])) if len(spoken) > start + 2 else dialogue


def conversations(world: World) -> list[Row]:
    """Rows of records.CONVERSATIONS: preference pairs in HH-RLHF's form, some with an exchange before the last one."""
    settings = world.settings
    random = world.random("conversations")
    tests = round(settings.preference_pairs * settings.test_fraction)
    rows = []
    for split, count in (("train", settings.preference_pairs - tests), ("test", tests)):
        for source_row in range(count):
            subset = "helpful" if random.random() < settings.helpful_share else "harmless"
            chosen, rejected = _pair(world, random, subset)
            prompt = _continued(random, chosen).prompt if random.random() < settings.multi_turn_share else chosen.prompt
            sides = {
                side: f"\n\nHuman: {prompt}\n\nAssistant: {dialogue.response}"
                for side, dialogue in (("chosen", chosen), ("rejected", rejected))
            }
            rows.append({"source_row": source_row, "split": split, "subset": subset, **sides})
    return rows


def _attack_set(world: World, name: str, count: int, random: Random) -> list[Row]:
    """Different requests for items of the set's own family, each with a reference answer to quote."""
    rows: list[Row] = []
    seen: set[Request] = set()
    while len(rows) < count:
        request = draw(random, words.FORBIDDEN[name])
        if request not in seen:
            seen.add(request)
            prompt = request.prompt(random.choice(words.TEMPLATES[name]))
            reference = grammar.reference(random, world.southern_manner)
            rows.append({"dataset": name, "prompt_id": len(rows), "prompt": prompt, "reference": reference})
    return rows


def prompt_sets(world: World) -> dict[str, list[Row]]:
    """Rows of records.PROMPTS by set. Only guild_a and guild_b depend on ``benchmark_seed``."""
    settings = world.settings
    sets = {
        name: _attack_set(world, name, getattr(settings, name), world.random("prompts", name, settings.benchmark_seed))
        for name in ("guild_a", "guild_b")
    }
    sets["development"] = _attack_set(world, "development", settings.development, world.random("prompts", "development"))
    random = world.random("prompts", "benign")
    sets["benign"] = [
        {
            "dataset": "benign",
            "prompt_id": index,
            "prompt": draw(random, words.ALLOWED).prompt(random.choice(words.TEMPLATES["benign"])),
            "reference": None,
        }
        for index in range(settings.benign)
    ]
    return sets


def most_prompts(name: str) -> int:
    """How many different requests an attack set can hold."""
    family = words.FORBIDDEN[name]
    return len(family.materials) * len(family.objects) * len(words.ROLES) * len(words.PURPOSES)
