"""The bundle: one immutable directory with everything that serving needs to know.

Belongs here: writing, verifying, loading and asking a bundle. Does not: which bundle is live, HTTP, online features.
No file is a pickle. `verify` checks size and SHA-256 of every file before anything parses one, because LightGBM aborts
the whole process on a cut model file and loads a one-digit edit silently (measured, reliability E5).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline_assets.recommender.columns import PRODUCT_ID, RANK, SCORE
from pipeline_assets.recommender.compiled import F64, CompiledModel, file_name, require_parity
from pipeline_assets.recommender.errors import BundleError, FeatureMismatch
from pipeline_assets.recommender.manifest import REWRITE, Manifest, make_manifest, publish, read
from pipeline_assets.recommender.packing import F32, assemble, pack, unpack
from pipeline_assets.recommender.signature import TrustedKeys

if TYPE_CHECKING:
    import lightgbm
    import pandas as pd
    import pyarrow as pa
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ATTRIBUTES = ("department", "category", "type", "brand")
GOLDEN_K = 10


@dataclass(frozen=True)
class FeatureLists:
    """Names in the order of the model matrix: pair, customer, product."""

    pair: tuple[str, ...]
    customer: tuple[str, ...]
    product: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        return [*self.pair, *self.customer, *self.product]


@dataclass(frozen=True, eq=False)
class WarmupRequest:
    """One request that the probe answers: n candidate ids, pair features [n, P], customer features [C]."""

    customer_id: str
    candidate_ids: tuple[str, ...]
    pair_features: F32
    customer_features: F32


@dataclass(frozen=True)
class GoldenAnswer:
    """The recorded top of one warm-up request."""

    product_ids: tuple[str, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class BundleContents:
    """What goes into a bundle. The model was trained with `feature_name` = pair + customer + product names.

    `products` has product_id, the attributes and the product features; `fallback` has rank (1..n), product_id, score.
    `created_at` (ISO 8601) is kept beside the content and is no part of the bundle id. `compiled`: the model as machine code for
    this kind of machine, or None.
    """

    model_version: str
    as_of: str
    created_at: str
    model_text: str
    features: FeatureLists
    products: pd.DataFrame
    fallback: pd.DataFrame
    evaluation: Mapping[str, Any]
    model_card: str
    warmup: Sequence[WarmupRequest]
    compiled: bytes | None = None


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle. `product_matrix` is [products, Q]; `rows` says which row a product has, in ascending order of ids.

    `scorer` is the compiled model where the bundle has one for this kind of machine, and `booster` otherwise.
    """

    manifest: Manifest
    booster: lightgbm.Booster
    scorer: lightgbm.Booster | CompiledModel
    features: FeatureLists
    product_matrix: F32
    rows: Mapping[str, int]
    attributes: Mapping[str, Sequence[str | None]]  # column -> value per row
    fallback: tuple[tuple[str, float], ...]  # most popular first, sellable products only
    evaluation: Mapping[str, Any]
    warmup: tuple[WarmupRequest, ...]
    golden: tuple[GoldenAnswer, ...]

    def matrix(self, candidate_ids: Sequence[str], pair_features: F32, customer_features: F32) -> tuple[list[str], F32]:
        """Candidates still in the catalogue, and their model matrix [kept, P + C + Q].

        Raises:
            FeatureMismatch: a width differs from the model's, the rows are not one per id, or an id comes twice.
        """
        ids, _, matrix = self._assembled(candidate_ids, pair_features, customer_features)
        return ids, matrix

    def _assembled(
        self, candidate_ids: Sequence[str], pair_features: F32, customer_features: F32
    ) -> tuple[list[str], npt.NDArray[np.intp], F32]:
        """See `matrix`; also the products' rows."""
        n, wanted = len(candidate_ids), self.features
        if pair_features.shape != (n, len(wanted.pair)) or customer_features.shape != (len(wanted.customer),):
            raise FeatureMismatch(
                f"features for model {self.manifest.model_version}",
                found=f"pair {pair_features.shape}, customer {customer_features.shape}",
                wanted=f"pair ({n}, {len(wanted.pair)}), customer ({len(wanted.customer)},)",
                fix="publish online features with the feature list of the live bundle",
            )
        if len(set(candidate_ids)) != n:
            raise FeatureMismatch(
                "candidate_ids", found="an id twice", wanted="distinct ids", fix="pack candidates from distinct pairs"
            )
        found = np.fromiter(map(self.rows.get, candidate_ids, repeat(-1)), dtype=np.intp, count=n)
        if n and found.min() < 0:
            keep = np.flatnonzero(found >= 0)
            candidate_ids = [candidate_ids[int(i)] for i in keep]
            pair_features, found = pair_features[keep], found[keep]
        return list(candidate_ids), found, assemble(pair_features, customer_features, self.product_matrix[found])

    @property
    def is_compiled(self) -> bool:
        return isinstance(self.scorer, CompiledModel)

    def scores(self, matrix: F32) -> F64:
        """One score a row of the model matrix [n, P + C + Q]; one thread."""
        return np.asarray(self.scorer.predict(matrix, num_threads=1), dtype=np.float64)

    def rank(
        self, candidate_ids: Sequence[str], pair_features: F32, customer_features: F32, k: int
    ) -> tuple[list[str], F64]:
        """The best `k` candidates and their scores, best first; equal scores are ordered by product id.

        Candidates that left the catalogue are dropped, so fewer than `k` can come back. One thread.

        Args:
            candidate_ids: n distinct product ids.
            pair_features: float32 [n, P].
            customer_features: float32 [C].
            k: how many, >= 1.

        Raises:
            FeatureMismatch: see `matrix`.
            BundleError: the model gives a score that is not finite.
        """
        ids, rows, matrix = self._assembled(candidate_ids, pair_features, customer_features)
        if not ids:
            return [], np.empty(0)
        scores = self.scores(matrix)
        if not np.isfinite(scores).all():
            bad = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise BundleError(
                f"model {self.manifest.model_version}",
                found=f"score {scores[bad]} for product {ids[bad]}",
                wanted="finite scores",
                fix="retire this bundle and look at its training run",
            )
        order = np.lexsort((rows, -scores))[:k]  # rows are in the order of ids; sorting 200 texts would cost 0.15 ms
        return [ids[i] for i in order.tolist()], scores[order]

    def explain(
        self,
        product_ids: Sequence[str],
        candidate_ids: Sequence[str],
        pair_features: F32,
        customer_features: F32,
        top: int,
    ) -> list[list[tuple[str, float, float]]]:
        """The `top` features of each product by absolute SHAP contribution, as (name, value, contribution)."""
        ids, matrix = self.matrix(candidate_ids, pair_features, customer_features)
        place = {product: row for row, product in enumerate(ids)}
        chosen = matrix[[place[product] for product in product_ids]]
        if not len(chosen):
            return []
        contributions = np.asarray(self.booster.predict(chosen, pred_contrib=True, num_threads=1))[:, :-1]
        names = self.features.all
        return [
            [(names[j], float(values[j]), float(shares[j])) for j in np.argsort(-np.abs(shares), kind="stable")[:top]]
            for values, shares in zip(chosen, contributions, strict=True)
        ]


