"""Saffron-1."""

from saffron.methods.saffron.algorithm import saffron as saffron
