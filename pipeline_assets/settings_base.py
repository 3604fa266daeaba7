"""What every section of the settings is: frozen, and an unknown key is an error."""

from __future__ import annotations

import pydantic


class Section(pydantic.BaseModel):
    """A table of the configuration file."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
