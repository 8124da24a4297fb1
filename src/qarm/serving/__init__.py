"""The HTTP service: codes, items and scores from a bundle."""
