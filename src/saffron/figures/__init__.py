"""Figures and tables, each described once in a file of its own, and the report that shows them."""
