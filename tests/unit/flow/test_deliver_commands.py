"""What an administrator does about deliveries to a destination that is gone, and about rows and objects that parted."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pacs_node.cli import root
from pacs_node.flow.upkeep import Upkeep
from storage.errors import StoreMismatch
from storage.identity import bind
from storage.records import DeliveryState, MatchState
from storage.safekeeping import backup
from storage.store import Store
from tests.unit.flow.conftest import Node
from tests.unit.flow.test_deliver import pair, report
from tests.unit.flow.test_pair_by_arrival import send_ecg


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node without destinations."""
    return make_node()


@pytest.fixture
def command(node: Node) -> Callable[..., Result]:
    """Runs a command over `node`, whose only destination is not configured any more."""
    bind(node.store, node.objects)

    def run(*arguments: str, **storage: object) -> Result:
        named = {"database": node.settings.storage.database, "objects": node.objects.root, **storage}
        variables = {f"PULMOLINK_STORAGE_{key.upper()}": str(value) for key, value in named.items()}
        return CliRunner().invoke(root, list(arguments), env={**variables, "COLUMNS": "200"})

    return run


def upkeep(node: Node) -> Upkeep:
    return Upkeep(node.store, node.objects, node.settings, node.clock)


def age(node: Node) -> None:
    """Let two hours pass for every object."""
    for sha256 in node.objects.digests():
        os.utime(node.objects.path(sha256), times=(time.time() - 7200,) * 2)


def kept(node: Node) -> set[str]:
    return set(node.objects.digests())


def test_status_lists_a_destination_that_is_not_configured_any_more(node: Node, command: Callable[..., Result]) -> None:
    pair(node, 1)
    report(node)
    (entry,) = json.loads(command("status", "--json").stdout)["destinations"]
    assert (entry["name"], entry["configured"], entry["pending"]) == ("pacs", False, 2)
    assert "pacs (not configured)" in command("status").stdout
    assert "pulmolink deliver --to pacs --cancel" in command("status").stdout


def test_doctor_mentions_what_waits_for_it(node: Node, command: Callable[..., Result]) -> None:
    def found() -> dict[str, object]:
        return next(check for check in json.loads(command("doctor", "--json").stdout) if check["part"] == "deliveries")

    assert found()["ok"]
    pair(node, 1)
    report(node)
    assert not found()["ok"]
    assert "2 to pacs" in str(found()["found"])


def test_its_deliveries_can_be_cancelled(node: Node, command: Callable[..., Result]) -> None:
    pair(node, 1)
    match = report(node)
    assert command("deliver", "--cancel").exit_code == 2
    assert command("deliver", "--cancel", "--to", "pacs", "--now").exit_code == 2
    assert command("deliver", "--cancel", "--to", "never").exit_code == 1
    assert command("deliver", "--cancel", "--to", "pacs").stdout == "2 deliveries to pacs cancelled\n"
    assert {made.state for made in node.store.deliveries()} == {DeliveryState.CANCELLED}
    assert node.store.match(match.match_id).state is MatchState.REPORTED


def test_a_mistyped_database_is_refused_and_costs_no_object(
    node: Node, command: Callable[..., Result], tmp_path: Path
) -> None:
    """The incident: an empty database was made, and the next sweep removed every object."""
    pair(node, 1)
    age(node)
    before = kept(node)
    wrong = f"sqlite:///{tmp_path}/mistyped.db"
    answer = command("db", "upgrade", database=wrong)
    assert answer.exit_code == 0
    for arguments in (["status"], ["import", str(tmp_path), "--queue-only"], ["db", "verify"]):
        refused = command(*arguments, database=wrong)
        assert isinstance(refused.exception, StoreMismatch), arguments
        assert "pulmolink db adopt" in refused.exception.hint
    with Store.open(wrong) as store:
        other = Upkeep(store, node.objects, node.settings, lambda: datetime.now(UTC))
        assert other.sweep_objects() == 0
    assert kept(node) == before


def test_adopt_asks_first_and_import_then_takes_the_objects_in(
    node: Node, command: Callable[..., Result], tmp_path: Path
) -> None:
    """For a folder whose own database is lost."""
    pair(node, 1)
    new = f"sqlite:///{tmp_path}/new.db"
    command("db", "upgrade", database=new)
    assert command("db", "adopt", database=new).exit_code == 1
    assert isinstance(command("status", database=new).exception, StoreMismatch)
    assert command("db", "adopt", "--yes", database=new).exit_code == 0
    taken = command("import", str(node.objects.root), "--queue-only", "--json", database=new)
    assert taken.exit_code == 0, taken.output
    (match,) = json.loads(command("matches", "--json", database=new).stdout)
    assert (match["radiograph_uid"], match["state"]) == ("1.1.1", "PAIRED")
    assert isinstance(command("status").exception, StoreMismatch)


def test_after_an_older_backup_was_restored_what_was_set_aside_can_be_imported(
    node: Node, command: Callable[..., Result], tmp_path: Path
) -> None:
    pair(node, 1)
    backup(node.settings.storage.database, tmp_path / "older.db")
    pair(node, 2)
    node.store.close()
    restored = Path(node.settings.storage.database.removeprefix("sqlite:///"))
    for file in restored.parent.glob("rows.db*"):
        file.unlink()
    shutil.copy(tmp_path / "older.db", restored)
    age(node)
    with Store.open(node.settings.storage.database) as store:
        assert Upkeep(store, node.objects, node.settings, node.clock).sweep_objects() == 2
    verified = command("db", "verify")
    assert verified.exit_code == 0
    orphaned = node.objects.root / "orphaned"
    assert f"2 objects that no row needs are set aside; pulmolink import {orphaned}" in verified.stdout
    taken = command("import", str(orphaned), "--queue-only", "--json")
    assert taken.exit_code == 0, taken.output
    matches = json.loads(command("matches", "--json").stdout)
    assert [(row["radiograph_uid"], row["state"]) for row in matches] == [("1.1.1", "PAIRED"), ("1.2.1", "PAIRED")]


def test_a_sweep_by_hand_counts_first_and_moves_when_told(node: Node, command: Callable[..., Result]) -> None:
    pair(node, 1)
    for number in range(120):
        node.objects.put(f"orphan {number}".encode())
    age(node)
    assert upkeep(node).sweep_objects() == 0  # refused: so many are a sign that rows were lost
    assert "120 objects" in command("db", "sweep").stdout
    assert len(kept(node)) == 122
    assert "120 objects set aside" in command("db", "sweep", "--yes").stdout
    assert len(kept(node)) == 2


def test_what_was_set_aside_is_removed_after_the_configured_time(node: Node) -> None:
    bind(node.store, node.objects)
    node.objects.put(b"orphan")
    age(node)
    assert upkeep(node).sweep_objects() == 1
    (aside,) = node.objects.orphaned.iterdir()
    days = node.settings.storage.keep_orphaned_days
    for passed, there in ((days - 1, True), (days + 1, False)):
        os.utime(aside, times=(time.time() - 86400 * passed,) * 2)
        upkeep(node).sweep_objects()
        assert aside.exists() is there


def test_retention_takes_the_bytes_of_unpaired_inputs_out_of_the_way(node: Node) -> None:
    pair(node, 1)
    send_ecg(node, "1.9.2", PatientID="P9")
    age(node)
    node.clock.now += timedelta(days=node.settings.storage.retain_unpaired_days + 1)
    assert upkeep(node).purge_unpaired() == 1
    assert len(kept(node)) == 2
    assert node.objects.count_set_aside() == 1
