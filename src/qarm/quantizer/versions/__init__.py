"""Codes over time: append, refit, rollback, drift."""
