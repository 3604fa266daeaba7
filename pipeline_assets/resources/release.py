"""From a decision to what is served: registry alias, bundle, batch recommendations, release state."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from pipeline_assets.monitoring.slo import frozen_outcome
from pipeline_assets.recommender import baselines
from pipeline_assets.recommender.bundle import (
    Bundle,
    BundleContents,
    FeatureLists,
    WarmupRequest,
    load_bundle,
    write_bundle,
)
from pipeline_assets.recommender.discover import discover
from pipeline_assets.recommender.errors import BundleError, NotEnoughData
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PAIR_FEATURES, PRODUCT_FEATURES
from pipeline_assets.recommender.manifest import verify
from pipeline_assets.recommender.packing import unpack
from pipeline_assets.recommender.ranker import rank_customers
from pipeline_assets.recommender.signature import key_id, public_bytes
from pipeline_assets.recommender.training_set import Catalogue
from pipeline_assets.resources.compiled_models import compiled
from pipeline_assets.resources.durable import write_whole
from pipeline_assets.resources.evaluation_run import EVALUATION_TABLE
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import Lake
from pipeline_assets.resources.nightly_rules import barriers, caps, ruled
from pipeline_assets.resources.rollout_run import policy_of, record_config
from pipeline_assets.resources.signing import signing_key, trusted
from pipeline_assets.resources.tracking import Tracking, Version
from pipeline_assets.resources.training_data import customer_ids, sellable_purchases
from pipeline_assets.resources.training_run import model_run
from pipeline_assets.schemas.tables import RECOMMENDATIONS
from pipeline_assets.serving.probe import probe
from pipeline_assets.serving.release_state import Release, open_state, record_refused
from pipeline_assets.serving.rollout_state import Offered, offer, view
from pipeline_assets.settings import Settings

PROMOTION_TABLE = "evaluation/promotion"
BUNDLE_TABLE = "deployment/bundle"
RECOMMENDATION_TABLE, DISCOVER_TABLE = "recommendations/daily", "recommendations/discover"
# Of a product, in a bundle; its features come from the feature store.
_NAMES = ["product_id", "department", "category", "type", "brand"]
_ALL_CANDIDATES = 1000  # more than any customer has
N_WARMUP, N_FALLBACK = 5, 100


@dataclass(frozen=True)
class Promotion:
    """What the gate's decision did to the registry."""

    outcome: str
    version: str
    champion_version: str
    reasons: list[str]
    run_id: str


def _one(lake: Lake, table: str, day: date) -> dict[str, object]:
    rows = lake.read(table, day, day).to_pylist()
    if not rows:
        raise NotEnoughData(
            f"{table} of {day}",
            found="nothing",
            wanted="a materialised partition",
            fix=f"materialise {table} for {day}",
        )
    return dict(rows[0])


def promote(
    lake: Lake, tracking: Tracking, day: date, dagster_run_id: str, frozen_by: Sequence[str] = (), override: str = ""
) -> Promotion:
    """Register the model of `day`; move the alias `champion` when the gate said promote.

    Args:
        frozen_by: indicators whose error budget is used up: another model than the champion is then held back.
        override: why a person promotes it all the same.
    """
    decision, trained = _one(lake, EVALUATION_TABLE, day), model_run(lake, day)
    if decision["run_id"] != trained["run_id"]:
        raise NotEnoughData(
            f"evaluation of {day}",
            found=f"of run {decision['run_id']}",
            wanted=f"of the model's run {trained['run_id']}",
            fix="evaluate the new model first",
        )
    before = tracking.champion()
    is_another = before is not None and before.run_id != decision["run_id"]
    outcome, reasons = frozen_outcome(
        str(decision["outcome"]),
        [str(r) for r in decision["reasons"]],  # type: ignore[attr-defined]
        frozen_by,
        override,
        is_another,
    )
    tags = {
        key: str(trained[key])
        for key in ("as_of", "trained_through", "tree_digest", "training_set_digest", "config_digest", "commit")
    }
    version = tracking.register(str(decision["run_id"]), outcome, reasons, tags)
    champion = tracking.champion()
    result = Promotion(outcome, version.version, champion.version if champion else "none", reasons, version.run_id)
    row = {
        "event_date": day,
        "outcome": result.outcome,
        "version": result.version,
        "champion_version": result.champion_version,
        "reasons": reasons,
    }
    lake.replace_days(PROMOTION_TABLE, pyarrow.Table.from_pylist([row]), [day], dagster_run_id)
    return result


