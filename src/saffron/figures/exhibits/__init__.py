"""One file per figure or table of the report: what it needs, how it is made, its words and its place."""
