"""Who asks for what, and how firmly the guild's writers hold back: items, prompts, and each prompt's resistance z.

z is additive over material, object, role and purpose. Within every split the effects are the same evenly spaced values
in an order drawn from ``world_seed``: splits share no forbidden item, yet have the same distribution of z, so a knob
that was fixed on the development split means the same on a benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from random import Random

from saffron.config import SandboxSources
from saffron.sources.sandbox import grammar
from saffron.sources.sandbox import lexicon as words


@dataclass(frozen=True)
class Request:
    """What a prompt asks for."""

    material: str
    object: str
    role: str
    purpose: str

    @property
    def item(self) -> str:
        """Material and object."""
        return f"{self.material} {self.object}"

    def prompt(self, template: str) -> str:
        """The request in the words of a template."""
        return template.format(role=self.role, item=grammar.with_article(self.item), purpose=self.purpose)


#: What the range of z is made of. The purpose weighs as much as the item: it stands in every corpus, and a policy
#: this small learns an effect only from thousands of examples.
_SHARES = {"material": 0.40, "purpose": 0.40, "role": 0.12, "object": 0.08}


def _spread(random: Random, names: Sequence[str], share: float) -> dict[str, float]:
    levels = [share * index / (len(names) - 1) for index in range(len(names))]
    random.shuffle(levels)
    return dict(zip(names, levels, strict=True))


@dataclass(frozen=True)
class World:
    """The world of one ``world_seed``: what every item, role and purpose does to z."""

    settings: SandboxSources

    def random(self, *purpose: object) -> Random:
        """An independent stream, keyed by world seed and purpose."""
        return Random(":".join(map(str, ("world", self.settings.world_seed, *purpose))))

    @property
    def training(self) -> tuple[str, ...]:
        """Families of preference pairs and of the DeepAlign policy's recoveries."""
        return words.TRAINING[: self.settings.training_families]

    @property
    def families(self) -> tuple[str, ...]:
        """Every family that this world knows."""
        return tuple(name for name in words.FORBIDDEN if name in self.training or name not in words.TRAINING)

    @property
    def phrasings(self) -> tuple[str, ...]:
        """How the corpora's requests are put."""
        return words.TEMPLATES["common"][: self.settings.phrasings]

    @cached_property
    def _effects(self) -> dict[str, float]:
        random = self.random("effects")
        effects = _spread(random, words.ROLES, _SHARES["role"]) | _spread(random, words.PURPOSES, _SHARES["purpose"])
        for family in words.FORBIDDEN.values():
            effects |= _spread(random, family.materials, _SHARES["material"])
            effects |= _spread(random, family.objects, _SHARES["object"])
        return effects

    def resistance(self, request: Request) -> float:
        """z of a forbidden request: the speaker turns back with probability about exp(-z) per sentence boundary."""
        low, high = self.settings.resistance
        share = sum(self._effects[name] for name in (request.material, request.object, request.role, request.purpose))
        return low + (high - low) * share

    def any_resistance(self, random: Random, *, below: float = 1.0) -> float:
        """The resistance of some writer: evenly from the whole range of z, or from its lowest part ``below``."""
        low, high = self.settings.resistance
        return random.uniform(low, low + below * (high - low))

    @property
    def manner(self) -> grammar.Manner:
        """The factors of the moment."""
        settings = self.settings
        return grammar.Manner(settings.tone_factor, settings.doubt_factor, settings.care_factor, settings.dialect_share)

    @property
    def southern_manner(self) -> grammar.Manner:
        """The same without dialect: the writers of preference pairs and attack references do not speak it."""
        settings = self.settings
        return grammar.Manner(settings.tone_factor, settings.doubt_factor, settings.care_factor, 0.0)


def draw(random: Random, family: words.Family) -> Request:
    """A random request for an item of the family."""
    return Request(*(random.choice(names) for names in (family.materials, family.objects, words.ROLES, words.PURPOSES)))


_FORBIDDEN_OBJECTS = {material: family.objects for family in words.FORBIDDEN.values() for material in family.materials}


def is_forbidden(text: str) -> bool:
    """Whether a text names an item that guild law forbids."""
    tokens = [token.strip(".,?!:;").lower() for token in text.split()]
    return any(second in _FORBIDDEN_OBJECTS.get(first, ()) for first, second in pairwise(tokens))
