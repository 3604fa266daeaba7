"""Backups of a small data folder: taken while it is written, damaged on purpose, made again elsewhere."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import pyarrow
import pytest

from pipeline_assets.recommender.errors import ConfigurationError, Damaged
from pipeline_assets.resources.archive import LISTING
from pipeline_assets.resources.backup import BUNDLE_TABLE, back_up, restore
from pipeline_assets.resources.erasure_lake import tables
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.serving.release_state import current_live, history, open_state, record_live
from pipeline_assets.settings import PROJECT_ROOT, Settings
from pipeline_assets_tests.erasable import erasable
from pipeline_assets_tests.small_lake import DAYS

AT = datetime(2017, 1, 10, tzinfo=UTC)


def quiet(_line: str) -> None:
    """Nobody watches."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = erasable(tmp_path / "data")
    (found.data_dir / "requirements.lock").touch()
    release(found.data_dir, 1)
    return found


def release(data: Path, number: int) -> None:
    """As a run does it: the bundle, its row in the lake, the release."""
    path = data / "bundles" / f"v{number}"
    path.mkdir(parents=True)
    (path / "model.txt").write_text(str(number))
    row = {"event_date": DAYS[number % len(DAYS)], "path": str(path)}
    local_lake(data).replace_days(BUNDLE_TABLE, pyarrow.Table.from_pylist([row]), [row["event_date"]], "run")
    engine = open_state(f"sqlite:///{data / 'release.db'}")
    record_live(
        engine,
        bundle_path=str(path),
        model_version=str(number),
        as_of="2017-01-09",
        recommendations_path=None,
        recorded_at=AT,
    )
    engine.dispose()


def broken(data: Path) -> list[str]:
    """What an index of a data folder names and that is not there: bundles of releases, data files of tables, inputs of commits."""
    engine, lake = open_state(f"sqlite:///{data / 'release.db'}"), local_lake(data)
    paths = [row.bundle_path for row in history(engine, 10_000)]
    engine.dispose()
    paths += lake.read(BUNDLE_TABLE)["path"].to_pylist()
    paths += [path for table in tables(lake) for path in lake.files(table)]
    newest = {table: lake.version(table) for table in tables(lake)}
    inputs = [(t, v) for table in newest for commit in lake.commits(table) for t, v in commit.inputs.items()]
    return [path for path in paths if not Path(path).exists()] + [
        str(each) for each in inputs if newest[each[0]] < each[1]
    ]


def elsewhere(tmp_path: Path, name: str = "new") -> Settings:
    return Settings(data_dir=tmp_path / name / "folder")


@pytest.mark.parametrize("name", ["kept", "kept.tar", "kept.tar.gz"])
def test_what_is_restored_is_what_was(settings: Settings, tmp_path: Path, name: str) -> None:
    """Every table with its versions, every row of the databases, every file; bundles are where the new folder is."""
    files = back_up(settings, tmp_path / name, AT, quiet)
    new = elsewhere(tmp_path)
    found = restore(new, tmp_path / name, quiet)
    assert (found.files, found.is_moved) == (len(files), True)
    old_lake, new_lake = local_lake(settings.data_dir), local_lake(new.data_dir)
    assert tables(new_lake) == tables(old_lake)
    for table in set(tables(old_lake)) - {BUNDLE_TABLE}:
        assert new_lake.version(table) == old_lake.version(table)
        assert new_lake.read(table).equals(old_lake.read(table))
    assert broken(new.data_dir) == []
    live = current_live(open_state(new.release_url))
    assert live is not None
    assert live.bundle_path == str(new.data_dir / "bundles" / "v1")
    for name in ("prediction_log/2017-01-09.jsonl", "reports/2017-01-09.html"):
        assert (new.data_dir / name).read_bytes() == (settings.data_dir / name).read_bytes()
    assert [path.name for path in new.data_dir.rglob("*.lock")] == ["requirements.lock"], (
        "an artifact, and not the lake's lock"
    )


