"""SQLite and PostgreSQL do the same."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, insert, select, text
from sqlalchemy.exc import IntegrityError

from services.adapters.database import insert_or_ignore, migrate, open_engine, reading, writing
from services.adapters.database.tables import metadata, projects
from services.domain.errors import BadSettings, DatabaseUnavailable

AT = datetime(2026, 1, 1, tzinfo=UTC)


def project(name: str, at: datetime = AT) -> dict[str, object]:
    return {"name": name, "task": "anomaly-detection", "created_at": at}


def names(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return sorted(name for (name,) in connection.execute(select(projects.c.name)))


def test_migrations_lead_to_the_tables(engine: Engine) -> None:
    with reading(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrating_again_keeps_the_rows(database_url: str, engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(insert(projects), [project("parts")])
    migrate(database_url)
    assert names(engine) == ["parts"]


def test_many_processes_may_migrate_at_once(database_url: str) -> None:
    code = f"from services.adapters.database import migrate; migrate({database_url!r})"
    started = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(4)]
    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in started]
    assert [status for _, status in ended] == [0] * 4, ended
    opened = open_engine(database_url)
    with reading(opened) as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar() == 1
    opened.dispose()


def test_first_write_wins(engine: Engine) -> None:
    for task in ("first", "second"):
        with writing(engine) as connection:
            row = {**project("parts"), "task": task}
            new = connection.execute(insert_or_ignore(connection, projects).returning(projects.c.name), [row])
            assert len(new.all()) == (task == "first")
    with reading(engine) as connection:
        assert connection.execute(select(projects.c.task)).scalar() == "first"


def test_an_error_inside_keeps_nothing(engine: Engine) -> None:
    row = project("parts")
    with pytest.raises(IntegrityError), writing(engine) as connection:
        connection.execute(insert(projects), [row, row])
    assert names(engine) == []


def test_times_come_back_in_utc(engine: Engine) -> None:
    told = datetime(2026, 7, 1, 14, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    with writing(engine) as connection:
        connection.execute(insert(projects), [project("parts", told)])
    with reading(engine) as connection:
        found = connection.execute(select(projects.c.created_at)).scalar()
    assert found == told
    assert found is not None
    assert found.tzinfo is UTC


def test_a_reader_sees_one_moment_and_does_not_hold_up_writers(engine: Engine) -> None:
    with reading(engine) as connection:
        assert connection.execute(select(projects.c.name)).all() == []
        with writing(engine) as other:
            other.execute(insert(projects), [project("parts")])
        assert connection.execute(select(projects.c.name)).all() == []
    assert names(engine) == ["parts"]


def test_writers_wait_for_each_other(engine: Engine) -> None:
    def write(number: int) -> None:
        for step in range(10):
            with writing(engine) as connection:
                connection.execute(select(projects.c.name)).all()
                connection.execute(insert(projects), [project(f"{number}-{step}")])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(names(engine)) == 40


def test_a_server_that_is_gone_is_unavailable() -> None:
    gone = open_engine("postgresql://loupe@127.0.0.1:1/none")
    with pytest.raises(DatabaseUnavailable), reading(gone):
        pass
    with pytest.raises(DatabaseUnavailable):
        migrate("postgresql://loupe@127.0.0.1:1/none")


def test_a_file_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    engine = open_engine(f"sqlite:///{tmp_path / 'folder.db'}")
    with pytest.raises(DatabaseUnavailable), writing(engine):
        pass


def test_a_full_disk_is_unavailable_and_heals(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    engine = open_engine(url)
    with writing(engine) as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar()
    many = [project(f"project-{number:05d}") for number in range(2000)]
    with writing(engine) as connection:
        connection.execute(text(f"PRAGMA max_page_count={pages}"))
    with pytest.raises(DatabaseUnavailable, match="full"), writing(engine) as connection:
        connection.execute(insert(projects), many)
    assert names(engine) == []
    engine.dispose()
    with writing(engine) as connection:
        connection.execute(insert(projects), many)
    assert len(names(engine)) == 2000
    engine.dispose()


def test_a_mistake_in_a_query_is_not_called_transient(engine: Engine) -> None:
    with pytest.raises(Exception, match="SELEC") as caught, reading(engine) as connection:
        connection.execute(text("SELEC 1"))
    assert not isinstance(caught.value, DatabaseUnavailable)


def test_a_database_without_our_tables_is_told_plainly(engine: Engine) -> None:
    with pytest.raises(BadSettings, match="lacks tables"), reading(engine) as connection:
        connection.execute(text("SELECT * FROM no_such_table"))


@pytest.mark.parametrize("url", ["mysql://host/name", "not a url"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(BadSettings):
        open_engine(url)


def test_an_older_database_keeps_its_rows_on_the_way_up_and_down(database_url: str) -> None:
    engine = open_engine(database_url)
    rows: dict[str, dict[str, object]] = {
        "inspections": {
            "inspection_id": "i", "frame_id": "f", "role": "live", "run": "", "camera": "c", "project": "p",
            "model_version": "v", "subject": "", "is_anomalous": False, "is_uncertain": False,
            "confidence": 1.0, "score": 1.0, "threshold": 1.0, "regions": "[]", "width_px": 1, "height_px": 1,
            "stage_ms": "{}", "unit": "u", "captured_at": AT, "judged_at": AT, "stored_at": AT,
            "latency_ms": 1.0, "image_uri": "s3://loupe-frames/a", "image_sha256": "a", "image_bytes": 1,
        },
        "quarantine": {
            "frame_id": "q", "camera": "c", "topic": "t", "partition": 0, "offset": 1, "cause": "x",
            "reason": "y", "tries": 1, "failed_at": AT, "letter_partition": 0, "letter_offset": 0,
        },
        "ledger_captured": {
            "entry_id": "e", "number": 0, "camera": "c", "epoch": "t", "first": 0, "last": 9,
            "declared_at": AT, "is_ended": True,
        },
        "routes": {
            "camera_pattern": "*", "project": "p", "mode": "live", "archive": "all", "priority": 0,
        },
        "model_versions": {
            "project": "p", "version": "v", "uri": "s3://loupe-models/p/v", "manifest_sha256": "a",
            "training_id": "t", "metrics": "{}", "created_at": AT,
        },
        "training_jobs": {
            "training_id": "t", "project": "p", "state": "done", "message": "", "requested_at": AT,
        },
        "dataset_entries": {
            "entry_id": "e", "project": "p", "image_uri": "s3://loupe-datasets/a", "image_sha256": "a",
            "image_bytes": 1, "classes": "[]", "boxes": "[]", "masks": "[]", "author": "ann",
            "labelled_at": AT,
        },
    }  # fmt: skip
    _to_revision(engine, "20261121_first")
    with writing(engine) as connection:
        for table, row in rows.items():
            columns = [f'"{name}"' for name in row]
            values = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"), row)
    for revision in ("head", "20261121_first", "head"):
        _to_revision(engine, revision)
        with reading(engine) as connection:
            for table in rows:
                assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 1, table
    with reading(engine) as connection:
        new = connection.execute(text("SELECT retention, image_deleted_at FROM inspections")).one()
        assert tuple(new) == ("", None)
        route = connection.execute(text("SELECT share_ratio, retention FROM routes")).one()
        assert tuple(route) == (1.0, "standard")
        version = connection.execute(text("SELECT state, parent, decided_at FROM model_versions")).one()
        assert tuple(version) == ("promoted", "", None)  # it served, and goes on serving
        job = connection.execute(text("SELECT stage, done_ratio, trigger FROM training_jobs")).one()
        assert tuple(job) == ("", 0.0, "request")
        entry = connection.execute(text("SELECT stored_at, split, origin FROM dataset_entries")).one()
        assert tuple(entry) == (None, None, "label")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def _to_revision(engine: Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "services.adapters.database:migrations")
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        is_first_time = MigrationContext.configure(connection).get_current_revision() is None
        move = command.upgrade if is_first_time or revision == "head" else command.downgrade
        move(config, revision)
