"""Retrieval: the whole catalogue ranked for a user, by counting, by a sequence model and by decoded codes."""
