"""The trie engine: how every language model of this project is read, and what that costs."""
