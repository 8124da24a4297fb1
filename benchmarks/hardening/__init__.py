"""Harnesses of `make harden`; the product knows nothing of them."""
