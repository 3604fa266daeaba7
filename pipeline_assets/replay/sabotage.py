"""Models and bundles broken on purpose, to see who stops them. Nothing here is called by the pipeline itself."""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow

from pipeline_assets.recommender.manifest import COMPILED, make_manifest, publish, read
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.signing import signing_key, trusted
from pipeline_assets.resources.tracking import CHAMPION, MODEL_FILE, MODEL_NAME, Tracking
from pipeline_assets.resources.training_run import MODEL_TABLE
from pipeline_assets.serving.probe import MAX_ANSWER_CPU_MS
from pipeline_assets.settings import get_settings

SLOWER = 4  # times what an answer may cost
MEASURED = 64  # copies of a model that are timed, because one is too quick


def reversed_scores(text: str) -> str:
    """A LightGBM model whose every leaf has the opposite sign: it recommends what it thinks worst."""

    import lightgbm

    def turned(line: re.Match[str]) -> str:
        return "leaf_value=" + " ".join(
            value[1:] if value.startswith("-") else f"-{value}" for value in line[1].split(" ")
        )

    # what LightGBM writes then has the right sizes
    text = re.sub(r"^leaf_value=(.*)$", turned, _without_sizes(text), flags=re.MULTILINE)
    return str(lightgbm.Booster(model_str=text).model_to_string())


def _tracking() -> Tracking:
    settings = get_settings()
    return Tracking(tracking_uri=settings.mlflow_uri, artifact_root=str(settings.data_dir / "mlflow_artifacts"))


def register_degraded(day: date) -> str:
    """A training run of `day` whose model is the champion's with reversed scores, as if it had been trained; returns its id."""
    tracking, lake = _tracking(), local_lake(get_settings().data_dir)
    champion, client = tracking.require_champion(), tracking.client()
    source = client.get_run(champion.run_id)
    tags = {name: value for name, value in source.data.tags.items() if not name.startswith("mlflow.")}
    run = client.create_run(
        source.info.experiment_id, tags={**tags, "as_of": day.isoformat(), "fault": "degraded_model"}
    )
    run_id = str(run.info.run_id)
    client.log_text(run_id, reversed_scores(tracking.model_text(champion.run_id)), MODEL_FILE)
    for name in ("settings.json", "ranker_params.json"):
        client.log_text(run_id, tracking.artifact_text(champion.run_id, name), name)
    client.set_terminated(run_id)
    rows = lake.read(MODEL_TABLE).sort_by("event_date").to_pylist()
    trained = next(row for row in reversed(rows) if row["run_id"] == champion.run_id)
    row = {**trained, "event_date": day, "run_id": run_id, "recorded_at": datetime.now(UTC)}
    lake.replace_days(MODEL_TABLE, pyarrow.Table.from_pylist([row]), [day], "fault degraded_model")
    return run_id


def force_champion(day: date) -> str:
    """Make the model of `day` champion whatever the gate said; returns its version."""
    lake, client = local_lake(get_settings().data_dir), _tracking().client()
    version = str(lake.read("evaluation/promotion", day, day).to_pylist()[0]["version"])
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, version)
    return version


def _leaves(text: str, value: str) -> str:
    """A LightGBM model with one value in all leaves."""
    return re.sub(
        r"^leaf_value=(.*)$",
        lambda line: "leaf_value=" + " ".join([value] * len(line[1].split(" "))),
        _without_sizes(text),
        flags=re.MULTILINE,
    )


def _without_sizes(text: str) -> str:
    """A LightGBM model without the sizes of its trees' texts: it is read one tree after the other, whatever their length."""
    return re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)


def _flipped(model: bytes) -> bytes:
    middle = len(model) // 2
    return model[:middle] + bytes([model[middle] ^ 1]) + model[middle + 1 :]


def _turned_lists(blobs: Mapping[str, bytes]) -> bytes:
    lists = json.loads(blobs["features.json"])
    return json.dumps({**lists, "pair": lists["pair"][::-1]}).encode()


def _slowed(blobs: Mapping[str, bytes]) -> bytes:
    """The model and copies of its trees that add nothing: the same answers, for `SLOWER` times what one may cost on this machine."""
    before, _, after = _without_sizes(blobs["model.txt"].decode()).partition("end of trees")
    silent = _leaves(before[before.index("Tree=0") :], "0")
    candidates = max(len(asked["candidate_ids"]) for asked in json.loads(blobs["warmup.json"])["requests"])

    def longer(copies: int) -> str:
        return f"{before}{silent * copies}end of trees{after}"

    of_one = (_cpu_seconds(longer(MEASURED), candidates) - _cpu_seconds(longer(0), candidates)) / MEASURED
    return longer(math.ceil(SLOWER * MAX_ANSWER_CPU_MS / 1e3 / of_one)).encode()


def _cpu_seconds(text: str, rows: int) -> float:
    """What an answer about so many candidates costs, best of five."""
    import lightgbm
    import numpy as np

    booster, best = lightgbm.Booster(model_str=text), math.inf
    asked = np.random.default_rng(rows).uniform(0, 100, (rows, booster.num_feature())).astype(np.float32)
    for _ in range(5):
        start = time.process_time()
        booster.predict(asked, num_threads=1)
        best = min(best, time.process_time() - start)
    return best


# Fault -> the file of the bundle and what becomes of it. Those that are signed again pass signature and digests: only asking them shows it.
_DAMAGED: Mapping[str, Callable[[bytes], bytes]] = {
    "truncated_bundle": lambda model: model[: len(model) // 2],
    "bit_flipped_bundle": _flipped,
}
_FORGED: Mapping[str, tuple[str, Callable[[Mapping[str, bytes]], bytes]]] = {
    "wrong_schema_bundle": ("features.json", _turned_lists),
    "nan_scores_bundle": ("model.txt", lambda blobs: _leaves(blobs["model.txt"].decode(), "nan").encode()),
    "constant_scores_bundle": ("model.txt", lambda blobs: _leaves(blobs["model.txt"].decode(), "0").encode()),
    "slow_bundle": ("model.txt", _slowed),
}
BUNDLE_FAULTS = (*_DAMAGED, *_FORGED)


def spoil_bundle(day: date, fault: str) -> str:
    """Damage or forge the bundle of `day`, one of `BUNDLE_FAULTS`; returns the name of the file that is another now."""
    settings = get_settings()
    place = Path(str(local_lake(settings.data_dir).read("deployment/bundle", day, day).to_pylist()[0]["path"]))
    if fault in _DAMAGED:
        model = place / "model.txt"
        model.write_bytes(_DAMAGED[fault](model.read_bytes()))
        return f"{place.name}/{model.name}"
    name, changed = _FORGED[fault]
    manifest, blobs = read(place, trusted(settings))
    # without the compiled model, which would go on scoring as before
    blobs = {file: blob for file, blob in blobs.items() if not COMPILED.fullmatch(file)}
    blobs[name] = changed(blobs)
    shutil.rmtree(place)
    forged = make_manifest(manifest.model_version, manifest.as_of, manifest.created_at, blobs)
    publish(place, forged, blobs, signing_key(settings))
    return f"{place.name}/{name}"
