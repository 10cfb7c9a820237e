"""Processes that write one SQLite file take turns; one that hangs or dies does not halt the others for good."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage import connections
from storage.database import upgrade
from storage.errors import StorageBusy, StorageUnavailable
from storage.store import Store
from storage.turns import Turns

HOLD = """
import sys, time
from pathlib import Path
from storage.turns import Turns
with Turns(Path(sys.argv[1]), 5.0).mine():
    print("held", flush=True)
    time.sleep(600)
"""


def test_who_waits_gets_the_turn_when_it_is_given_back(tmp_path: Path) -> None:
    first, second = Turns(tmp_path / "rows.db", 10.0), Turns(tmp_path / "rows.db", 10.0)
    order: list[str] = []

    def wait() -> None:
        with second.mine():
            order.append("second")

    waiting = threading.Thread(target=wait)
    with first.mine():
        waiting.start()
        waiting.join(0.05)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]


def test_the_turn_is_given_back_after_an_error(tmp_path: Path) -> None:
    first, second = Turns(tmp_path / "rows.db", 1.0), Turns(tmp_path / "rows.db", 0.0)
    with pytest.raises(KeyError), first.mine():
        raise KeyError
    with second.mine():
        pass


def test_a_turn_kept_too_long_is_busy_and_a_dead_holder_keeps_none(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "rows.db")], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        turns = Turns(tmp_path / "rows.db", 0.05)
        with pytest.raises(StorageBusy), turns.mine():
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with turns.mine():
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_a_store_waits_for_its_turn_to_write_and_reads_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path}/rows.db"
    upgrade(url)
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)
    with Store.open(url) as store:
        with Turns(tmp_path / "rows.db", 0.0).mine():
            with pytest.raises(StorageBusy), store.transaction():
                pass
            with store.reading():
                pass
        with store.transaction():
            pass


def test_the_lock_is_private_and_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    Turns(tmp_path / "rows.db", 0.0).close()
    assert (tmp_path / "rows.db-turn").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageUnavailable, match="absent"):
        Turns(tmp_path / "absent" / "rows.db", 0.0)
