"""The search methods, one folder each (found by :mod:`saffron.methods.discovery`), and the tools that several share."""
