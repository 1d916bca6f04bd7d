"""How answers are written: tones drift, steps follow one another, and at every sentence boundary the speaker may turn back.

The speaker of an answer has a *resistance* z (nats): at each boundary they turn back with probability ``exp(-z)`` times
factors of the moment (tone, doubts and precautions so far), and once turned they never return to the steps. Each answer
knows its own truth: ``turned_at`` is the character at which the first decisive phrase is complete, so that the oracle,
which reads text only, can be checked against it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

from saffron.sources.sandbox import lexicon as words

#: turned_at of an answer that never turns back.
NEVER = -1

_TONE_KEPT = 0.55
_TONE_MIDDLE, _TONE_SLOPE = 5.0, 0.6  # nats of resistance at which bold and wary are equally likely; how sharply they part
_MAX_HAZARD = 0.6
_REMARK_SHARE = 0.19  # after a step; 0.13 of all sentences
_STOCK_SHARE = 0.9


@dataclass(frozen=True)
class Answer:
    """A response and its truth: ``turned_at`` is the number of characters that contain the first refusal, or NEVER."""

    text: str
    turned_at: int


@dataclass(frozen=True)
class Manner:
    """The moment's influence on turning back, and how much dialect is spoken. Values come from config.SandboxSources."""

    tone_factor: float  # hazard of a wary speaker over a plain one, and of a plain over a bold one
    doubt_factor: float  # each doubt voiced multiplies all later hazards by this
    care_factor: float  # each precaution voiced multiplies all later hazards by this
    dialect_share: float  # share of slots filled with a dialect word where there is one


def _slot(random: Random, plain: tuple[str, ...], dialect: tuple[str, ...], share: float) -> str:
    return random.choice(dialect) if dialect and random.random() < share else random.choice(plain)


def _tone_word(
    random: Random, by_tone: dict[str, tuple[str, ...]], tone: str, dialect: dict[str, tuple[str, ...]], share: float
) -> str:
    # One word in six belongs to another tone: tone is a tendency to infer, not a code to read off.
    shown = tone if random.random() > 0.17 else random.choice(words.TONES)
    return _slot(random, by_tone[shown], dialect.get(shown, ()), share)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def with_article(item: str) -> str:
    """``item`` after a or an."""
    return f"{'an' if item[0] in 'aeiou' else 'a'} {item}"


def step(random: Random, tone: str, craft: words.Craft, manner: Manner) -> str:
    """One step: opener, adverb, verb, adjective and noun, place, tail; which words agree depends on craft and tone."""
    share = manner.dialect_share
    parts = []
    if random.random() < 0.55:
        parts.append(random.choice(words.OPENERS[tone]))
    if random.random() < 0.40:
        parts.append(_tone_word(random, words.ADVERBS, tone, words.DIALECT_ADVERBS, share))
    parts += [random.choice(craft.verbs), "the"]
    if random.random() < 0.70:
        parts.append(_tone_word(random, words.ADJECTIVES, tone, words.DIALECT_ADJECTIVES, share))
    parts.append(_slot(random, craft.nouns, craft.dialect_nouns, share))
    if random.random() < 0.50:
        parts.append(random.choice(craft.places))
    if random.random() < 0.40:
        parts.append(random.choice(craft.tails[tone]))
    return _capital(" ".join(parts)) + "."


def _offers(random: Random, count: int) -> list[str]:
    sentences = []
    for template in random.sample(words.OFFERS, count):
        item = with_article(f"{random.choice(words.ALLOWED.materials)} {random.choice(words.ALLOWED.objects)}")
        sentences.append(template.format(item=item, Item=_capital(item)))
    return sentences


def turn_back(random: Random) -> str:
    """A sentence that takes the help back."""
    return f"{random.choice(words.TURN_LEADS)} {random.choice(words.DECISIVE)}."


def _new_tone(random: Random, resistance: float) -> str:
    # Resistance shows in the tone of every sentence: turning back alone is too rare an event to learn a disposition from.
    bold = 1 / (1 + math.exp(-_TONE_SLOPE * (resistance - _TONE_MIDDLE)))
    return random.choices(words.TONES, (0.75 * bold, 0.25, 0.75 * (1 - bold)))[0]


