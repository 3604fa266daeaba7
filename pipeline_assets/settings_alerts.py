"""The section `alerts` of the settings. settings.py reads it, as every section."""

from __future__ import annotations

import pydantic

from pipeline_assets.settings_base import Section


class AlertSettings(Section):
    """Where alerts go besides the log, and how often the same one does."""

    webhook_url: pydantic.SecretStr = pydantic.SecretStr("")
    slack_url: pydantic.SecretStr = pydantic.SecretStr("")
    smtp_host: str = ""
    smtp_port: int = pydantic.Field(587, ge=1, le=65535)
    smtp_user: str = ""
    smtp_password: pydantic.SecretStr = pydantic.SecretStr("")
    smtp_starttls: bool = True
    email_from: str = ""
    email_to: tuple[str, ...] = ()
    repeat_minutes: float = pydantic.Field(60.0, ge=0)  # a person who has not looked for an hour may be told again
    hourly_limit: int = pydantic.Field(20, ge=1)  # nobody reads a twenty-first; the log has them all

    @pydantic.model_validator(mode="after")
    def _mail_has_addresses(self) -> AlertSettings:
        if self.smtp_host and not (self.email_from and self.email_to):
            raise ValueError("alerts.smtp_host needs alerts.email_from and alerts.email_to")
        return self
