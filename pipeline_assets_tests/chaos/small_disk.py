"""A disk that can be made full: a tmpfs of a chosen size, mounted where a test wants it.

Belongs here: mounting. Does not: what is written. Mounting needs root, or sudo without a password as on GitHub's machines.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOMY = 256 * 1024**2  # bytes
PAGE = 4096  # a tmpfs is made of whole pages


def _privileged(*command: str) -> None:
    """Run a command as root, or fail: a disk that cannot be filled is not a test."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run([*prefix, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"{' '.join(command)}: {done.stderr}; a small disk needs root or sudo without a password"
    )


@dataclass(frozen=True)
class SmallDisk:
    """A mounted tmpfs."""

    place: Path

    def leave(self, free: int) -> None:
        """Shrink it until only `free` bytes are left."""
        state = os.statvfs(self.place)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize
        _privileged("mount", "-o", f"remount,size={used + free // PAGE * PAGE}", str(self.place))

    def free(self) -> None:
        """Somebody made room."""
        _privileged("mount", "-o", f"remount,size={ROOMY}", str(self.place))


@contextmanager
def small_disk(place: Path) -> Iterator[SmallDisk]:
    """Mount an empty disk at `place`, which must be an empty folder, and unmount it at the end."""
    owner = f"uid={os.geteuid()},gid={os.getegid()}"
    _privileged("mount", "-t", "tmpfs", "-o", f"size={ROOMY},{owner}", "tmpfs", str(place))
    try:
        yield SmallDisk(place)
    finally:
        _privileged("umount", "-l", str(place))