def write_bundle(directory: Path, contents: BundleContents, signing_key: Ed25519PrivateKey) -> Manifest:
    """Publish a signed bundle as `directory`, whole or not at all; writing an identical bundle again changes nothing.

    The golden answers are computed here from the native model in memory, so that the probe compares both files with it.

    Raises:
        BundleError: a part is missing or does not fit, the compiled model scores otherwise, or another bundle is there.
    """
    _check_contents(contents)
    blobs = {
        "model.txt": contents.model_text.encode(),
        "features.json": _json("features.json", asdict(contents.features)),
        "products.parquet": _parquet(
            contents.products[[PRODUCT_ID, *ATTRIBUTES, *contents.features.product]].sort_values(PRODUCT_ID)
        ),
        "fallback.parquet": _parquet(contents.fallback[[RANK, PRODUCT_ID, SCORE]]),
        "evaluation.json": _json("evaluation.json", contents.evaluation),
        "model_card.md": contents.model_card.encode(),
        "warmup.json": _json("warmup.json", {"requests": [], "golden": []}),
    }
    in_memory = _bundle(
        make_manifest(contents.model_version, contents.as_of, contents.created_at, blobs),
        blobs,
    )
    if contents.compiled is not None:
        compiled = CompiledModel(contents.compiled, len(in_memory.features.all))
        for r in contents.warmup:
            matrix = in_memory.matrix(r.candidate_ids, r.pair_features, r.customer_features)[1]
            require_parity(in_memory.booster, compiled, matrix)
        blobs[file_name()] = contents.compiled
    golden = [in_memory.rank(r.candidate_ids, r.pair_features, r.customer_features, GOLDEN_K) for r in contents.warmup]
    blobs["warmup.json"] = _json(
        "warmup.json",
        {
            "requests": [_request_json(request) for request in contents.warmup],
            "golden": [{"product_ids": ids, "scores": [float(s) for s in scores]} for ids, scores in golden],
        },
    )
    manifest = make_manifest(contents.model_version, contents.as_of, contents.created_at, blobs)
    return publish(directory, manifest, blobs, signing_key)


def load_bundle(directory: Path, trusted: TrustedKeys, known: Bundle | None = None) -> Bundle:
    """Verify signature and digests, then load what was verified. Model names and widths are checked against features.json.

    Args:
        known: one that was loaded before; if its files are those that were verified, it is the answer, and nothing is parsed.

    Raises:
        BundleError: unsigned or damaged (see `verify`), or its parts contradict each other.
    """
    manifest, blobs = read(directory, trusted)
    return known if known is not None and known.manifest == manifest else _bundle(manifest, blobs)


