"""Reproducing a model: its inputs, settings and parameters are restored, it is trained again, and everything is compared with what was recorded.

Belongs here: what is compared, in which order. Does not: restoring versions of tables (rebuild.py), training (training_run.py).
The order is that of cause and effect, so the first difference is the one to look at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from pipeline_assets.recommender.errors import FeatureMismatch, NotEnoughData
from pipeline_assets.recommender.ranker import RankerParams, rank_customers
from pipeline_assets.resources.content import DayContent, combined, contents, digest
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import VERDICTS, Commit, Lake, local_lake
from pipeline_assets.resources.rebuild import Restored, built_again, commit_of, restore_inputs
from pipeline_assets.resources.tracking import Tracking, Version, git_commit, lock_digest
from pipeline_assets.resources.training_data import FEATURE_TABLES, customer_ids, read_training_set, read_week
from pipeline_assets.resources.training_run import PARAMS_FILE, SETTINGS_FILE, fit
from pipeline_assets.resources.versions import content_at
from pipeline_assets.schemas.tables import FEATURE_TABLES as FEATURE_SCHEMAS
from pipeline_assets.schemas.tables import RECOMMENDATIONS
from pipeline_assets.settings import Settings, get_settings, with_values

Sections = Mapping[str, Mapping[str, Any]]
_NOT_RESTORED = {"calendar": {"until", "late_days"}, "training": {"threads"}}  # no part of the settings' digest either
_DAYS_AT_ONCE = 64  # of a mart; a day of packed candidates is 80 MB, so features are compared one by one


@dataclass(frozen=True)
class Compared:
    """One thing as it was recorded and as it is here. `decides` False: it is told, and is no difference of the result by itself."""

    name: str
    recorded: str
    here: str
    decides: bool = True

    @property
    def is_equal(self) -> bool:
        return self.recorded == self.here


@dataclass(frozen=True)
class Reproduction:
    """A model that was trained again, compared part by part."""

    reference: str
    run_id: str
    as_of: date
    parts: tuple[Compared, ...]

    @property
    def first_difference(self) -> Compared | None:
        return next((part for part in self.parts if part.decides and not part.is_equal), None)

    @property
    def is_equal(self) -> bool:
        return self.first_difference is None


def reproduce(
    settings: Settings,
    tracking: Tracking,
    reference: str,
    folder: Path,
    say: Callable[[str], object],
    *,
    newest_inputs: bool = False,
    own_settings: bool = False,
) -> Reproduction:
    """Train a recorded model again in `folder`. The process's settings are the model's, and point at `folder`, afterwards.

    Args:
        reference: a registered version, or the id of a training run.
        newest_inputs: take the tables as they are now; the first that differs from what the model was trained on is named.
        own_settings: keep the settings of this process.

    Raises:
        NotEnoughData: the model, or a version of a table, is not known any more.
        ConfigurationError: a recorded setting is not one of this code.
    """
    version = tracking.version(reference)
    if "as_of" not in version.tags:
        raise NotEnoughData(
            f"run {version.run_id}", found="no business day on it", wanted="a training run", fix="give another run id"
        )
    day, lake = date.fromisoformat(version.tags["as_of"]), local_lake(settings.data_dir)
    recorded = _recorded(tracking, version)
    there, params = _restored_configuration(tracking, version, recorded if not own_settings else None)
    parts = [
        Compared("code (commit)", version.tags["commit"], git_commit(), decides=False),
        Compared("packages (lock)", version.tags["lock_digest"], lock_digest(), decides=False),
        *compared_settings(recorded, there, version.tags["config_digest"]),
    ]
    written = version.tags.get("training_set_version")
    commit = commit_of(lake, day, int(written) if written else None)
    versions = lake.versions(commit.inputs) if newest_inputs else commit.inputs
    restored = restore_inputs(there, day, versions, folder, say, also=[day])
    require_feature_columns(restored.lake, version.tags["commit"])
    parts += _inputs(lake, commit, restored, day)
    with built_again(lake, restored, day, settings.calendar.holdout_start, version.run_id, say) as (file, found):
        parts.append(Compared("training set", _shown(content_at([commit])[day]), _shown(found)))
        rows = read_training_set([file])
        fitted = fit(rows, restored.weeks, restored.settings, study="reproduction", storage=None, params=params)
    say(f"trained: {fitted.trained.best_iteration} trees")
    parts.append(Compared("trees", version.tags["tree_digest"], fitted.tree_digest))
    parts += _slates(lake, restored, day, reference, (tracking.model_text(version.run_id), fitted.text))
    return Reproduction(reference, version.run_id, day, tuple(parts))


def _recorded(tracking: Tracking, version: Version) -> Sections | None:
    """The settings that a run keeps, section -> key -> value, without those that change nothing; None for runs before they were kept."""
    if not tracking.has_artifact(version.run_id, SETTINGS_FILE):
        return None
    sections: Sections = tracking.artifact_json(version.run_id, SETTINGS_FILE)
    return {
        section: {key: value for key, value in values.items() if key not in _NOT_RESTORED.get(section, ())}
        for section, values in sections.items()
    }


def compared_settings(recorded: Sections | None, here: Settings, digest_then: str) -> Iterator[Compared]:
    """Each recorded setting that has another value here; settings that came since are told. Without a record, the two digests."""
    if recorded is None:
        yield Compared("settings", digest_then, here.digest)
        return
    now, differing = here.recorded, False
    for section, values in sorted(recorded.items()):
        for key, value in sorted(values.items()):
            if now.get(section, {}).get(key) != value:
                differing = True
                yield Compared(f"setting {section}.{key}", json.dumps(value), json.dumps(now.get(section, {}).get(key)))
    if not differing:
        yield Compared("settings", digest_then, digest_then)
    came = [
        f"{section}.{key}"
        for section, values in sorted(now.items())
        for key in sorted(set(values) - set(recorded.get(section, {})) - _NOT_RESTORED.get(section, set()))
    ]
    if came:
        yield Compared("settings that came since", "none", ", ".join(came), decides=False)


def _restored_configuration(
    tracking: Tracking, version: Version, recorded: Sections | None
) -> tuple[Settings, RankerParams | None]:
    """Settings and parameters as they were recorded; without a record the process's settings, and a search of its own."""
    if recorded is None:
        return get_settings(), None
    params = tracking.artifact_json(version.run_id, PARAMS_FILE)
    known = {field.name for field in fields(RankerParams)}
    if set(params) != known:
        raise FeatureMismatch(
            f"parameters of run {version.run_id}",
            found=sorted(params),
            wanted=sorted(known),
            fix=f"check out commit {version.tags['commit']}",
        )
    return with_values(recorded), RankerParams(**params)


