"""Harnesses of `make harden`; no module of the package imports them."""
