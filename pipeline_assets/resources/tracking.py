"""MLflow: experiment runs, the model registry and its `champion` alias. Imported inside the functions (3 CPU s).

dagster-mlflow's resource opens the run and ties it to the Dagster run; exactly one asset (training/model) requires it, because
parallel steps sharing it would split one run in two. Everything else goes through `Tracking` with an explicit run id.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from pipeline_assets.recommender.errors import NotEnoughData
from pipeline_assets.settings import PROJECT_ROOT

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "daily-recommendation"
MODEL_NAME = "ranker"
CHAMPION = "champion"
MODEL_FILE = "model.txt"  # LightGBM's native text: what the bundle carries


@dg.resource(config_schema={"tracking_uri": str, "artifact_root": str})
def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
    """dagster-mlflow's tracking resource, imported when a step asks for it: its import alone costs 3 CPU s."""
    from dagster_mlflow import mlflow_tracking

    uri, root = context.resource_config["tracking_uri"], context.resource_config["artifact_root"]
    Tracking(tracking_uri=uri, artifact_root=root).ensure()
    own = {
        "experiment_name": EXPERIMENT,
        "mlflow_tracking_uri": uri,
        "env": {},
        "extra_tags": {"job": context.run.job_name},
    }
    settings = {"parent_run_id": None, "mlflow_run_id": None, "env_to_tag": None, **own}
    yield from mlflow_tracking.resource_fn(context.replace_config(settings))


@dataclass(frozen=True)
class Version:
    """A registered model version."""

    version: str
    run_id: str
    tags: Mapping[str, str]


def git_commit() -> str:
    """The checkout's commit, with `+changes` when files differ from it; `unknown` outside a checkout (an image sets none)."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    if head.returncode:
        return "unknown"
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def lock_digest() -> str:
    """SHA-256 of requirements.lock: the exact environment."""
    lock = PROJECT_ROOT / "requirements.lock"
    return hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else "no lock file"


class Tracking(dg.ConfigurableResource):
    """The MLflow server or database of the settings."""

    tracking_uri: str
    artifact_root: str

    def client(self) -> MlflowClient:
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        return mlflow.MlflowClient(self.tracking_uri)

    def ensure(self) -> None:
        """Create the experiment with its artifacts in the data folder, once; a database of its own has no default place."""
        client = self.client()
        if client.get_experiment_by_name(EXPERIMENT) is None:
            Path(self.artifact_root).mkdir(parents=True, exist_ok=True)
            client.create_experiment(EXPERIMENT, artifact_location=Path(self.artifact_root).as_uri())

    def model_text(self, run_id: str) -> str:
        """The native text of a run's model."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client().download_artifacts(run_id, MODEL_FILE, folder)).read_text()

    def artifact_json(self, run_id: str, name: str) -> Any:
        """A JSON artifact of a run."""
        import json
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            return json.loads(Path(self.client().download_artifacts(run_id, name, folder)).read_text())

    def artifact_text(self, run_id: str, name: str) -> str:
        """A text artifact of a run."""
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client().download_artifacts(run_id, name, folder)).read_text()

    def champion(self) -> Version | None:
        """The version with alias `champion`, None before the first promotion."""
        import mlflow

        try:
            found = self.client().get_model_version_by_alias(MODEL_NAME, CHAMPION)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise
        return Version(str(found.version), str(found.run_id), dict(found.tags))

    def version(self, reference: str) -> Version:
        """A registered version by its number, or any training run by its id; tags are those of the run.

        Raises:
            NotEnoughData: MLflow knows neither; names the versions there are.
        """
        import mlflow

        client = self.client()
        try:
            registered = client.get_model_version(MODEL_NAME, reference) if reference.isdigit() else None
            run_id = str(registered.run_id) if registered else reference
            return Version(reference, run_id, dict(client.get_run(run_id).data.tags))
        except mlflow.exceptions.MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            known = client.search_model_versions(f"name = '{MODEL_NAME}'")
            listed = ", ".join(sorted((str(found.version) for found in known), key=int))
            raise NotEnoughData(
                f"model {MODEL_NAME} {reference}",
                found="no such version or run",
                wanted=f"one of the versions {listed}, or the id of a training run" if listed else "a trained model",
                fix="see the registry, or the runs of the experiment, in MLflow",
            ) from None

    def has_artifact(self, run_id: str, name: str) -> bool:
        """Whether a run has an artifact of that name at its top."""
        return name in {found.path for found in self.client().list_artifacts(run_id)}

    def require_champion(self) -> Version:
        """Raises NotEnoughData when no model was ever promoted."""
        champion = self.champion()
        if champion is None:
            raise NotEnoughData(
                f"model {MODEL_NAME}",
                found="no version with alias champion",
                wanted="a promoted model",
                fix="run the job `training` first",
            )
        return champion

    def point_champion_at(self, version: str) -> None:
        """Move the alias `champion` to a registered version: after a rollback, to what is served."""
        self.client().set_registered_model_alias(MODEL_NAME, CHAMPION, version)

    def register(self, run_id: str, outcome: str, reasons: list[str], tags: Mapping[str, str]) -> Version:
        """Register a run's model as a new version, or find the one it has; champion only when `outcome` is promote."""
        client = self.client()
        if not client.search_registered_models(f"name = '{MODEL_NAME}'"):
            client.create_registered_model(
                MODEL_NAME, description="Ranks candidate products for every customer; see the model card of a version."
            )
        known = client.search_model_versions(f"name = '{MODEL_NAME}' and run_id = '{run_id}'")
        version = known[0] if known else client.create_model_version(MODEL_NAME, f"runs:/{run_id}/model", run_id)
        for key, value in {**tags, "outcome": outcome, "reasons": " | ".join(reasons)[:4900]}.items():
            client.set_model_version_tag(MODEL_NAME, version.version, key, value)
        if outcome == "promote":
            client.set_registered_model_alias(MODEL_NAME, CHAMPION, version.version)
        return Version(str(version.version), run_id, dict(tags))


