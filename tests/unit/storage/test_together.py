"""Several processes and threads on one SQLite file: nothing taken twice, nothing lost, one commit shared by many."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from storage.errors import StorageConflict, StorageFull
from storage.records import MatchState
from storage.sharing import SharedCommit
from storage.store import Store
from storage.transaction import Transaction
from tests.unit.storage.storage_examples import NOW, add, add_match, instance

MATCHES = 60
REPOSITORY = Path(__file__).resolve().parents[3]


def test_processes_claim_every_match_exactly_once(store: Store, url: str) -> None:
    wanted = sorted(add_match(store, number) for number in range(1, MATCHES + 1))
    with multiprocessing.get_context("spawn").Pool(4) as processes:
        claims = processes.starmap(_claim_all, [(url, f"worker-{number}") for number in range(4)])
    claimed = [match_id for part in claims for match_id in part]
    assert sorted(claimed) == wanted
    assert store.count_matches() == {MatchState.PREDICTED: MATCHES}


WRITER = """
import sys
from storage.store import Store
from tests.unit.storage.storage_examples import instance
with Store.open(sys.argv[1]) as store:
    number = 0
    while True:
        uid = f"1.{sys.argv[2]}.{number}"
        store.transact(lambda tx: tx.add_instance(instance(uid)))
        print(uid, flush=True)
        number += 1
"""


def test_what_a_killed_writer_was_told_is_committed_is_there(store: Store, url: str) -> None:
    moments = random.Random(20261122)
    promised: list[str] = []
    for number in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(number)], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        ) as writer:
            assert writer.stdout is not None
            promised.append(writer.stdout.readline().strip())
            time.sleep(moments.uniform(0, 0.1))
            os.kill(writer.pid, signal.SIGKILL)
            promised += [line.strip() for line in writer.stdout if line.endswith("\n")]
    found = {row.instance.sop_instance_uid for row in store.instances()}
    assert set(promised) <= found


class TestSharedCommit:
    """Rule 1 of the design: concurrent senders share commits, and each is told its own outcome."""

    def test_writers_at_the_same_moment_share_a_commit(self, store: Store) -> None:
        commits, writers = _share(store, 40)
        assert commits < writers
        assert len(store.instances()) == writers

    def test_a_lone_writer_waits_for_nobody(self, store: Store) -> None:
        assert store.instance(store.transact(lambda tx: tx.add_instance(instance()))).instance == instance()

    def test_one_that_fails_undoes_its_own_writes_only(self, store: Store) -> None:
        add(store, instance("1.0"))

        def write(number: int) -> str:
            def work(tx: Transaction) -> None:
                tx.add_instance(instance(f"1.{number}"))
                if number % 3 == 0:
                    tx.add_instance(instance("1.0"))  # is there already

            try:
                store.transact(work)
            except StorageConflict:
                return "conflict"
            return "stored"

        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(write, range(1, 31)))
        assert outcomes == ["conflict" if number % 3 == 0 else "stored" for number in range(1, 31)]
        assert len(store.instances()) == 21

    def test_a_full_disk_fails_everyone_in_the_commit_and_leaves_nothing_of_it(self, store: Store) -> None:
        """SQLite undoes the whole transaction by itself then, and whoever wrote on would write without one."""
        shared = SharedCommit(store.writing)
        gathered = threading.Barrier(2)
        ran_after: list[bool] = []

        def slow(connection: Connection) -> None:
            gathered.wait(10)
            time.sleep(0.3)  # the others queue up meanwhile

        def fill(connection: Connection) -> None:
            pages = connection.scalar(text("PRAGMA page_count"))
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            connection.execute(text("CREATE TABLE big AS SELECT zeroblob(4000000) AS bytes"))

        def innocent(connection: Connection) -> None:
            ran_after.append(True)
            Transaction(connection, None).add_instance(instance("1.9"))

        with ThreadPoolExecutor(3) as threads:
            first = threads.submit(shared.run, slow)
            gathered.wait(10)
            full = threads.submit(shared.run, fill)
            time.sleep(0.1)
            other = threads.submit(shared.run, innocent)
            first.result()
            with pytest.raises(StorageFull):
                full.result()
            with pytest.raises(StorageFull):
                other.result()
        assert ran_after == []
        assert store.instances() == ()

    def test_a_writer_that_is_stopped_while_it_waits_leaves_the_others_going(self, store: Store) -> None:
        # A shell starts what runs in the background with Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        shared = SharedCommit(store.writing)
        gathered = threading.Barrier(2)

        def slow(connection: Connection) -> None:
            gathered.wait(10)
            time.sleep(0.5)

        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(shared.run, slow)
            gathered.wait(10)
            # Ctrl-C reaches the main thread, which is this one, while it waits for the slow writer.
            threading.Timer(0.1, signal.raise_signal, [signal.SIGINT]).start()
            with pytest.raises(KeyboardInterrupt):
                shared.run(lambda connection: None)
            first.result()
            assert threads.submit(shared.run, lambda connection: 7).result(10) == 7


def _share(store: Store, writers: int) -> tuple[int, int]:
    """How many commits `writers` writes took, made by ten threads."""
    before = store.change_counter()
    with ThreadPoolExecutor(10) as threads:
        list(
            threads.map(
                lambda number: store.transact(lambda tx: tx.add_instance(instance(f"1.{number}"))),
                range(writers),
            )
        )
    return store.change_counter() - before, writers


def _claim_all(url: str, owner: str) -> list[int]:
    claimed = []
    with Store.open(url) as store:
        while match := store.claim_match([MatchState.PAIRED], owner, 600, NOW):
            claimed.append(match.match_id)
            assert store.save_prediction(match.match_id, owner, "{}", owner, NOW)
    return claimed