def build_bundle(
    lake: Lake,
    features: FeatureStoreResource,
    tracking: Tracking,
    day: date,
    settings: Settings,
    dagster_run_id: str,
    created_at: datetime,
    version: Version | None = None,
) -> Path:
    """Write and sign the bundle of the champion and the catalogue of `day`, and register it once its signature is trusted.

    The same content, signed with the same key, has the same path and is not written again. With `version` it is that model's, and
    is not the bundle of the day.

    Raises:
        BundleError: the key that signs is none of the public keys that serving trusts.
    """
    champion = version or tracking.require_champion()
    store = features.apply()
    products = lake.read("features/product", day, day, _NAMES).to_pandas().sort_values("product_id", ignore_index=True)
    if products.empty:
        raise NotEnoughData(
            f"features/product of {day}",
            found="no products",
            wanted="at least one",
            fix=f"materialise features for {day}",
        )
    products[list(PRODUCT_FEATURES)] = features.products_as_of(store, {day: products["product_id"].tolist()})[day]
    purchases = sellable_purchases(lake, settings.calendar.first_day, day, day)
    top = min(N_FALLBACK, purchases["product_id"].nunique())
    fallback = baselines.popularity(purchases, ["anyone"], day, top=top)[["rank", "product_id", "score"]]
    customers = customer_ids(lake, day)
    chosen = [customers[i] for i in np.linspace(0, len(customers) - 1, min(N_WARMUP, len(customers))).astype(int)]
    rows = features.customers_as_of(store, {day: chosen})[day]
    text = tracking.model_text(champion.run_id)
    contents = BundleContents(
        model_version=champion.version,
        as_of=day.isoformat(),
        created_at=created_at.isoformat(),
        model_text=text,
        features=FeatureLists(PAIR_FEATURES, CUSTOMER_FEATURES, PRODUCT_FEATURES),
        products=products,
        fallback=fallback,
        evaluation=tracking.artifact_json(champion.run_id, "evaluation/evaluation.json"),
        model_card=tracking.artifact_text(champion.run_id, "evaluation/model_card.md"),
        warmup=[
            WarmupRequest(
                str(row["customer_id"]),
                tuple(row["candidate_ids"]),
                unpack(row["pair_features"], len(row["candidate_ids"]), len(PAIR_FEATURES)),
                row[list(CUSTOMER_FEATURES)].to_numpy(np.float32),
            )
            for _, row in rows.iterrows()
        ],
        compiled=compiled(settings.data_dir / "compiled", text) if settings.serving.compiled else None,
    )
    key = signing_key(settings)
    content = hashlib.sha256(text.encode() + key_id(public_bytes(key)).encode() + (contents.compiled or b""))
    for part in (pd.util.hash_pandas_object(products, index=False), pd.util.hash_pandas_object(fallback, index=False)):
        content.update(part.to_numpy().tobytes())
    content.update(rows["pair_features"].sum())
    path = settings.data_dir / "bundles" / f"v{champion.version}-{day}-{content.hexdigest()[:8]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bundle(path, contents, key)
    manifest = verify(path, trusted(settings))
    if version is None:
        row = {"event_date": day, "path": str(path), "bundle_id": manifest.bundle_id, "model_version": champion.version}
        lake.replace_days(BUNDLE_TABLE, pyarrow.Table.from_pylist([row]), [day], dagster_run_id)
    return path


_newest: Bundle | None = (
    None  # of this process: recommendations, their checks and the skew report of a day ask for the same one
)


def bundle_of(lake: Lake, day: date, settings: Settings) -> Bundle:
    """The loaded bundle of a day; it is verified each time, and parsed unless it is the one of the last call."""
    global _newest
    _newest = load_bundle(Path(str(_one(lake, BUNDLE_TABLE, day)["path"])), trusted(settings), _newest)
    return _newest


@dataclass(frozen=True, eq=False)
class Recommended:
    """Slates of a day by table, `daily` or `discover`: as_of, customer_id, rank, product_id, score, model_version. `path`: what serving reads of
    the daily ones."""

    slates: dict[str, pd.DataFrame]
    path: Path


def recommend(
    lake: Lake,
    features: FeatureStoreResource,
    day: date,
    settings: Settings,
    dagster_run_id: str,
    names: Collection[str] = ("daily", "discover"),
) -> Recommended:
    """Top N of every customer by the bundle of `day`, and a slate of ten with something new where it costs little: those of `names` are written to the
    lake, the first also, atomically, as one Parquet file for serving."""
    bundle = bundle_of(lake, day, settings)
    ranked, daily = _rank_all(lake, features, bundle, day, settings)
    slates = {"daily": daily, "discover": discover(ranked)}
    slates = {name: slates[name] for name in names}
    for name, frame in slates.items():
        table = pyarrow.Table.from_pandas(frame, RECOMMENDATIONS, preserve_index=False)
        lake.replace_days(f"recommendations/{name}", table, [day], dagster_run_id)
    path = _fallback_path(settings, day, bundle.manifest.model_version)
    if "daily" in slates:
        _write_fallback(slates["daily"], path)
    return Recommended(slates, path)


