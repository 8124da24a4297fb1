"""Entry of the command line: its commands, and the exit code for each kind of error."""

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

from qarm.cli import codes, recommendations, serving, stages
from qarm.cli.output import fail
from qarm.core.disk_errors import explained
from qarm.errors import QarmError

__all__ = ["app", "main"]

# option that stood for the first argument in earlier versions, by command
FIRST = dict.fromkeys(("encode", "monitor", "recommend", "similar"), "--run") | {"serve": "--bundle"}

app = App(
    name="qarm",
    help="From a catalogue and a click log to aligned vectors, trainable codes and a recommender.",
    help_format="plaintext",
    version_flags=["--version"],
)
for commands in (stages, codes, recommendations, serving):
    app.update(commands.app)


@app.command(name="--completion")
def completion(
    shell: Annotated[Literal["bash", "zsh", "fish", "powershell"], Parameter(help="Whose script.")],
) -> None:
    """Print the script that completes commands and options in a shell."""
    print(app.generate_completion(prog_name="qarm", shell=shell))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits with 0 (done), 2 (wrong input, one message) or 1 (anything else)."""
    # threads that spin while they wait cost a busy machine more than they gain
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    tokens = _run_first(_expand_settings(sys.argv[1:] if arguments is None else arguments))
    try:
        with explained("the disk"):
            app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        fail(f"{error}\nqarm --help lists the commands and their options.", 2)
    except QarmError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None or error.strerror is None:
            raise
        fail(f"{error.filename}: {error.strerror.lower()}; is it the path that is meant?", 1)
    except KeyboardInterrupt:
        fail("stopped; the same command goes on from here", 130)


def _run_first(tokens: Sequence[str]) -> list[str]:
    """Rewrite `encode ITEMS --run RUN`, the order of earlier versions, to `encode RUN ITEMS`."""
    option = FIRST.get(tokens[0] if tokens else "")
    for place, token in enumerate(tokens):
        name, equals, value = token.partition("=")
        if name == option and (equals or place + 1 < len(tokens)):
            rest = [*tokens[1:place], *tokens[place + (1 if equals else 2) :]]
            return [tokens[0], value if equals else tokens[place + 1], *rest]
    return list(tokens)


def _expand_settings(tokens: Sequence[str]) -> list[str]:
    """Rewrite `--data.root X` and `--data.root=X` to `--set data.root=X`; `--seed` counts too."""
    expanded: list[str] = []
    rest = list(tokens)
    while rest:
        token = rest.pop(0)
        key, equals, value = token.removeprefix("--").partition("=")
        if not (token.startswith("--") and ("." in key or key == "seed")):
            expanded.append(token)
            continue
        if not equals:
            if not rest:
                fail(f"--{key} needs a value", 2)
            value = rest.pop(0)
        expanded += ["--set", f"{key}={value}"]
    return expanded
