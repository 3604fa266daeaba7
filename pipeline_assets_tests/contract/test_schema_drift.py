"""One declaration per table: pandera feeds = dbt staging, mart YAML = mart SQL, feature lists = lake = Feast."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PRODUCT_FEATURES
from pipeline_assets.resources import engines, snapshots, versions, warehouse
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.tables import FEATURE_TABLES
from pipeline_assets.settings import Settings, load_settings
from pipeline_assets_tests.contract.repository import ROOT

MODELS = ROOT / "dbt/models"
STAMP = ["feature_ts", "event_date"]
HIERARCHY = ["department", "category", "type", "brand"]


def plain_sql(text: str) -> str:
    """A model's SQL without Jinja: refs and sources become table names, macros that configure or filter vanish."""
    text = re.sub(r"\{#.*?#\}", "", text, flags=re.DOTALL)
    text = re.sub(r"\{\{ *ref\('(\w+)'\) *\}\}", r"\1", text)
    text = re.sub(r"\{\{ *source\('(\w+)', *'(\w+)'\) *\}\}", r"\1.\2", text)
    text = re.sub(r"\{\{ *in_run_window\([^)]*\) *\}\}", "true", text)
    text = re.sub(r"\{\{ *exact_sum\('(\w+)'\) *\}\}", r"sum(\1)", text)
    text = re.sub(r"\{\{ *dbt\.dateadd\([^}]*'([\w.]+)'\) *\}\}", r"\1", text)
    text = re.sub(r"\{\{ *by_day\(\) *\}\}", "", text)
    assert "{" not in text, f"Jinja that this test does not know: {text[text.index('{') :][:60]}"
    return text


def output_columns(sql: str) -> list[str]:
    """Names of the outermost select, in order."""
    import sqlglot

    return list(sqlglot.parse_one(plain_sql(sql), dialect="duckdb").named_selects)


def read_columns(sql: str) -> set[str]:
    """Every column that a select mentions."""
    import sqlglot

    return {column.name for column in sqlglot.parse_one(plain_sql(sql), dialect="duckdb").find_all(sqlglot.exp.Column)}


def declared(folder: str) -> dict[str, list[str]]:
    """Model -> columns of the YAML files of a folder of models."""
    documents = [yaml.safe_load(path.read_text()) for path in sorted((MODELS / folder).glob("*.yml"))]
    return {
        model["name"]: [column["name"] for column in model.get("columns", [])]
        for document in documents
        for model in document.get("models", [])
    }


MARTS = sorted(path.stem for path in (MODELS / "marts").glob("*.sql"))


@pytest.mark.parametrize("mart", MARTS)
def test_mart_yaml_is_its_sql(mart: str) -> None:
    """The YAML beside a mart declares the columns that its SQL selects, in the same order."""
    assert declared("marts").get(mart) == output_columns((MODELS / f"marts/{mart}.sql").read_text())


@pytest.mark.parametrize("folder", ["staging", "intermediate", "marts"])
def test_every_model_states_its_grain(folder: str) -> None:
    """Each SQL file has a YAML entry with a grain, and no entry is without its file."""
    documents = [yaml.safe_load(path.read_text()) for path in sorted((MODELS / folder).glob("*.yml"))]
    described = {m["name"]: m["description"] for document in documents for m in document.get("models", [])}
    assert set(described) == {path.stem for path in (MODELS / folder).glob("*.sql")}
    assert [name for name, text in described.items() if not text.startswith("Grain: ")] == []


def test_marts_are_the_ones_that_are_published_and_read() -> None:
    """dbt's marts, what the warehouse step publishes, and what feature code opens are one list."""
    assert sorted(warehouse.MARTS) == MARTS
    assert sorted(snapshots._FEED_OF) == MARTS


def test_dbt_has_the_engines_limits() -> None:
    """profiles.yml and the engine give DuckDB the same memory: they open one database in one process."""
    profile = yaml.safe_load((ROOT / "dbt/profiles.yml").read_text())["shop"]["outputs"]["duckdb"]
    assert profile["settings"]["memory_limit"] == engines.MEMORY


def test_a_promotion_counts_equally_long_everywhere() -> None:
    """dbt's variable, the look back of the warehouse and of the features, and what makes a day stale are one number of days."""
    variables = yaml.safe_load((ROOT / "dbt/dbt_project.yml").read_text())["vars"]
    code = {warehouse.PROMOTION_DAYS, snapshots._RECENT["fct_store_promotions"], versions.PLANS_DAYS}
    assert code == {variables["promotion_days"]}


@pytest.mark.parametrize("mart", MARTS)
def test_a_mart_is_ordered_by_columns_that_it_has(mart: str) -> None:
    """The grain of a mart, which makes the order of its rows canonical, names columns of its SQL."""
    assert set(warehouse.MARTS[mart].grain) <= set(output_columns((MODELS / f"marts/{mart}.sql").read_text()))


