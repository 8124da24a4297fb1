"""Sequence models: item vectors, history readers, training, codes decoded level by level."""
