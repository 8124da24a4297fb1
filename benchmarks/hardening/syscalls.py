"""Disk changes of a process, seen at the system calls of all its threads, children and libraries (Linux).

A forked child installs a seccomp filter that hands each call that may change the disk to the parent, which
decides: let it pass, make it fail with an errno, or kill the child before it happens, a write in its middle.
No right is needed and nothing is set in the package. Docs: seccomp_unotify(2).
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hardening.forks import Ended, start, wait

__all__ = ["Event", "Tracer", "missing", "unflushed"]

AT_FDCWD = -100
PATH, AT, DESCRIPTOR = "path", "at", "descriptor"


@dataclass(frozen=True)
class Call:
    """A system call: its event's kind, how its file is given, the place of it and of the new name."""

    kind: str
    given: str
    place: int = 0
    new: int | None = None
    flags: int | None = None  # place of the flags, of calls that count only when they may write


NAMES = {
    "open": Call("open", PATH, flags=1),
    "openat": Call("open", AT, flags=2),
    "creat": Call("open", PATH),
    "write": Call("write", DESCRIPTOR),
    "pwrite64": Call("write", DESCRIPTOR),
    "writev": Call("write", DESCRIPTOR),
    "pwritev": Call("write", DESCRIPTOR),
    "pwritev2": Call("write", DESCRIPTOR),
    "sendfile": Call("write", DESCRIPTOR),
    "copy_file_range": Call("write", DESCRIPTOR, 2),
    "truncate": Call("truncate", PATH),
    "ftruncate": Call("truncate", DESCRIPTOR),
    "fallocate": Call("truncate", DESCRIPTOR),
    "fsync": Call("fsync", DESCRIPTOR),
    "fdatasync": Call("fsync", DESCRIPTOR),
    "rename": Call("rename", PATH, 0, 1),
    "renameat": Call("rename", AT, 0, 2),
    "renameat2": Call("rename", AT, 0, 2),
    "link": Call("link", PATH, 0, 1),
    "linkat": Call("link", AT, 0, 2),
    "symlink": Call("link", PATH, 1),
    "symlinkat": Call("link", AT, 1),
    "mkdir": Call("mkdir", PATH),
    "mkdirat": Call("mkdir", AT),
    "rmdir": Call("remove", PATH),
    "unlink": Call("remove", PATH),
    "unlinkat": Call("remove", AT),
}
NUMBERS = {  # include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls/syscall_64.tbl
    "x86_64": {
        "open": 2, "openat": 257, "creat": 85, "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296,
        "pwritev2": 328, "sendfile": 40, "copy_file_range": 326, "truncate": 76, "ftruncate": 77,
        "fallocate": 285, "fsync": 74, "fdatasync": 75, "rename": 82, "renameat": 264, "renameat2": 316,
        "link": 86, "linkat": 265, "symlink": 88, "symlinkat": 266, "mkdir": 83, "mkdirat": 258, "rmdir": 84,
        "unlink": 87, "unlinkat": 263,
    },
    "aarch64": {
        "openat": 56, "write": 64, "pwrite64": 68, "writev": 66, "pwritev": 70, "pwritev2": 287,
        "sendfile": 71, "copy_file_range": 285, "truncate": 45, "ftruncate": 46, "fallocate": 47,
        "fsync": 82, "fdatasync": 83, "renameat": 38, "renameat2": 276, "linkat": 37, "symlinkat": 36,
        "mkdirat": 34, "unlinkat": 35,
    },
}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
SECCOMP = {"x86_64": 317, "aarch64": 277}
NO_NEW_PRIVILEGES, SET_FILTER, NEW_LISTENER = 38, 1, 8
NOTIFY, ALLOW = 0x7FC00000, 0x7FFF0000
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06  # instructions of the filter
NOTIFICATION, RESPONSE = struct.Struct("QIIiIQ6Q"), struct.Struct("QqiI")
RECEIVE, SEND, PASS_ON = 0xC0502100, 0xC0182101, 1


@dataclass(frozen=True)
class Event:
    """One change of the disk: its kind, the file's path, and the new one of a rename or link."""

    kind: str
    path: str
    new: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.path}" + (f" -> {self.new}" if self.new else "")


