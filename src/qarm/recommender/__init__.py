"""Codes as ids in recommenders: examples, item fields, metrics, baselines."""