@pytest.mark.parametrize("feed", sorted(FEEDS))
def test_staging_reads_declared_columns(feed: str) -> None:
    """stg_<feed> reads only columns of the pandera declaration, and all of them except those named here."""
    not_needed = {"purchases": {"event_ts"}}  # the drift monitor reads it from validated/purchases
    read = read_columns((MODELS / f"staging/stg_{feed}.sql").read_text())
    assert read == set(FEEDS[feed].columns) - not_needed.get(feed, set())


def test_dbt_sources_are_the_feeds() -> None:
    """sources.yml names each feed, and the table of the run's days."""
    (source,) = yaml.safe_load((MODELS / "staging/sources.yml").read_text())["sources"]
    assert {table["name"] for table in source["tables"]} == {*FEEDS, "run_window"}


@pytest.mark.ml_test("D1")
def test_feature_tables_are_the_feature_lists() -> None:
    """The lake's schemas hold the key, the features of the one declaration in its order, and when they were known."""
    assert FEATURE_TABLES["customer"].names == ["customer_id", *CUSTOMER_FEATURES, *STAMP]
    assert FEATURE_TABLES["product"].names == ["product_id", *HIERARCHY, *PRODUCT_FEATURES, *STAMP]
    assert FEATURE_TABLES["customer_product"].names == ["customer_id", "candidate_ids", "pair_features", *STAMP]
    kinds = {
        str(FEATURE_TABLES[t].field(n).type)
        for t, names in (("customer", CUSTOMER_FEATURES), ("product", PRODUCT_FEATURES))
        for n in names
    }
    assert kinds == {"float"}  # Arrow's name of float32


@pytest.fixture(scope="module")
def feast_repository(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    """Views (name -> fields with types) and services (name -> views), read in a process of its own: under -O Feast costs
    1.7 CPU s to import, here it would cost 6."""
    code = """if True:
        import json
        from feast import FeatureService
        from feature_repo import services
        views = {v.name: sorted(f"{f.name}: {f.dtype}" for f in v.features) for v in services.ALL if not isinstance(v, FeatureService)}
        doors = {s.name: [p.name for p in s.feature_view_projections] for s in services.ALL if isinstance(s, FeatureService)}
        texts = {o.name: [o.owner, o.description] for o in services.ALL}
        print(json.dumps({"views": views, "services": doors, "texts": texts}))
    """
    environ = {**os.environ, "PIPELINE_DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    done = subprocess.run(
        [sys.executable, "-O", "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_feast_views_are_the_feature_lists(feast_repository: dict[str, dict[str, list[str]]]) -> None:
    """Feast's fields are the same names, float32 (it keeps no order; readers select by name); candidates are ids and bytes."""
    assert feast_repository["views"] == {
        "customer": sorted(f"{name}: Float32" for name in CUSTOMER_FEATURES),
        "customer_candidates": ["candidate_ids: Array(String)", "pair_features: Bytes"],
        "product": sorted(f"{name}: Float32" for name in PRODUCT_FEATURES),
    }


def test_feast_services_cover_all_views(feast_repository: dict[str, dict[str, list[str]]]) -> None:
    """Every view is read through a service; views and services have an owner and a description."""
    assert feast_repository["services"] == {
        "ranker_online": ["customer", "customer_candidates"],
        "product_matrix": ["product"],
    }
    assert all(owner and text for owner, text in feast_repository["texts"].values())


def feast_options(settings: Settings) -> dict[str, object]:
    from feature_repo.config import repo_options

    return repo_options(settings)


def test_feature_store_yaml_is_the_local_profile() -> None:
    """The file for Feast's own command line equals what the pipeline builds from the default settings."""
    text = (ROOT / "feature_repo/feature_store.yaml").read_text()
    absolute = text.replace("../data", str(ROOT / "data"))  # it is read from its folder
    assert yaml.safe_load(absolute) == feast_options(load_settings({}))


def test_feature_store_yaml_of_other_settings_differs(tmp_path: Path) -> None:
    """Negative control: with another data folder the two are not equal."""
    absolute = (ROOT / "feature_repo/feature_store.yaml").read_text().replace("../data", str(ROOT / "data"))
    assert yaml.safe_load(absolute) != feast_options(load_settings({"PIPELINE_DATA_DIR": str(tmp_path)}))


@pytest.mark.ml_test("D1", control=True)
def test_a_drifted_select_is_found() -> None:
    """Negative control: a renamed, an added and a swapped column each change what the select puts out."""
    sql = "{{ by_day() }}\nwith x as (select hidden from {{ ref('y') }})\nselect a.customer_id, sum(amount) as amount from x as a"
    assert output_columns(sql) == ["customer_id", "amount"]
    assert output_columns(sql.replace("as amount", "as total")) == ["customer_id", "total"]
    assert output_columns(sql.replace("a.customer_id", "a.customer_id, 1 as n")) == ["customer_id", "n", "amount"]
    assert read_columns("select a, b as c from {{ source('lake', 'purchases') }} where {{ in_run_window('d') }}") == {
        "a",
        "b",
    }
