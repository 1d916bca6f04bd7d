"""Stage safety4m: the guard's reward on every response prefix of every conversation."""

from saffron.safety4m.build import gather, label

__all__ = ["gather", "label"]
