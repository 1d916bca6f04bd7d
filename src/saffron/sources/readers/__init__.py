"""Readers of rows, one file each."""
