"""Entry point of `qarm` and of `python -m qarm`: streams and interrupts that must not fail a command."""

import os
import sys
from contextlib import suppress

__all__ = ["main"]

STOPPED = "stopped; the same command goes on from here"
GONE = "whoever read the output has gone, so it stopped; the same command goes on from here"
CLOSED = "standard output is closed, need a place for the results; close it no more, or add > /dev/null"


def main() -> None:
    """Run of one command with the arguments of this process; exit codes as of `qarm.cli.main`.

    A reader that goes, such as `head`, ends it with 141, an interrupt with 130, also while modules are still
    being imported; a terminal that lacks a character shows its number.
    """
    try:
        code = _run()
    except KeyboardInterrupt:
        code = _failed(STOPPED, 130)
    except BrokenPipeError:
        code = _failed(GONE, 141)
    sys.exit(_flushed(code))


def _run() -> int:
    closed = sys.stdout is None
    _open_streams()
    if closed:
        return _failed(CLOSED, 2)
    from qarm.cli import main as command
    from qarm.errors import QarmError

    try:
        command([_with_home(token) for token in sys.argv[1:]])
    except QarmError as error:
        return _failed(str(error), error.exit_code)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # rich's, which writes the help, ends with 1
            raise end.__context__ from None
        return end.code if isinstance(end.code, int) else 0 if end.code is None else _failed(str(end.code), 1)
    return 0


def _open_streams() -> None:
    """Streams that are closed lead to the null device, so that no file of the command gets their number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
        elif mode == "w":
            stream.reconfigure(errors="backslashreplace")


def _with_home(token: str) -> str:
    """An argument, or the value of `--name=value`, with `~` replaced by the home folder."""
    from qarm.core.paths import as_path

    name, equals, value = token.partition("=")
    if not (token.startswith("--") and equals):
        name, equals, value = "", "", token
    return f"{name}{equals}{as_path(value)}" if value.startswith(("~", f".{os.sep}~")) else token


def _failed(message: str, code: int) -> int:
    with suppress(OSError, ValueError):
        print(f"qarm: {message}", file=sys.stderr, flush=True)
    return code


def _flushed(code: int) -> int:
    """The exit code once everything is written; what cannot be written any more goes to the null device."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or _failed(GONE, 141)
    except OSError as error:
        code = code or _failed(f"standard output: {error.strerror}; send it elsewhere", 1)
    else:
        return code
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


if __name__ == "__main__":
    main()
