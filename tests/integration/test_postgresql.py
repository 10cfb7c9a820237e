"""The store keeps the same promises on a real PostgreSQL server, started here and ended here.

Server programs refuse to run as root, so they run as another user where the tests run as root.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from storage.database import check_revision, open_engine, translated, upgrade
from storage.errors import BackupRefused, SchemaOutdated, StorageConflict, StorageUnavailable
from storage.identity import bind
from storage.objects import ObjectStore
from storage.records import Kind, MatchState
from storage.safekeeping import ProblemKind, backup, verify
from storage.schema import REVISION, metadata
from storage.store import Store
from storage.transaction import PatientLock
from tests.unit.storage.commitment_behaviour import CommitmentBehaviour, RequestBehaviour
from tests.unit.storage.pairing_behaviour import PairingBehaviour
from tests.unit.storage.queue_behaviour import DeliveryBehaviour, QueueBehaviour
from tests.unit.storage.storage_examples import NOW, add, add_match, instance
from tests.unit.storage.upkeep_behaviour import ReadingBehaviour, UpkeepBehaviour

TABLES = ", ".join(table.name for table in metadata.sorted_tables if table.name != "installation")


@pytest.fixture(scope="module")
def server(tool: Callable[[str], str]) -> Iterator[Callable[[str], str]]:
    """A PostgreSQL server on a Unix socket: gives the URL of a database name."""
    pytest.importorskip("pg8000", reason="the extra `postgres` is not installed")
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    # A folder with a short name: that of a socket holds 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
        if account:
            os.chown(folder, account["user"], account["group"])
        data = f"{folder}/data"
        subprocess.run(
            [tool("initdb"), "-D", data, "-U", "pulmolink", "--auth=trust", "--encoding=UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=folder,
            **account,
        )
        process = subprocess.Popen(
            [tool("postgres"), "-D", data, "-k", folder, "-c", "listen_addresses="],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            **account,
        )
        try:
            socket = f"{folder}/.s.PGSQL.5432"

            def url(database: str) -> str:
                return f"postgresql://pulmolink@/{database}?unix_sock={socket}"

            _wait_for(url("postgres"), process)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def upgraded(server: Callable[[str], str]) -> str:
    """A database of the server with the present schema."""
    return _new_database(server, "pulmolink", with_schema=True)


@pytest.fixture
def url(upgraded: str) -> str:
    """The same database, emptied."""
    engine = open_engine(upgraded)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY"))
    engine.dispose()
    return upgraded


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """The open store of `url`."""
    with Store.open(url) as store:
        yield store


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    """An empty object folder."""
    return ObjectStore(tmp_path / "objects")


class TestCommitmentRequests(RequestBehaviour):
    pass


class TestCommitments(CommitmentBehaviour):
    pass


class TestPairing(PairingBehaviour):
    pass


class TestQueue(QueueBehaviour):
    pass


class TestDeliveries(DeliveryBehaviour):
    pass


class TestReading(ReadingBehaviour):
    pass


class TestUpkeep(UpkeepBehaviour):
    pass


def test_a_database_without_schema_is_told_apart_and_upgraded_once(server: Callable[[str], str]) -> None:
    url = _new_database(server, "empty", with_schema=False)
    with pytest.raises(SchemaOutdated, match="has no schema"):
        Store.open(url)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: upgrade(url), range(4)))
    assert sorted(found) == ["", REVISION, REVISION, REVISION]
    check_revision(url)


def test_the_migrations_make_what_the_schema_says(upgraded: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = open_engine(upgraded)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert differences == []


def test_two_transactions_of_one_patient_never_overlap_and_of_two_patients_do(store: Store) -> None:
    """Two nodes that receive a radiograph and its ECG at once must see each other's row."""
    inside, overlapped = set(), set()

    def pair(patient_id: str) -> None:
        with store.transaction(PatientLock(issuer="H", patient_id=patient_id)):
            overlapped.update((patient_id, other) for other in inside)
            inside.add(patient_id)
            time.sleep(0.2)
            inside.discard(patient_id)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(pair, ["P1", "P1", "P2", "P1"]))
    assert ("P1", "P1") not in overlapped
    assert {pair for pair in overlapped if "P2" in pair}


