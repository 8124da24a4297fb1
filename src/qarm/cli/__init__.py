"""Command line: arguments, a line for each stage, exit codes from errors."""

from qarm.cli.entry import app, main

__all__ = ["app", "main"]
