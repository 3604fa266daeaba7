"""Faults at exact places inside writers: a supervisor that sees each writing system call of a process, and may kill or refuse.

Belongs here: the kernel's interface (seccomp user notification, Linux 5.5 or newer). Does not: what is run, or what must hold.
Delta's, DuckDB's and SQLite's writers are native code that no Python hook sees. Here the kernel stops every call that
creates, writes, syncs, renames, links or removes a file, in all threads and children of the process, until the supervisor
says go on. Killing at the n-th call is a kill between two writes of one file or between a data file and its commit, not
only between stages. No compiler, no debugger, no privileges.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# Names of `errno` and numbers of <asm/unistd.h>: call -> (number, place of its path or file argument, where opens have their flags)
_X86 = {
    "write": (1, 0), "open": (2, 0), "pwrite64": (18, 0), "writev": (20, 0), "fsync": (74, 0), "fdatasync": (75, 0),
    "ftruncate": (77, 0), "rename": (82, 1), "link": (86, 1), "unlink": (87, 0), "openat": (257, 1), "unlinkat": (263, 1),
    "renameat": (264, 3), "linkat": (265, 3), "renameat2": (316, 3),
}  # fmt: skip
_ARM = {
    "unlinkat": (35, 1), "linkat": (37, 3), "renameat": (38, 3), "ftruncate": (46, 0), "openat": (56, 1), "write": (64, 0),
    "writev": (66, 0), "pwrite64": (68, 0), "fsync": (82, 0), "fdatasync": (83, 0), "renameat2": (276, 3),
}  # fmt: skip
_CALLS, _SECCOMP, _AUDIT_ARCH = {
    "x86_64": (_X86, 317, 0xC000003E),
    "aarch64": (_ARM, 277, 0xC00000B7),
}[platform.machine()]
_NAMES = {number: name for name, (number, _) in _CALLS.items()}
_FLAGS = {"open": 1, "openat": 2}  # argument that holds O_WRONLY and O_RDWR; an open for reading is not stopped
ALL = frozenset(_CALLS)
# What writes whole files and commits: Delta. SQLite and DuckDB write pages into files that stay: nine of ten calls of a run.
OF_FILES = ALL - {"pwrite64", "fsync", "fdatasync", "ftruncate"}
_BY_FILE = {"write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate"}

_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000  # SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF
_NOTIFICATION, _ANSWER = struct.Struct("=QIIiIQ6Q"), struct.Struct("=QqiI")
_RECEIVE, _SEND, _CONTINUE = (
    0xC0502100,
    0xC0182101,
    1,
)  # SECCOMP_IOCTL_NOTIF_RECV, _SEND; SECCOMP_USER_NOTIF_FLAG_CONTINUE

Decision = Literal["go", "kill", "refuse"]


@dataclass(frozen=True)
class Call:
    """One writing system call, before it happened."""

    name: str  # openat, write, fsync, ...
    path: str  # the file that it is about


def _filter(calls: Collection[str]) -> bytes:
    """The BPF program: these calls ask the supervisor, opens only when they may write; everything else is allowed."""

    def statement(code: int, true: int, false: int, value: int) -> bytes:
        return struct.pack("=HBBI", code, true, false, value)

    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    program = [statement(load, 0, 0, 4), statement(equal, 1, 0, _AUDIT_ARCH), statement(answer, 0, 0, _ALLOW)]
    program.append(statement(load, 0, 0, 0))
    for name, (number, _) in _CALLS.items():
        if name not in calls:
            continue
        if name in _FLAGS:
            unless = [
                statement(load, 0, 0, 16 + 8 * _FLAGS[name]),
                statement(any_bit, 0, 1, os.O_WRONLY | os.O_RDWR),
                statement(answer, 0, 0, _ASK),
                statement(answer, 0, 0, _ALLOW),
            ]
        elif name == "write":  # of 8 bytes: a thread wakes another one (eventfd), 4,000 times a run
            unless = [
                statement(load, 0, 0, 16 + 8 * 2),
                statement(equal, 1, 0, 8),
                statement(answer, 0, 0, _ASK),
                statement(answer, 0, 0, _ALLOW),
            ]
        else:
            unless = [statement(answer, 0, 0, _ASK)]
        program += [statement(equal, 0, len(unless), number), *unless]
    program.append(statement(answer, 0, 0, _ALLOW))
    return b"".join(program)


def be_supervised(channel: socket.socket, calls: Collection[str] = ALL) -> None:
    """From here on this process, its threads and its children are stopped at every writing call.

    Args:
        channel: to the supervisor, which gets the kernel's listener through it.
        calls: which ones; each costs two switches between processes.

    Raises:
        OSError: the kernel refuses the filter.
    """

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    libc = ctypes.CDLL(None, use_errno=True)
    code = _filter(calls)
    program = Program(len(code) // 8, code)
    no_new_privileges, set_filter, new_listener = 38, 1, 8
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    listener = libc.syscall(_SECCOMP, set_filter, new_listener, ctypes.byref(program))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp: this kernel has no user notification (needs Linux 5.5)")
    socket.send_fds(channel, [b"."], [listener])
    os.close(listener)


def _text_at(process: int, address: int) -> str:
    with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(4096).split(b"\0", 1)[0].decode(errors="replace")


def _described(process: int, name: str, arguments: tuple[int, ...]) -> Call:
    value = arguments[_CALLS[name][1]]
    try:
        path = str(Path(f"/proc/{process}/fd/{value}").readlink()) if name in _BY_FILE else _text_at(process, value)
        if not path.startswith(("/", "pipe:", "socket:", "anon_inode:")):
            path = os.path.normpath(Path(f"/proc/{process}/cwd").readlink() / path)
    except (OSError, OverflowError):  # the thread is gone
        path = "?"
    return Call(name, path)


def supervise(process: int, channel: socket.socket, decide: Callable[[Call], Decision]) -> int:
    """Let a child run under `decide` until it ends; returns its wait status.

    `kill` ends the whole process group with SIGKILL before the call happens; `refuse` answers the call with ENOSPC.
    """
    _, (listener, *_), _, _ = socket.recv_fds(channel, 1, 1)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    try:
        while True:
            ready = poll.poll(100)
            if not ready or not ready[0][1] & select.POLLIN:
                ended, status = os.waitpid(process, os.WNOHANG)
                if ended:
                    return status
                continue
            notification = bytearray(_NOTIFICATION.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, notification)
                identity, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(notification)
                decision = decide(_described(thread, _NAMES[number], tuple(arguments)))
                if decision == "kill":
                    os.killpg(process, signal.SIGKILL)
                    return os.waitpid(process, 0)[1]
                refused = -errno.ENOSPC if decision == "refuse" else 0
                fcntl.ioctl(listener, _SEND, _ANSWER.pack(identity, 0, refused, 0 if refused else _CONTINUE))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINTR):  # the thread that asked has ended
                    raise
    finally:
        os.close(listener)
