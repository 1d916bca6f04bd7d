"""Models of the sandbox, trained from scratch on its corpus."""
