"""Saying what is true: one page from the run's JSON."""