def log_training(
    mlflow: Any,
    booster: Any,
    text: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    curve: list[float],
    tags: Mapping[str, str],
    images: Mapping[str, bytes],
    dataset: Mapping[str, str],
    texts: Mapping[str, str],
) -> str:
    """Log one training run into the active MLflow run, end it, and return its id.

    Args:
        mlflow: dagster-mlflow's resource: the mlflow module with this Dagster run's MLflow run active.
        images: file name -> PNG bytes. dataset: name and digest of the training set. texts: file name -> text, beside the model.
    """
    import io

    import lightgbm
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from PIL import Image

    if mlflow.active_run() is None:  # the second day of a range run: the resource opened one run for the first
        mlflow.start_run(tags={"dagster_run_id": tags["dagster_run_id"]})
    mlflow.log_params(dict(params))
    mlflow.log_metrics(dict(metrics))
    for step, value in enumerate(curve[::10]):
        mlflow.log_metric("stopping_ndcg", value, step=step * 10)
    mlflow.set_tags(dict(tags))
    source = HTTPDatasetSource(dataset["uri"])
    mlflow.log_input(MetaDataset(source, name=dataset["name"], digest=dataset["digest"][:36]), context="training")
    for name, content in {**texts, MODEL_FILE: text}.items():
        mlflow.log_text(content, name)
    for name, image in images.items():
        mlflow.log_image(Image.open(io.BytesIO(image)), name)
    lock = PROJECT_ROOT / "requirements.lock"
    if lock.exists():
        mlflow.log_artifact(str(lock), "environment")
    signature = ModelSignature(
        Schema([ColSpec("float", name) for name in booster.feature_name()]), Schema([ColSpec("double", "score")])
    )
    mlflow.lightgbm.log_model(
        lightgbm.Booster(model_str=text),
        name="model",
        signature=signature,
        pip_requirements=[f"lightgbm=={lightgbm.__version__}"],
    )
    run_id = str(mlflow.active_run().info.run_id)
    mlflow.end_run()
    return run_id
