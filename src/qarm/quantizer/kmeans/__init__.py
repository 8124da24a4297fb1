"""k-means on one level: start, assignment, sums, balanced sizes."""
