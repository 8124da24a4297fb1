"""Bundles for the service, and codes for other systems."""
