"""A tiny real bundle: 2 pair, 2 customer and 2 product features, five products, a LightGBM model that can be foretold.

The model learns score = 10 x pair_orders (0..3) + product_price step: more orders always rank higher.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline_assets.recommender.bundle import BundleContents, FeatureLists, WarmupRequest, write_bundle
from pipeline_assets.recommender.manifest import Manifest
from pipeline_assets.recommender.signature import TrustedKeys, public_bytes
from pipeline_assets.settings import load_settings

AS_OF = "2017-11-05"
CREATED_AT = "2017-11-06T01:00:00+00:00"
FEATURES = FeatureLists(
    ("pair_orders", "pair_days"), ("customer_orders", "customer_days"), ("product_price", "product_orders")
)
PRODUCTS = ("p1", "p2", "p3", "p4", "p5")
CUSTOMER = np.array([4.0, np.nan], dtype=np.float32)
PAIR = np.array([[0, 9], [3, 1], [1, 5], [2, 3]], dtype=np.float32)  # p2 was ordered 3 times, p4 twice, p3 once
CANDIDATES = ("p1", "p2", "p3", "p4")
RANKED = ["p2", "p4", "p3", "p1"]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))  # known to everybody: it protects nothing
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
TRUSTED = TrustedKeys((public_bytes(KEY),))


def model_text(seed: int = 0, sign: float = 1.0) -> str:
    """A native LightGBM text: `sign` x 10 x pair_orders, learned from 400 rows; -1 turns the order round."""
    import lightgbm

    rng = np.random.default_rng(seed)
    matrix = rng.integers(0, 4, size=(400, len(FEATURES.all))).astype(np.float32)
    data = lightgbm.Dataset(matrix, label=sign * 10 * matrix[:, 0], feature_name=FEATURES.all)
    parameters = {
        "objective": "l2",
        "num_leaves": 4,
        "learning_rate": 1.0,
        "num_threads": 1,
        "verbosity": -1,
        "seed": seed,
    }
    return str(lightgbm.train(parameters, data, num_boost_round=2).model_to_string())


def repeated(text: str, times: int) -> str:
    """A model of the first tree of `text`, `times` times: scores `times` as high, in the same order."""
    head, _, trees = text.partition("Tree=0\n")
    tree, rest = trees.partition("Tree=1\n")[0], trees.partition("end of trees")[2]
    blocks = [f"Tree={n}\n{tree}" for n in range(times)]
    head = head.partition("tree_sizes=")[0] + f"tree_sizes={' '.join(str(len(block)) for block in blocks)}\n\n"
    return f"{head}{''.join(blocks)}end of trees{rest}"


def contents(version: str = "m1", as_of: str = AS_OF, text: str | None = None, **changes: object) -> BundleContents:
    """The contents of a bundle; keyword arguments replace fields."""
    products = pd.DataFrame(
        {
            "product_id": PRODUCTS,
            "department": ["GROCERY", "GROCERY", "DRUG", None, "DRUG"],
            "category": ["MILK", "BREAD", "SOAP", None, "SOAP"],
            "type": ["WHOLE", "WHITE", "BAR", None, "LIQUID"],
            "brand": ["Private"] * 5,
            "product_price": [1.0, 2.0, 3.0, np.nan, 5.0],
            "product_orders": [5, 4, 3, 2, 1],
        }
    )
    fields: dict[str, object] = {
        "model_version": version,
        "as_of": as_of,
        "created_at": CREATED_AT,
        "model_text": model_text() if text is None else text,
        "features": FEATURES,
        "products": products,
        "fallback": pd.DataFrame({"rank": [1, 2, 3], "product_id": ["p1", "p5", "gone"], "score": [9.0, 8.0, 7.0]}),
        "evaluation": {"ndcg": 0.28},
        "model_card": "# Ranker\n",
        "warmup": (WarmupRequest("c1", CANDIDATES, PAIR, CUSTOMER),),
    }
    return BundleContents(**{**fields, **changes})  # type: ignore[arg-type]


def write(root: Path, version: str = "m1", as_of: str = AS_OF, **changes: object) -> tuple[Path, Manifest]:
    """Write a bundle below `root`, signed with `KEY`; its directory and manifest."""
    directory = root / f"{version}-{as_of}"
    return directory, write_bundle(directory, contents(version, as_of, **changes), KEY)  # type: ignore[arg-type]


def trust(data_dir: Path) -> Path:
    """Make `KEY` the one whose bundles are served from this data folder; the file of its public part."""
    (path,) = load_settings({"PIPELINE_DATA_DIR": str(data_dir)}).public_key_files
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path
