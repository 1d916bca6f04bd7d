"""A search method."""