def _rank_all(
    lake: Lake, features: FeatureStoreResource, bundle: Bundle, day: date, settings: Settings
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All candidates of every customer as of `day` that the rules do not bar, ranked by a bundle, and the top N of them under all rules: the
    columns of RECOMMENDATIONS."""
    rows = features.customers_as_of(features.apply(), {day: customer_ids(lake, day)})[day]
    catalogue = Catalogue(list(bundle.rows), bundle.product_matrix)
    ranked = rank_customers(bundle.scorer, rows, catalogue, _ALL_CANDIDATES, settings.training.usable_threads)
    rules, today, top = settings.rules, day + timedelta(days=1), settings.serving.top
    ranked = ruled(ranked, rows, bundle, barriers(rules), today, _ALL_CANDIDATES)
    ranked.insert(0, "as_of", day)
    ranked["model_version"], ranked["event_date"] = bundle.manifest.model_version, day
    return ranked, ruled(ranked, rows, bundle, caps(rules), today, top)


def refresh_stable(
    lake: Lake,
    features: FeatureStoreResource,
    tracking: Tracking,
    day: date,
    settings: Settings,
    dagster_run_id: str,
    recorded_at: datetime,
) -> Release | None:
    """While another model is on trial, `day` for the live one too: bundle and batch recommendations, probed and live. The day's own
    bundle is the champion's, which is on trial, and lists that are a week old lose 1.4 % (docs/design/evaluation.md).

    Returns:
        The release; None when nothing is on trial or the live one is of that day already.

    Raises:
        BundleError: the probe refused it; the older day stays live.
    """
    served = view(open_state(settings.release_url))
    if served.rollout is None or served.live is None or served.live.as_of >= day.isoformat():
        return None
    version = tracking.version(served.live.model_version)
    path = build_bundle(lake, features, tracking, day, settings, dagster_run_id, recorded_at, version)
    _, daily = _rank_all(lake, features, load_bundle(path, trusted(settings)), day, settings)
    _write_fallback(daily, _fallback_path(settings, day, version.version))
    return _offered(path, version.version, day, settings, recorded_at)


def _fallback_path(settings: Settings, day: date, version: str) -> Path:
    return settings.data_dir / "recommendations" / f"{day}-v{version}.parquet"


def _write_fallback(slates: pd.DataFrame, path: Path) -> None:
    rows = pyarrow.Table.from_pandas(slates, RECOMMENDATIONS, preserve_index=False)
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(rows.drop_columns(["event_date"]), sink)
    write_whole(path, sink.getvalue().to_pybytes())


def release(lake: Lake, day: date, settings: Settings, recorded_at: datetime) -> Release:
    """Ask the bundle of `day` in a child process, then offer it with its recommendations as fallback: live at once if it is a newer
    day of the live model, on trial if its model is new (`rollout_state.offer`).

    Raises:
        BundleError: the probe or the policy refused it; the refusal is recorded and what is live stays.
        ConfigurationError: a rollout would start without an armed guardrail.
    """
    row = _one(lake, BUNDLE_TABLE, day)
    record_config(settings, recorded_at)
    return _offered(Path(str(row["path"])), str(row["model_version"]), day, settings, recorded_at)


def _offered(path: Path, version: str, day: date, settings: Settings, recorded_at: datetime) -> Release:
    """Probe and offer a bundle."""
    recommendations = _fallback_path(settings, day, version)
    engine = open_state(settings.release_url)
    report = probe(path, trusted(settings))
    if not report.accepted:
        record_refused(
            engine,
            bundle_path=str(path),
            model_version=version,
            as_of=day.isoformat(),
            reason=report.reason,
            recorded_at=recorded_at,
        )
        raise BundleError(
            f"bundle {path.name}",
            found=report.reason,
            wanted="the recorded answers",
            fix="look at its training run; the live release stays",
        )
    fits = _fits(view(engine).live, path)
    offered = Offered(str(path), version, day.isoformat(), str(recommendations))
    row_now = offer(
        engine, offered, policy_of(settings), salt=secrets.token_hex(8), fits=fits, actor="pipeline", at=recorded_at
    )
    if row_now.state == "refused":
        raise BundleError(
            f"model {version}", found=row_now.reason, wanted="a model that may be tried", fix="the live release stays"
        )
    return row_now


def _fits(live: Release | None, path: Path) -> bool:
    """Whether two bundles read the same features: both arms of a rollout ask one online store."""
    lists = [Path(known) / "features.json" for known in ((live.bundle_path if live else path), path)]
    return len({file.read_bytes() for file in lists if file.exists()}) == 1
