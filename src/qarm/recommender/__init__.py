"""Learning from codes: examples, ranker, training, metrics."""
