"""Threads, Ray, torchrun and compiled loops."""
