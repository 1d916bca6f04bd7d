"""The search methods: one folder each, and the tools that several share."""