def require_feature_columns(lake: Lake, commit: str) -> None:
    """Features that another list was computed with cannot be read by this code.

    Raises:
        FeatureMismatch: naming the table and the columns; the fix is the recorded commit.
    """
    for name, schema in FEATURE_SCHEMAS.items():
        stored = set(lake.read_days(f"features/{name}", []).column_names)
        if stored != set(schema.names):
            more, less = sorted(stored - set(schema.names)), sorted(set(schema.names) - stored)
            raise FeatureMismatch(
                f"features/{name} as it was recorded",
                found=f"columns that this code does not have: {more or 'none'}; it lacks {less or 'none'}",
                wanted="the feature list of this code",
                fix=f"`git worktree add` commit {commit.removesuffix('+changes')} and reproduce there",
            )


def _shown(content: DayContent | None) -> str:
    return f"{content.rows} rows, {content.digest[:16]}" if content else "nothing"


def _inputs(lake: Lake, commit: Commit, restored: Restored, day: date) -> Iterator[Compared]:
    """Each table that the training set is built from: the days that are read, with what the recorded version held and what is here."""
    for table in sorted(commit.inputs, key=lambda name: (name in FEATURE_TABLES, name)):  # marts before features
        version = commit.inputs[table]
        if table == VERDICTS:
            yield Compared(table, f"version {version}", f"version {restored.versions[table]}", decides=False)
            continue
        recorded = content_at(lake.commits(table), version)
        is_feature = table in FEATURE_TABLES
        days = [d for d in (restored.feature_days if is_feature else sorted(recorded)) if d in recorded and d <= day]
        here = _contents(restored.lake, table, days, 1 if is_feature else _DAYS_AT_ONCE)
        different = next((d for d in days if recorded[d] != here[d]), None)
        if different is None:
            one = combined([recorded[d].digest for d in days] or [""])[:16]
            yield Compared(table, f"{len(days)} days, {one}", f"{len(days)} days, {one}")
        else:
            yield Compared(f"{table} of {different}", _shown(recorded[different]), _shown(here[different]))


def _contents(lake: Lake, table: str, days: Sequence[date], at_once: int) -> dict[date, DayContent]:
    found: dict[date, DayContent] = {}
    schema = FEATURE_SCHEMAS.get(table.removeprefix("features/"))
    for start in range(0, len(days), at_once):
        part = days[start : start + at_once]
        rows = lake.read_days(table, part)
        # Arrow names the items of a list otherwise when it reads them from a file; the digest is of the declared types
        found |= contents(rows.select(schema.names).cast(schema) if schema else rows, part)
    return found


def _slates(lake: Lake, restored: Restored, day: date, version: str, texts: tuple[str, str]) -> Iterator[Compared]:
    """Slates of the as-of day by the recorded model and by the new one, and what was published of this version that day.

    What was published was scored by the bundle's compiled model, whose sums end in other digits (compiled.TOLERANCE): its products and their
    order are compared.
    """
    import lightgbm

    if day not in restored.lake.days(FEATURE_TABLES[0]):
        return  # its features were not computed when it was trained
    features = FeatureStoreResource()
    week = read_week(features, features.apply(), customer_ids(restored.lake, day), day)
    settings = restored.settings
    recorded, here = (
        rank_customers(
            lightgbm.Booster(model_str=text),
            week.rows,
            week.catalogue,
            settings.serving.top,
            settings.training.usable_threads,
        )
        for text in texts
    )
    yield Compared("slates", _slate_digest(recorded), _slate_digest(here))
    if day in lake.days("recommendations/daily"):
        published = lake.read_days("recommendations/daily", [day]).to_pandas()
        if set(published["model_version"]) == {version}:
            yield Compared("published slates", _order_digest(published), _order_digest(here))


def _slate_digest(slates: pd.DataFrame) -> str:
    return _digest(slates, ["customer_id", "rank", "product_id", "score"])


def _order_digest(slates: pd.DataFrame) -> str:
    return _digest(slates, ["customer_id", "rank", "product_id"])


def _digest(slates: pd.DataFrame, columns: list[str]) -> str:
    schema = pyarrow.schema([RECOMMENDATIONS.field(name) for name in columns])
    ordered = slates[columns].sort_values(["customer_id", "rank"])
    return f"{len(ordered)} rows, {digest(pyarrow.Table.from_pandas(ordered, schema, preserve_index=False))[:16]}"
