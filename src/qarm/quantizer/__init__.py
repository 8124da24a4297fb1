"""Item codes: residual k-means, nearest rows, rivals, their versions and quality."""