def missing() -> str | None:
    """Why there is no tracing here; None where there is."""
    if sys.platform != "linux" or platform.machine() not in NUMBERS:
        return f"needs Linux on {' or '.join(NUMBERS)}"
    try:
        Tracer(Path("/nowhere")).run(lambda: None, Path(os.devnull))
    except OSError as error:
        return f"the kernel refuses seccomp's user notification ({error})"
    return None


def _filter() -> bytes:
    """Program of the filter: calls that may change the disk are notified, all others allowed."""
    lines = [struct.pack("HBBI", LOAD, 0, 0, 0)]
    for name, number in NUMBERS[platform.machine()].items():
        flags = NAMES[name].flags
        if flags is None:
            lines += [struct.pack("HBBI", EQUAL, 0, 1, number), struct.pack("HBBI", RETURN, 0, 0, NOTIFY)]
            continue
        lines += [
            struct.pack("HBBI", EQUAL, 0, 4, number),
            struct.pack("HBBI", LOAD, 0, 0, 16 + 8 * flags),
            struct.pack("HBBI", ANY_BIT, 0, 1, WRITING),
            struct.pack("HBBI", RETURN, 0, 0, NOTIFY),
            struct.pack("HBBI", RETURN, 0, 0, ALLOW),
        ]
    return b"".join([*lines, struct.pack("HBBI", RETURN, 0, 0, ALLOW)])


def _installed() -> int:
    """Descriptor of the notifications of this process's new filter."""
    content = _filter()
    program = ctypes.create_string_buffer(content)
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxQ", len(content) // 8, ctypes.addressof(program))
    )
    library = ctypes.CDLL(None, use_errno=True)
    library.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    listener: int = library.syscall(SECCOMP[platform.machine()], SET_FILTER, NEW_LISTENER, header)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


@dataclass
class Tracer:
    """Events below a folder, in order over all threads; number `at` (from 0) kills, or fails with `error`."""

    folder: Path
    at: int | None = None
    error: int | None = None
    seen: list[Event] = field(default_factory=list)
    calls: dict[int, str] = field(init=False)

    def __post_init__(self) -> None:
        self.root = os.path.realpath(self.folder)
        numbers = NUMBERS[platform.machine()]
        self.calls = {number: name for name, number in numbers.items()}

    def run(self, work: Callable[[], None], output: Path) -> Ended:
        """How a forked child ended that did `work` under the filter."""
        ours, theirs = socket.socketpair()

        def traced() -> None:
            os.setpgid(0, 0)
            ours.close()
            listener = _installed()
            socket.send_fds(theirs, [b"x"], [listener])
            os.close(listener)
            theirs.close()
            work()

        with ours:
            with theirs:
                child = start(traced, output)
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        if descriptors:
            try:
                self._follow(descriptors[0], child)
            finally:
                os.close(descriptors[0])
        ended = wait(child, output)
        if not descriptors:
            raise OSError(errno.ENOSYS, ended.output[-200:])
        return ended

    def _follow(self, listener: int, child: int) -> None:
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        while True:
            ((_, state),) = waiting.poll()
            if not state & select.POLLIN:
                return  # the last process under the filter has ended
            buffer = bytearray(NOTIFICATION.size)
            try:
                fcntl.ioctl(listener, RECEIVE, buffer)
            except OSError:
                continue  # the caller was killed meanwhile
            number, thread, _, call, _, _, *arguments = NOTIFICATION.unpack(buffer)
            answer = self._answer(thread, self.calls[call], arguments, child)
            if answer is None:
                continue
            response = RESPONSE.pack(number, 0, -answer, 0 if answer else PASS_ON)
            with suppress(OSError):
                fcntl.ioctl(listener, SEND, bytearray(response))

    def _answer(self, thread: int, name: str, arguments: list[int], child: int) -> int | None:
        """The errno to fail with, 0 to pass the call on, None where the process was killed."""
        try:
            event = self._event(thread, NAMES[name], arguments)
        except OSError:
            return 0  # a wrong descriptor or address: the call fails by itself
        if event is None:
            return 0
        self.seen.append(event)
        if len(self.seen) - 1 != self.at:
            return 0
        if self.error is not None:
            return self.error
        if name in ("write", "pwrite64"):
            _half_written(thread, arguments, appends=name == "write")
        os.killpg(child, signal.SIGKILL)
        return None

    def _event(self, thread: int, call: Call, arguments: list[int]) -> Event | None:
        if call.given == DESCRIPTOR:
            path = os.readlink(f"/proc/{thread}/fd/{_signed(arguments[call.place])}")  # noqa: PTH115
            return Event(call.kind, self._short(path)) if self._inside(path) else None
        at = call.given == AT
        path = _path(thread, arguments, call.place, at=at)
        new = "" if call.new is None else _path(thread, arguments, call.new, at=at)
        if not self._inside(path) and not (new and self._inside(new)):
            return None
        kind = call.kind
        if kind == "mkdir" and os.path.lexists(path):
            return None  # it fails
        if kind == "open" and not os.path.lexists(path):
            kind = "create"
        return Event(kind, self._short(path), self._short(new) if new else "")

    def _inside(self, path: str) -> bool:
        return path == self.root or path.startswith(self.root + os.sep)

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self.root)


