"""Retrieval from the whole catalogue: counting, content, a sequence model, and their blend."""
