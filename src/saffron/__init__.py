"""Saffron Replication: a reproducible replication of "SAFFRON-1: Safety Inference Scaling" (arXiv 2506.06444)."""

__version__ = "0.1.0"