def test_two_transactions_of_one_instance_never_overlap_whoever_its_patient_is(store: Store) -> None:
    """The same UID under two patients, sent to two nodes at once, must not be accepted twice."""
    inside: set[str] = set()
    overlapped: list[str] = []

    def record(patient_id: str) -> None:
        lock = PatientLock(issuer="H", patient_id=patient_id, sop_instance_uid="1.2.3")
        with store.transaction(lock):
            overlapped.extend(inside)
            inside.add(patient_id)
            time.sleep(0.05)
            inside.discard(patient_id)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(record, ["P1", "P2", "P3", "P1", "P2", "P3"]))
    assert overlapped == []


def test_retention_waits_for_whoever_pairs_the_patient(store: Store) -> None:
    """Otherwise a match is made with an ECG whose bytes are given up at the same moment."""
    ecg = instance("1.1", Kind.ECG)
    ecg_id = add(store, ecg)
    purged: list[tuple[str, ...]] = []
    lock = PatientLock(issuer=ecg.patient.issuer, patient_id=ecg.patient.patient_id)
    with ThreadPoolExecutor(1) as threads:
        with store.transaction(lock) as tx:
            waiting = threads.submit(lambda: purged.append(store.mark_purged(ecg_id, NOW)))
            time.sleep(0.3)
            assert purged == []
            radiograph_id = tx.add_instance(instance("1.2"))
            tx.add_match(
                radiograph_id=radiograph_id,
                ecg_id=ecg_id,
                gap_seconds=0.0,
                rule_version="r",
                state=MatchState.PAIRED,
                reason="",
                due_at=NOW,
                supersedes=None,
                now=NOW,
            )
        waiting.result(timeout=30)
    assert purged == [()]


def test_a_claim_passes_over_a_row_that_another_claim_holds(store: Store) -> None:
    first, second = add_match(store, 1), add_match(store, 2)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.transaction() as tx:
            tx.match(first)  # locked until the transaction ends
            held.set()
            done.wait(10)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        held.wait(10)
        claimed = store.claim_match([MatchState.PAIRED], "w", 60, NOW)
        done.set()
        holding.result()
    assert claimed is not None
    assert claimed.match_id == second


def test_processes_on_several_machines_need_no_change_counter(store: Store) -> None:
    assert store.change_counter() != store.change_counter()


def test_writers_that_share_a_call_get_their_own_transactions(store: Store) -> None:
    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(lambda n: store.transact(lambda tx: tx.add_instance(instance(f"1.{n}"))), range(16)))
    assert len(set(numbers)) == 16
    with pytest.raises(StorageConflict):
        store.transact(lambda tx: tx.add_instance(instance("1.1")))


def test_backup_points_to_the_database_s_own_tool(url: str, tmp_path: Path) -> None:
    with pytest.raises(BackupRefused) as caught:
        backup(url, tmp_path / "copy")
    assert "pg_dump" in caught.value.hint


def test_verify_finds_a_missing_object(store: Store, url: str, objects: ObjectStore) -> None:
    bind(store, objects)
    add(store, instance("1.1"))
    assert [problem.kind for problem in verify(url, objects)] == [ProblemKind.OBJECT_MISSING]


def test_errors_quote_no_values(store: Store) -> None:
    add(store, instance())
    with pytest.raises(StorageConflict) as caught:
        add(store, instance())
    assert caught.value.constraint == "uq_instances_sop_instance_uid_sha256"
    assert "1.2.3" not in str(caught.value)


def test_a_server_that_is_away_is_said_to_be() -> None:
    with pytest.raises(StorageUnavailable, match="cannot be used") as caught:
        Store.open("postgresql://user:secret@/nowhere?unix_sock=/nonexistent/socket")
    assert "secret" not in str(caught.value)
    assert caught.value.hint


def _new_database(server: Callable[[str], str], name: str, *, with_schema: bool) -> str:
    engine = open_engine(server("postgres")).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    if with_schema:
        upgrade(server(name))
    return server(name)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    engine = open_engine(url)
    try:
        while True:
            assert process.poll() is None, "the PostgreSQL server ended"
            try:
                with translated(), engine.connect():
                    return
            except StorageUnavailable:
                assert time.monotonic() < deadline, "the PostgreSQL server does not answer"
                time.sleep(0.05)
    finally:
        engine.dispose()
