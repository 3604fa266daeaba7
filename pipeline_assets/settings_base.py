"""What every section of the settings is: frozen, and an unknown key is an error. And what this process may use of the machine."""

from __future__ import annotations

import os

import pydantic


class Section(pydantic.BaseModel):
    """A table of the configuration file."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has (`taskset`, a container's CPU set)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