WRITER = """
import sys
from pathlib import Path
from pipeline_assets.resources.lake import local_lake
from pipeline_assets_tests.small_lake import DAYS
from pipeline_assets_tests.unit.test_backup import release
data, number = Path(sys.argv[1]), 1
lake = local_lake(data)
while True:
    number += 1
    day = [DAYS[number % len(DAYS)]]
    lake.replace_days("validated/purchases", lake.read_days("validated/purchases", day), day, f"run-{number}")
    inputs = lake.versions(["validated/purchases", "ledger/verdicts"])
    lake.replace_days("warehouse/fct_purchases", lake.read_days("validated/purchases", day), day, "run", inputs=inputs)
    release(data, number)
    print(number, flush=True)
"""


@contextmanager
def writing(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """A process that writes days, marts computed from them, bundles and releases, without end; it has begun."""
    command = [sys.executable, "-c", WRITER, str(settings.data_dir)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        yield writer
        writer.kill()


def test_taken_while_it_is_written(settings: Settings, tmp_path: Path) -> None:
    """A process writes all the time; what three backups are restored to is readable, and names nothing that is not there."""
    with writing(settings) as writer:
        assert writer.stdout is not None
        for number in range(3):
            writer.stdout.readline()
            back_up(settings, tmp_path / f"kept-{number}", AT, quiet)
        last = writer.stdout.readline()
    assert int(last) > 1, "it was writing to the end"
    for number in range(3):
        new = elsewhere(tmp_path, str(number))
        restore(new, tmp_path / f"kept-{number}", quiet)
        assert broken(new.data_dir) == []
        assert len(local_lake(new.data_dir).read("validated/purchases")) == 4 * len(DAYS)


def test_content_before_its_index_would_be_seen(settings: Settings, tmp_path: Path) -> None:
    """Negative control: the wrong order, with one release in between: bundles are copied, then the database that names one more."""
    data, wrong = settings.data_dir, tmp_path / "wrong"
    shutil.copytree(data, wrong)
    release(data, 2)
    shutil.copy(data / "release.db", wrong)
    assert broken(data) == []
    data.rename(tmp_path / "away")
    wrong.rename(data)
    assert broken(data) == [str(data / "bundles" / "v2")]


def flip(path: Path) -> None:
    """One bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_backup_is_refused(settings: Settings, tmp_path: Path) -> None:
    """A bit flipped, a file gone, a file too many: each is named, and there is no data folder afterwards. Whole again, it is restored."""
    kept = tmp_path / "kept"
    back_up(settings, kept, AT, quiet)
    model, spare = kept / "bundles" / "v1" / "model.txt", tmp_path / "spare"
    shutil.copy(model, spare)
    for damage in (lambda: flip(model), model.unlink, (kept / "stranger").touch):
        damage()
        with pytest.raises(Damaged, match=r"bundles/v1/model\.txt|stranger"):
            restore(elsewhere(tmp_path), kept, quiet)
        assert not elsewhere(tmp_path).data_dir.exists()
        shutil.copy(spare, model)
    (kept / "stranger").unlink()
    assert restore(elsewhere(tmp_path), kept, quiet).files > 20


def test_a_cut_archive_is_refused(settings: Settings, tmp_path: Path) -> None:
    """The end of a tar file is missing, and with it the list; or a part in the middle of a packed one."""
    for name in ("kept.tar", "kept.tar.gz"):
        back_up(settings, tmp_path / name, AT, quiet)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises((Damaged, ConfigurationError), match="another backup"):
            restore(elsewhere(tmp_path), tmp_path / name, quiet)
        assert not elsewhere(tmp_path).data_dir.exists()


def test_a_name_that_leads_out_is_refused(settings: Settings, tmp_path: Path) -> None:
    """A tar file by somebody else: nothing is written beside the folder."""
    source = tmp_path / "evil.tar"
    with tarfile.open(source, "w") as tar:
        tar.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(Damaged, match="outside"):
        restore(elsewhere(tmp_path), source, quiet)
    assert not list(tmp_path.rglob("outside"))


def test_a_folder_that_is_not_empty_is_refused(settings: Settings, tmp_path: Path) -> None:
    """And stays what it is; so does a backup that is there."""
    back_up(settings, tmp_path / "kept", AT, quiet)
    with pytest.raises(ConfigurationError, match="found files in it"):
        restore(settings, tmp_path / "kept", quiet)
    assert broken(settings.data_dir) == []
    with pytest.raises(ConfigurationError, match="something is there"):
        back_up(settings, tmp_path / "kept", AT, quiet)
    with pytest.raises(ConfigurationError, match="which is around it"):
        back_up(settings, settings.data_dir / "kept", AT, quiet)
    with pytest.raises(ConfigurationError, match=LISTING.replace(".", r"\.")):
        restore(elsewhere(tmp_path), settings.data_dir / "reports", quiet)


def test_servers_are_not_backed_up_from_here(settings: Settings, tmp_path: Path) -> None:
    """Named, with what to do."""
    servers = settings.model_copy(
        update={"stores": settings.stores.model_copy(update={"release_url": "postgresql://db/x"})}
    )
    with pytest.raises(ConfigurationError, match="pg_dump"):
        back_up(servers, tmp_path / "kept", AT, quiet)


def test_what_is_broken_is_not_called_a_backup(settings: Settings, tmp_path: Path) -> None:
    """A database with a damaged page, a table without a file of its newest version: named, and no backup is left."""
    database = settings.data_dir / "dagster" / "index.db"
    whole = database.read_bytes()
    database.write_bytes(whole[:100] + bytes(4000) + whole[4100:])
    with pytest.raises(Damaged, match=r"index\.db"):
        back_up(settings, tmp_path / "kept", AT, quiet)
    database.write_bytes(whole)
    Path(local_lake(settings.data_dir).files("validated/purchases")[0]).unlink()
    with pytest.raises(Damaged, match="table validated/purchases"):
        back_up(settings, tmp_path / "kept", AT, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_addresses_lead_to_the_new_place(settings: Settings, tmp_path: Path) -> None:
    """Of MLflow's artifacts; the audit log keeps what was written. At the same place nothing is changed."""
    uri = f"file://{settings.data_dir}/mlflow_artifacts/1"
    with closing(sqlite3.connect(settings.data_dir / "mlflow.db")) as database:
        database.execute("create table runs (artifact_uri text)")
        database.execute("insert into runs values (?)", (uri,))
        database.commit()
    back_up(settings, tmp_path / "kept", AT, quiet)
    new = elsewhere(tmp_path)
    restore(new, tmp_path / "kept", quiet)
    with closing(sqlite3.connect(new.data_dir / "mlflow.db")) as database:
        assert database.execute("select artifact_uri from runs").fetchall() == [
            (f"file://{new.data_dir}/mlflow_artifacts/1",)
        ]
    settings.data_dir.rename(tmp_path / "away")
    assert not restore(settings, tmp_path / "kept", quiet).is_moved
    assert local_lake(settings.data_dir).version(BUNDLE_TABLE) == Lake(root=str(tmp_path / "away" / "lake")).version(
        BUNDLE_TABLE
    )


def test_old_versions_are_kept(settings: Settings, tmp_path: Path) -> None:
    """Reproduction stands on them; a file that no version names is left behind."""
    lake, table = local_lake(settings.data_dir), "validated/purchases"
    lake.replace_days(table, lake.read_days(table, DAYS[:1]).slice(1), DAYS[:1], "run")
    (Path(lake.uri(table)) / "left.parquet").touch()
    back_up(settings, tmp_path / "kept", AT, quiet)
    new = elsewhere(tmp_path)
    restore(new, tmp_path / "kept", quiet)
    copy = local_lake(new.data_dir)
    assert [len(copy.read(table, version=version)) for version in (1, 2)] == [36, 35]
    assert deltalake.DeltaTable(copy.uri(table)).version() == 2
    assert not (Path(copy.uri(table)) / "left.parquet").exists()
    assert json.loads((tmp_path / "kept" / LISTING).read_text())["format"] == 1