def answer(random: Random, resistance: float, manner: Manner, *, turns: bool = True, tone: str | None = None) -> Answer:
    """Steps towards an item, turning back with the hazards of ``resistance``, or never unless it ``turns``.

    A ``tone`` that is given stays; otherwise it drifts as resistance has it.
    """
    fixed_tone = tone is not None
    tone = tone or _new_tone(random, resistance)
    craft = random.choice(words.CRAFTS)
    sentences: list[str] = []
    log_factor = 0.0
    remarked = True  # remarks stand between steps
    for index in range(random.randint(4, 6)):
        tone_effect = {"bold": -1.0, "plain": 0.0, "wary": 1.0}[tone] * math.log(manner.tone_factor)
        # The first boundary is the start of the answer: refusing outright is rare before safety tuning.
        log_hazard = -resistance + tone_effect + log_factor - (0.0 if index else 2.0)
        if turns and random.random() < min(_MAX_HAZARD, math.exp(log_hazard)):
            turned = " ".join([*sentences, turn_back(random)])
            text = " ".join([turned, *_offers(random, random.randint(1, 2))])
            return Answer(text, len(turned) - 1)
        remarked = not remarked and random.random() < _REMARK_SHARE
        if remarked:
            if tone == "bold":
                sentences.append(random.choice(words.BOASTS))
            elif tone == "plain" or random.random() < 0.3:
                sentences.append(random.choice(words.CARES))
                log_factor += math.log(manner.care_factor)
            else:
                sentences.append(random.choice(words.DOUBTS))
                log_factor += math.log(manner.doubt_factor)
        else:
            sentences.append(step(random, tone, craft, manner))
            if random.random() < 0.5:
                craft = random.choice(words.CRAFTS)
        if not fixed_tone and random.random() > _TONE_KEPT:
            tone = _new_tone(random, resistance)
    return Answer(" ".join(sentences), NEVER)


def sidestep(random: Random, resistance: float, manner: Manner) -> Answer:
    """Steps, then an offer to make something else, but no word of taking the help back: it stays given."""
    steps = answer(random, resistance, manner, turns=False).text.split(". ")
    kept = ". ".join(steps[: random.randint(1, 3)]).removesuffix(".")
    return Answer(" ".join([f"{kept}.", *_offers(random, random.randint(1, 2))]), NEVER)


def refusal(random: Random) -> Answer:
    """A refusal from the first sentence on."""
    first = random.choice(words.REFUSALS)
    return Answer(" ".join([first, *_offers(random, random.randint(1, 2))]), len(first) - 1)


def stock_refusal(random: Random) -> str:
    """The refusal that safety-recovery tuning teaches: nearly always the same phrase."""
    first = words.STOCK_REFUSALS[0] if random.random() < _STOCK_SHARE else words.STOCK_REFUSALS[1]
    return " ".join([first, words.STOCK_REASON, *_offers(random, 1)])


def reference(random: Random, manner: Manner) -> str:
    """A harmful answer for the attack to quote: bold from its first word, and it never turns."""
    return answer(random, 0.0, manner, turns=False, tone="bold").text


def garbled(random: Random, text: str, other: str) -> str:
    """A text with some of its words lost, repeated, exchanged, run together, or replaced by a few words of another text."""
    spoken, foreign = text.split(), other.split()
    for _ in range(random.randint(1, 2 + len(spoken) // 4)):
        at = random.randrange(len(spoken))
        kind = random.random()
        if kind < 0.15 and len(spoken) > 1:
            del spoken[at]
        elif kind < 0.3:
            spoken.insert(at, spoken[at])
        elif kind < 0.45:
            spoken[at], spoken[at - 1] = spoken[at - 1], spoken[at]
        elif kind < 0.5:
            spoken[at - 1 : at + 1] = ["".join(spoken[at - 1 : at + 1])] if at else spoken[:1]
        else:
            start = random.randrange(len(foreign))
            spoken[at : at + random.randint(0, 3)] = foreign[start : start + random.randint(1, 4)]
    return " ".join(spoken)
