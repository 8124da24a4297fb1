"""Numba compilation with types: kernels that release the interpreter lock and are cached on disk."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numba

__all__ = ["compiled", "temporary_cache"]

PACKAGE = Path(__file__).parents[2]
Function = TypeVar("Function", bound=Callable[..., object])


def compiled(
    *, reorder: bool = False, division: Literal["python", "numpy"] = "python", inline: bool = False
) -> Callable[[Function], Function]:
    """Compile a function with numba, keeping its type for callers.

    Args:
        reorder: let the compiler add in any order, fuse a product with a sum, and assume that no NaN and no
            signed zero occurs, so that it works on 16 values at a time. For bounds, and where another
            rounding is as good; never for codes.
        division: by zero raises (python), or gives infinity or NaN without a check (numpy).
        inline: put the function's code into every caller.
    """
    fastmath = {"reassoc", "contract", "nnan", "nsz"} if reorder else False
    decorator = numba.njit(
        fastmath=fastmath, nogil=True, error_model=division, inline="always" if inline else "never"
    )

    def compile_(function: Function) -> Function:
        dispatcher = decorator(function)
        if dispatcher is not function:  # NUMBA_DISABLE_JIT leaves the Python function
            _enable_cache(dispatcher)
        return cast(Function, dispatcher)

    return compile_


def _enable_cache(dispatcher: Any) -> None:
    """Cache of compiled code: where numba keeps it, else in a temporary folder, else none.

    Numba compares the source of the function's file only, and unpickles an index before it compares. The
    version, which it compares first, gets the hash of all kernels: after an upgrade in place neither a
    renamed type nor the earlier code of a function in another file is loaded.
    """
    given = numba.config.CACHE_DIR  # type: ignore[attr-defined]  # of NUMBA_CACHE_DIR
    if given or _home_is_known() or os.access(PACKAGE, os.W_OK):
        try:
            dispatcher.enable_caching()
        except RuntimeError:  # no folder can be written
            _cache_in(dispatcher, temporary_cache(), given)
    else:  # numba would make a folder called ~
        _cache_in(dispatcher, temporary_cache(), given)
    index = getattr(dispatcher._cache, "_cache_file", None)
    if index is not None:
        index._version = f"{numba.__version__} {_kernel_hash()}"


def _cache_in(dispatcher: Any, folder: Path | None, given: str) -> None:
    if folder is None:
        return
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]
    try:
        dispatcher.enable_caching()
    finally:
        numba.config.CACHE_DIR = given  # type: ignore[attr-defined]


def _home_is_known() -> bool:
    return "XDG_CACHE_HOME" in os.environ or os.path.expanduser("~") != "~"  # noqa: PTH111 - as numba asks


def temporary_cache() -> Path | None:
    """Folder for compiled code below the system's temporary one, of this user alone; None: there is none.

    Compiled code is executed, so a folder that another user could write to, or a link, is not used.
    """
    try:
        user = os.getuid() if hasattr(os, "getuid") else "user"
        folder = Path(tempfile.gettempdir()) / f"qarm-numba-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return folder if stat.S_ISDIR(status.st_mode) and ours else None


@cache
def _kernel_hash() -> str:
    """Hash of all files of the package that have to do with numba."""
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_bytes() for path in PACKAGE.rglob("*.py")}
    kernels = [name.encode() + text for name, text in sorted(sources.items()) if b"numba" in text]
    return hashlib.sha256(b"\0".join(kernels)).hexdigest()
