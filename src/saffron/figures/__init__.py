"""Figures and tables, each described once in a file of its own, and how they are drawn."""
