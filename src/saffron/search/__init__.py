"""Stage search: every method at every budget on every prompt set, and Saffron-1 on token ids."""
