"""Stage sources: conversations and prompt sets, wherever their rows come from."""
