"""Rankers of other libraries, trained on the same rows."""
