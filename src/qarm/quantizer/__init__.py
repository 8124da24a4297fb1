"""Vectors to codes: residual k-means, nearest rows, and how good the codes are."""
