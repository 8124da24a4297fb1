"""Entry point of `python -m qarm`, the same as `qarm`."""

from qarm.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