def _bundle(manifest: Manifest, blobs: Mapping[str, bytes]) -> Bundle:
    import lightgbm

    booster, code = lightgbm.Booster(model_str=blobs["model.txt"].decode()), blobs.get(file_name())
    lists = json.loads(blobs["features.json"])
    features = FeatureLists(tuple(lists["pair"]), tuple(lists["customer"]), tuple(lists["product"]))
    if booster.feature_name() != features.all:
        raise BundleError(
            f"model.txt of {manifest.model_version}",
            found=f"{booster.num_feature()} features {_head(booster.feature_name())}",
            wanted=f"{len(features.all)} features {_head(features.all)}",
            fix="train with feature_name = pair + customer + product features, in this order",
        )
    products = _table(blobs["products.parquet"])
    ids = products[PRODUCT_ID].to_pylist()
    rows = {product: row for row, product in enumerate(ids)}
    if len(rows) != len(ids):
        raise BundleError("products.parquet", found="a product twice", wanted="one row per product", fix=REWRITE)
    if ids != sorted(ids):  # `rank` breaks ties by it
        raise BundleError("products.parquet", found="ids in any order", wanted="ids in ascending order", fix=REWRITE)
    matrix = np.empty((len(ids), len(features.product)), dtype=np.float32)
    for column, name in enumerate(features.product):
        matrix[:, column] = products[name].cast("float32", safe=False).to_numpy()  # counts above 2**24 may round
    fallback = _table(blobs["fallback.parquet"]).sort_by(RANK)
    popular = zip(fallback[PRODUCT_ID].to_pylist(), fallback[SCORE].to_pylist(), strict=True)
    warmup = json.loads(blobs["warmup.json"])
    return Bundle(
        manifest=manifest,
        booster=booster,
        scorer=booster if code is None else CompiledModel(code, len(features.all)),
        features=features,
        product_matrix=matrix,
        rows=rows,
        attributes={name: _shared(products[name]) for name in ATTRIBUTES},
        fallback=tuple((product, float(score)) for product, score in popular if product in rows),
        evaluation=json.loads(blobs["evaluation.json"]),
        warmup=tuple(_request(raw, len(features.pair)) for raw in warmup["requests"]),
        golden=tuple(GoldenAnswer(tuple(g["product_ids"]), tuple(g["scores"])) for g in warmup["golden"]),
    )


def _check_contents(contents: BundleContents) -> None:
    try:
        date.fromisoformat(contents.as_of)
        is_aware = datetime.fromisoformat(contents.created_at).tzinfo is not None
    except ValueError:
        is_aware = False
    if not is_aware:
        raise BundleError(
            "as_of and created_at",
            found=f"{contents.as_of!r}, {contents.created_at!r}",
            wanted="a date and a timestamp with time zone, ISO 8601",
            fix="pass the partition key and an aware time",
        )
    wanted = {
        "products": ({PRODUCT_ID, *ATTRIBUTES, *contents.features.product}, contents.products),
        "fallback": ({RANK, PRODUCT_ID, SCORE}, contents.fallback),
    }
    for part, (columns, frame) in wanted.items():
        if missing := sorted(columns - set(frame.columns)):
            raise BundleError(part, found=f"no column {missing}", wanted=sorted(columns), fix="pass the whole table")
        if frame.empty:
            raise BundleError(
                part, found="no rows", wanted="at least one row", fix="build it from a day that has purchases"
            )
    for part, value in (
        ("warmup", contents.warmup),
        ("evaluation", contents.evaluation),
        ("model_card", contents.model_card),
    ):
        if not value:
            raise BundleError(part, found="nothing", wanted=f"a {part}", fix="a bundle is not served without it")


def _request_json(request: WarmupRequest) -> dict[str, Any]:
    customer = [None if np.isnan(value) else float(value) for value in request.customer_features]
    blob = base64.b64encode(pack(request.pair_features)).decode()
    return {
        "customer_id": request.customer_id,
        "candidate_ids": list(request.candidate_ids),
        "pair_features": blob,
        "customer_features": customer,
    }


def _request(raw: Mapping[str, Any], width: int) -> WarmupRequest:
    ids = tuple(raw["candidate_ids"])
    pair = unpack(base64.b64decode(raw["pair_features"]), len(ids), width)
    return WarmupRequest(raw["customer_id"], ids, pair, np.array(raw["customer_features"], dtype=np.float32))


def _json(name: str, value: object) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, indent=1, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        fix = "write null for what could not be computed, and dates as text"
        raise BundleError(name, found=error, wanted="values that JSON has", fix=fix) from None


def _parquet(frame: pd.DataFrame) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None), sink)
    return bytes(sink.getvalue().to_pybytes())


def _table(blob: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(blob))


def _shared(column: pa.ChunkedArray) -> list[str | None]:
    """The values of a column of texts that repeat, each text once in memory: 25 MB less for 92,000 products."""
    texts: dict[str | None, str | None] = {}
    return [texts.setdefault(text, text) for text in column.to_pylist()]


def _head(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