def _signed(value: int) -> int:
    return ctypes.c_int(value & 0xFFFFFFFF).value


def _path(thread: int, arguments: list[int], place: int, *, at: bool) -> str:
    """Absolute path of a name among the arguments; `at`: a folder's descriptor stands before it."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:  # noqa: PTH123 - no regular file
        memory.seek(arguments[place + at])
        name = os.fsdecode(memory.read(4096).partition(b"\0")[0])
    folder = _signed(arguments[place]) if at else AT_FDCWD
    base = f"/proc/{thread}/cwd" if folder == AT_FDCWD else f"/proc/{thread}/fd/{folder}"
    whole = name if name.startswith("/") else os.path.join(os.readlink(base), name)  # noqa: PTH115, PTH118
    head, tail = os.path.split(os.path.normpath(whole))
    return os.path.join(os.path.realpath(head), tail)  # noqa: PTH118


def _half_written(thread: int, arguments: list[int], *, appends: bool) -> None:
    """First half of a `write`, or a `pwrite64`, that is never made."""
    descriptor, address, size = arguments[:3]
    with suppress(OSError):
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            memory.seek(address)
            content = memory.read(size // 2)
        target = os.open(f"/proc/{thread}/fd/{_signed(descriptor)}", os.O_WRONLY)
        lines = Path(f"/proc/{thread}/fdinfo/{_signed(descriptor)}").read_text().split()
        os.pwrite(target, content, int(lines[1]) if appends else arguments[3])
        os.close(target)


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def unflushed(events: list[Event], left: set[str]) -> list[str]:
    """What a power cut after the last event may take, of the files and folders that are left, by name.

    A file needs a flush after its last write, a folder one after the last name that came into it. Files that
    were written before they were moved are followed to their new name.
    """
    written: dict[str, bool] = {}  # file to whether it is flushed
    names: set[str] = set()  # that came into their folder after its last flush
    for event in events:
        if event.kind in ("write", "truncate"):
            written[event.path] = False
        elif event.kind == "fsync":
            written[event.path] = True
            names -= {name for name in names if _folder(name) == event.path}
        elif event.kind in ("mkdir", "create", "link"):
            names.add(event.new or event.path)
        elif event.kind == "rename":
            moved = [name for name in written if name == event.path or name.startswith(event.path + "/")]
            for name in moved:
                written[event.new + name[len(event.path) :]] = written.pop(name)
            inside = {name for name in names if name.startswith(event.path + "/")}
            names -= inside | {event.path}
            names |= {event.new} | {event.new + name[len(event.path) :] for name in inside}
    files = [name for name, flushed in written.items() if not flushed and name in left]
    kept = {name for name in names if name in left or any(one.startswith(f"{name}/") for one in left)}
    folders = {_folder(name) for name in kept} & left
    return sorted([*files, *(f"{name}/" for name in folders)])
