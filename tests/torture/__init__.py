"""Faults done to the project on purpose, by seed and count; what must never happen is a wrong result that looks right.

``python tests/torture PART --seed 0 --count 10`` tries one part, each try from a seed of its own. A try ends as one of the
part's outcomes, or as a fault, which prints the one command that repeats it. ``--record`` writes what was tried into the
record that docs/robustness.md shows.
"""
