"""The one error family. A message names the culprit, what was found, what was wanted, and the fix."""

from __future__ import annotations


class PipelineError(Exception):
    """Base of every error this product raises on purpose.

    Args:
        culprit: what is wrong, by name (a feed, column, file, setting, customer).
        found: the value or state that was met.
        wanted: the value or state that would have been right.
        fix: what a person does next.
    """

    def __init__(self, culprit: str, *, found: object, wanted: object, fix: str) -> None:
        self.culprit, self.found, self.wanted, self.fix = culprit, found, wanted, fix
        super().__init__(f"{culprit}: found {found}; wanted {wanted}. Fix: {fix}")

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries (worker to parent) with all their parts."""
        return _rebuild, (type(self), self.culprit, self.found, self.wanted, self.fix)


def _rebuild(kind: type[PipelineError], culprit: str, found: object, wanted: object, fix: str) -> PipelineError:
    return kind(culprit, found=found, wanted=wanted, fix=fix)


class ConfigurationError(PipelineError):
    """A setting, mapping file or profile cannot be used."""


class SourceError(PipelineError):
    """A source cannot deliver a feed for a day (missing, empty, unreadable)."""


class SchemaError(PipelineError):
    """A table does not have the declared columns or types."""


class BlockedPartition(PipelineError):
    """A business day has no passed verdict, so nothing may be computed from it."""


class FeatureMismatch(PipelineError):
    """Feature names, order or width differ between a model and the values it is given."""


class BundleError(PipelineError):
    """A serving bundle is incomplete, damaged or does not answer as recorded."""


class NotEnoughData(PipelineError):
    """A computation was asked for on too little data to mean anything."""


class Busy(PipelineError):
    """Somebody else is at what may be used by one at a time; nothing was done."""


class Damaged(PipelineError):
    """What was kept for later is not what was written."""


class RunFailed(PipelineError):
    """A Dagster run that was started from here failed."""


class BuildFailed(PipelineError):
    """dbt could not build the marts, or a data test found rows that must not be."""
