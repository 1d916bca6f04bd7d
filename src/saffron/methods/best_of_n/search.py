"""Best-of-N."""

from saffron.methods.sampling import best_of_n as best_of_n
