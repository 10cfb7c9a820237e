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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset
from sqlalchemy import text

from pacs_node.flow.pair import DISPUTED, PairingRules, dispute, lock_of
from pacs_node.flow.receive import OUT_OF_RESOURCES, SUCCESS, Incoming, Receipt, Receiver
from pacs_node.settings import Settings
from storage.database import MOST_SERVER_CONNECTIONS, check_revision, open_engine, translated, upgrade
from storage.errors import BackupRefused, SchemaOutdated, StorageBusy, StorageConflict, StorageUnavailable
from storage.identity import bind
from storage.objects import ObjectStore
from storage.records import Disposition, Kind, MatchState
from storage.safekeeping import ProblemKind, backup, verify
from storage.schema import REVISION, metadata
from storage.store import Store
from storage.transaction import PatientLock
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph, waveform
from tests.unit.storage.commitment_behaviour import CommitmentBehaviour, RequestBehaviour
from tests.unit.storage.pairing_behaviour import PairingBehaviour
from tests.unit.storage.queue_behaviour import DeliveryBehaviour, QueueBehaviour
from tests.unit.storage.shadow_behaviour import ShadowBehaviour
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


class TestShadow(ShadowBehaviour):
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


def test_a_disputed_film_is_never_paired_by_an_ecg_that_arrives_meanwhile(store: Store, objects: ObjectStore) -> None:
    """The film's UID comes for somebody else at one node while its patient's ECG comes to another."""
    receiver = Receiver(store, objects, Settings(), lambda: NOW)
    assert _send(receiver, radiograph(), "1.2.3", "PA").disposition is Disposition.ACCEPTED
    (film,) = store.instances()
    stranger = replace(film.instance.patient, patient_id="PB", name="Other^One")
    with ThreadPoolExecutor(1) as threads:
        with store.transaction(lock=lock_of(stranger, "1.2.3")) as tx:
            (known,) = tx.instances_with_uid("1.2.3")
            assert dispute(tx, known, stranger, PairingRules.of(Settings()), NOW)
            arriving = threads.submit(lambda: _send(receiver, waveform(), "1.2.9", "PA"))
            time.sleep(0.3)
            assert not arriving.done()
        assert arriving.result(timeout=30).disposition is Disposition.ACCEPTED
    (match,) = store.matches()
    assert (match.state, match.reason, match.ecg_id) == (MatchState.HELD, DISPUTED, None)


def test_one_uid_sent_for_several_patients_at_once_ends_without_a_deadlock(store: Store, objects: ObjectStore) -> None:
    """Each of them locks the other patients too."""
    receiver = Receiver(store, objects, Settings(), lambda: NOW)
    sent = [(uid, patient) for _ in range(4) for uid in ("1.1", "1.2") for patient in ("PA", "PB", "PC")]

    def send(number: int) -> int:
        uid, patient = sent[number]
        return _send(receiver, radiograph(InstitutionName=f"copy {number}"), uid, patient).status

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(send, range(len(sent)))) == {SUCCESS}
    assert store.instances(dispositions={Disposition.ACCEPTED}) == ()


@pytest.mark.parametrize(("asked", "used"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_a_commit_is_on_disk_whatever_the_role_asks_for(url: str, asked: str, used: str) -> None:
    with Store.open(url) as store, store.writing() as connection:
        connection.execute(text(f"ALTER ROLE pulmolink SET synchronous_commit = {asked}"))
    try:
        with Store.open(url) as store, store.writing() as connection:
            assert connection.scalar(text("SHOW synchronous_commit")) == used
    finally:
        with Store.open(url) as store, store.writing() as connection:
            connection.execute(text("ALTER ROLE pulmolink RESET synchronous_commit"))


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_may_lose_what_it_committed_is_refused(url: str, setting: str) -> None:
    _configure(url, f"ALTER SYSTEM SET {setting} = off", setting, "off")
    try:
        with pytest.raises(StorageUnavailable, match=f"{setting} = off") as caught:
            Store.open(url)
        assert f"set {setting} = on" in caught.value.hint
    finally:
        _configure(url, f"ALTER SYSTEM RESET {setting}", setting, "on")
    check_revision(url)


def test_a_process_takes_no_more_connections_than_its_share_and_the_rest_wait(store: Store) -> None:
    waiting_for = MOST_SERVER_CONNECTIONS + 8
    inside, go_on = threading.Semaphore(0), threading.Event()

    def hold() -> None:
        with store.writing() as connection:
            connection.execute(text("SELECT 1"))
            inside.release()
            go_on.wait(25)

    with ThreadPoolExecutor(waiting_for) as threads:
        holding = [threads.submit(hold) for _ in range(waiting_for)]
        assert all(inside.acquire(timeout=20) for _ in range(MOST_SERVER_CONNECTIONS))
        assert not inside.acquire(timeout=0.3)
        go_on.set()
        for held in holding:
            held.result(timeout=30)


def test_a_server_without_a_free_connection_is_out_of_resources_for_a_moment(url: str, objects: ObjectStore) -> None:
    """The sender is told to come again, not that its object failed."""
    with Store.open(url) as store, store.writing() as connection:
        connection.execute(text("CREATE ROLE narrow LOGIN CONNECTION LIMIT 1"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO narrow"))
        connection.execute(text("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO narrow"))
    narrow = url.replace("pulmolink@", "narrow@")
    try:
        with Store.open(narrow) as store:
            receiver = Receiver(store, objects, Settings(), lambda: NOW)
            with store.writing():
                assert _send(receiver, radiograph(), "1.2.3", "PA").status == OUT_OF_RESOURCES
            assert _send(receiver, radiograph(), "1.2.3", "PA").status == SUCCESS
    finally:
        with Store.open(url) as store, store.writing() as connection:
            connection.execute(text("DROP OWNED BY narrow"))
            connection.execute(text("DROP ROLE narrow"))


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


def _send(receiver: Receiver, dataset: Dataset, uid: str, patient_id: str) -> Receipt:
    known = identified(dataset, uid, PatientID=patient_id, **at(NOON))
    return receiver.receive(Incoming(parts=encoded(known), calling_ae="MODALITY"))


def _configure(url: str, statement: str, setting: str, wanted: str) -> None:
    """Change the running server's configuration, and wait until it holds."""
    engine = open_engine(url).execution_options(isolation_level="AUTOCOMMIT")
    deadline = time.monotonic() + 30
    with engine.connect() as connection:
        connection.execute(text(statement))
        connection.execute(text("SELECT pg_reload_conf()"))
        while connection.scalar(text(f"SHOW {setting}")) != wanted:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    engine.dispose()


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
            except (StorageUnavailable, StorageBusy):  # one that starts may hang up
                assert time.monotonic() < deadline, "the PostgreSQL server does not answer"
                time.sleep(0.05)
    finally:
        engine.dispose()
