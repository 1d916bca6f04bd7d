"""Judges: what an answer did, read from its text."""
