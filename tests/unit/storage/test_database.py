"""A database is made, upgraded, copied and checked without surprises, and its errors say what to do."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError

from storage import safekeeping
from storage.database import MIGRATIONS, check_revision, open_engine, parse_url, translated, upgrade
from storage.errors import (
    BackupRefused,
    SchemaOutdated,
    SchemaTooNew,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageUnavailable,
    StoreMismatch,
)
from storage.identity import bind
from storage.objects import ObjectStore
from storage.records import MatchState
from storage.safekeeping import ProblemKind, backup, verify
from storage.schema import REVISION, metadata
from storage.store import Store
from tests.unit.storage.storage_examples import NOW, add, add_match, features, instance, report


def test_the_migrations_make_what_the_schema_says(url: str, tmp_path: Path) -> None:
    engine = open_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()
    # Conditions of indexes and checks, which that comparison leaves out, are in the statements.
    by_schema = open_engine(f"sqlite:///{tmp_path}/schema.db")
    metadata.create_all(by_schema)
    by_schema.dispose()
    assert _statements(tmp_path / "rows.db") == _statements(tmp_path / "schema.db")


def test_the_program_asks_for_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def test_upgrading_twice_does_nothing_the_second_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new folder 100%/rows.db"
    assert upgrade(url) == ""
    assert upgrade(url) == REVISION
    check_revision(url)


def test_a_database_of_the_first_revision_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/rows.db"
    engine = open_engine(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(text("INSERT INTO silent_destinations VALUES ('pacs', '2026-01-01', '2026-01-01')"))
    engine.dispose()
    with pytest.raises(SchemaOutdated):
        Store.open(url)
    assert upgrade(url) == "0001"
    with Store.open(url) as store:
        assert store.destination_answered("pacs") is not None
        assert store.count_requests() == {}


def test_processes_that_upgrade_at_once_do_it_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/rows.db"
    with multiprocessing.get_context("spawn").Pool(3) as processes:
        assert sorted(processes.map(upgrade, [url] * 3)) == ["", REVISION, REVISION]


def test_the_file_is_for_its_user_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data/rows.db"
    upgrade(url)
    with Store.open(url) as store:
        add(store, instance())
        for file in (tmp_path / "data").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_every_commit_waits_for_the_disk(url: str) -> None:
    engine = open_engine(url)
    with engine.connect() as connection:
        found = {
            name: connection.scalar(text(f"PRAGMA {name}"))
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    engine.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}


def test_an_absent_an_empty_and_an_old_database_ask_for_an_upgrade(tmp_path: Path) -> None:
    absent = f"sqlite:///{tmp_path}/absent.db"
    with pytest.raises(SchemaOutdated) as caught:
        Store.open(absent)
    assert caught.value.hint == "run pulmolink db upgrade"
    assert not (tmp_path / "absent.db").exists()
    (tmp_path / "empty.db").touch()
    with pytest.raises(SchemaOutdated):
        check_revision(f"sqlite:///{tmp_path}/empty.db")


def test_a_database_of_a_later_program_is_left_alone(url: str) -> None:
    _set_revision(url, "9999")
    with pytest.raises(SchemaTooNew):
        Store.open(url)
    with pytest.raises(SchemaTooNew):
        upgrade(url)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://u:secret@h/d", "nosuch://x"]
)
def test_a_url_that_will_not_do_is_refused_with_a_hint_and_without_its_password(url: str) -> None:
    with pytest.raises(StorageUnavailable) as caught:
        parse_url(url)
    assert "sqlite:////absolute/path.db" in caught.value.hint
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    (tmp_path / "rows.db").write_bytes(b"no database at all " * 100)
    with pytest.raises(StorageUnavailable, match="damaged"):
        check_revision(f"sqlite:///{tmp_path}/rows.db")


def test_a_full_database_is_said_to_be_full_and_stays_usable(store: Store, url: str) -> None:
    """0xA700 must reach the sender, and nothing of the refused instance may stay."""
    kept = add(store, instance("1.1"))

    def fill() -> None:
        with store.writing() as connection:
            pages = connection.scalar(text("PRAGMA page_count"))
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            connection.execute(
                text("INSERT INTO chest_features VALUES (:id, '', :embedding, '', '', '')"),
                {"id": kept, "embedding": b"x" * 4_000_000},
            )

    with pytest.raises(StorageFull):
        fill()
    assert store.count_instances()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        assert connection.execute("SELECT count(*) FROM chest_features").fetchone() == (0,)
    with store.writing() as connection:
        connection.execute(text("PRAGMA max_page_count = 1000000"))
    add(store, instance("1.2"))


def test_a_store_is_of_no_use_in_a_forked_process(store: Store) -> None:
    """SQLite forgets its locks across a fork: using a store there would damage the file."""
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    child = fork.Process(target=_count_in_child, args=(store, answers))
    child.start()
    child.join(30)
    assert "another process" in answers.get(timeout=5)


def test_the_change_counter_moves_with_every_commit_and_only_then(store: Store, url: str) -> None:
    with Store.open(url) as other:
        before = store.change_counter()
        assert store.change_counter() == before
        assert store.claim_match([MatchState.PAIRED], "w", 60, NOW) is None
        assert store.change_counter() == before
        add(store, instance("1.1"))
        own = store.change_counter()
        assert own != before
        add(other, instance("1.2"))
        assert store.change_counter() != own


def test_a_backup_made_while_others_write_is_whole_and_opens_by_itself(store: Store, url: str, tmp_path: Path) -> None:
    for number in range(1, 40):
        add_match(store, number)
    target = tmp_path / "copy.db"
    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(lambda: [add_match(store, number) for number in range(40, 60)])
        backup(url, target)
        writing.result()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(file.name for file in tmp_path.glob("*copy*")) == ["copy.db"]
    assert list(tmp_path.glob(".backup-*")) == []
    with Store.open(f"sqlite:///{target}") as copy:
        assert len(copy.matches()) >= 39


def test_a_backup_never_replaces_a_file(url: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    with pytest.raises(BackupRefused):
        backup(url, target)
    assert target.read_text() == "precious"
    with pytest.raises(BackupRefused, match="No such file or directory"):
        backup(url, tmp_path / "no such folder" / "copy.db")
    with pytest.raises(BackupRefused):
        backup(f"sqlite:///{tmp_path}/absent.db", tmp_path / "copy.db")


def test_verify_finds_what_is_missing_damaged_and_orphaned(store: Store, url: str, objects: ObjectStore) -> None:
    whole, short, changed = (objects.put(bytes([number]) * 1000) for number in range(3))
    for number, kept in enumerate((whole, short, changed)):
        add(store, _with_object(number, kept.sha256))
    assert verify(url, objects) == []
    with pytest.raises(StoreMismatch):
        verify(url, ObjectStore(objects.root / "elsewhere"))
    add(store, _with_object(3, "0" * 64))
    orphan = objects.put(b"orphan")
    objects.path(short.sha256).write_bytes(b"short")
    objects.path(changed.sha256).write_bytes(b"x" * 1000)

    def found(*, read_objects: bool) -> list[tuple[ProblemKind, str]]:
        problems = verify(url, objects, read_objects=read_objects)
        return [(problem.kind, problem.subject) for problem in problems]

    seen = [
        (ProblemKind.OBJECT_DAMAGED, "instance 2"),
        (ProblemKind.OBJECT_MISSING, "instance 4"),
        (ProblemKind.OBJECT_ORPHANED, f"object {orphan.sha256}"),
    ]
    assert found(read_objects=False) == seen
    assert found(read_objects=True) == [seen[0], (ProblemKind.OBJECT_DAMAGED, "instance 3"), *seen[1:]]


def test_verify_finds_a_match_whose_reports_are_gone(store: Store, url: str, objects: ObjectStore) -> None:
    bind(store, objects)
    match_id = add_match(store)
    report(store, match_id)
    with store.writing() as connection:
        connection.execute(text("DELETE FROM deliveries"))
        connection.execute(text("DELETE FROM reports"))
    kinds = {(problem.kind, problem.subject) for problem in verify(url, objects)}
    assert (ProblemKind.REPORTS_ABSENT, f"match {match_id}") in kinds


def test_verify_reads_every_page_of_rows(
    store: Store, url: str, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safekeeping, "ROWS_AT_ONCE", 2)
    bind(store, objects)
    for number in range(1, 4):
        match_id = add_match(store, number)
        for model in ("a" * 64, "b" * 64):
            store.save_chest(features(store.match(match_id).radiograph_id, model), match_id, "w")
        report(store, match_id)
    subjects = [problem.subject for problem in verify(url, objects)]
    found = Counter(subject.rstrip("0123456789 ") for subject in subjects)
    assert found == {"instance": 6, "report": 6, "display of instance": 6}


def test_verify_finds_damaged_pages(store: Store, url: str, objects: ObjectStore, tmp_path: Path) -> None:
    bind(store, objects)
    for number in range(1, 60):
        add_match(store, number)
    store.close()
    file = Path(url.removeprefix("sqlite:///"))
    damaged = bytearray(file.read_bytes())
    start = damaged.index(b"1.2.30.1")
    damaged[start - 40 : start + 2000] = bytes(2040)
    copy = tmp_path / "damaged.db"
    shutil.copy(file, copy)
    copy.write_bytes(damaged)
    try:
        kinds = {problem.kind for problem in verify(f"sqlite:///{copy}", objects)}
    except StorageError as error:
        assert "damaged" in str(error)  # noqa: PT017 either answer will do
    else:
        assert ProblemKind.DATABASE_DAMAGED in kinds


def test_opening_a_store_does_not_import_the_migration_tool() -> None:
    """The receiver and the command line start without Alembic."""
    code = "import sys, storage.store, storage.safekeeping; sys.exit('alembic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _statements(file: Path) -> dict[str, str]:
    with closing(sqlite3.connect(file)) as connection:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version'"
        ).fetchall()
    # The order of constraints within a statement is of no meaning.
    return {name: sorted(line.strip(" ,\t") for line in sql.splitlines()) for name, sql in rows}  # type: ignore[misc]


def _set_revision(url: str, revision: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def _with_object(number: int, sha256: str) -> object:
    from dataclasses import replace

    return replace(instance(f"1.{number}"), sha256=sha256)


def _count_in_child(store: Store, answers: object) -> None:
    try:
        store.count_instances()
        answers.put("counted")  # type: ignore[attr-defined]
    except StorageUnavailable as error:
        answers.put(str(error))  # type: ignore[attr-defined]


def test_a_server_that_hangs_up_is_busy_and_no_lost_cause() -> None:
    """Where no connection is free, pg8000 may lose the server's words and keep only their end."""
    with pytest.raises(StorageBusy, match="ended the connection"), translated():
        raise InterfaceError("", None, Exception("network error"))


def test_a_transaction_that_was_never_ended_does_not_hinder_the_next(store: Store) -> None:
    """As after a signal between its beginning and what would have undone it."""
    with store.writing() as connection:
        driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("BEGIN IMMEDIATE")
    add(store, instance("1.1"))
    assert not driver.in_transaction
