"""Answering requests: codes for items that a run has never seen."""
