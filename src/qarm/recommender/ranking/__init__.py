"""The ranker: model, training, variants, evaluation."""
