"""Stage search: every method at every budget on every prompt set, and Saffron-1 on token ids."""

from saffron.search.runner import gather, run
from saffron.search.tokens import search_tokens
from saffron.search.trees import trees

__all__ = ["gather", "run", "search_tokens", "trees"]
