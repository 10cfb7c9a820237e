"""A database and an object folder that do not belong together are never used together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from storage.database import upgrade
from storage.errors import StoreMismatch
from storage.identity import adopt, bind, check_bound, store_id
from storage.objects import ObjectStore
from storage.safekeeping import backup
from storage.store import Store
from tests.unit.storage.storage_examples import add, instance


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """Another, empty database: what a mistyped path gives."""
    url = f"sqlite:///{tmp_path}/other.db"
    upgrade(url)
    with Store.open(url) as store:
        yield store  # type: ignore[misc]


def keep(store: Store, objects: ObjectStore, text: str) -> None:
    add(store, replace(instance(text), sha256=objects.put(text.encode()).sha256))


def test_every_database_has_an_identity_of_its_own(store: Store, other: Store) -> None:
    assert store_id(store) != store_id(other)
    assert len(store_id(store)) == 32


def test_a_new_folder_takes_the_identity_of_its_first_database(store: Store, objects: ObjectStore) -> None:
    bind(store, objects)
    assert (objects.root / "STORE_ID").read_text() == f"{store_id(store)}\n"
    bind(store, objects)
    check_bound(store, objects)


def test_an_empty_database_is_refused_over_a_folder_in_use(store: Store, other: Store, objects: ObjectStore) -> None:
    bind(store, objects)
    keep(store, objects, "1.1")
    with pytest.raises(StoreMismatch, match="new and empty") as caught:
        bind(other, objects)
    assert "pulmolink db adopt" in caught.value.hint


def test_a_database_of_another_node_is_refused(
    store: Store, other: Store, objects: ObjectStore, tmp_path: Path
) -> None:
    bind(store, objects)
    keep(other, ObjectStore(tmp_path / "elsewhere"), "1.1")
    with pytest.raises(StoreMismatch, match="another one's"):
        bind(other, objects)


def test_an_empty_database_is_refused_over_objects_without_an_identity(store: Store, objects: ObjectStore) -> None:
    objects.put(b"somebody's")
    with pytest.raises(StoreMismatch, match="does not know"):
        bind(store, objects)


def test_a_folder_that_lacks_the_objects_is_taken_for_an_unmounted_volume(
    store: Store, objects: ObjectStore, tmp_path: Path
) -> None:
    keep(store, ObjectStore(tmp_path / "mounted"), "1.1")
    with pytest.raises(StoreMismatch, match="lacks") as caught:
        bind(store, objects)
    assert "mounted" in caught.value.hint
    assert objects.owner() is None


def test_a_folder_that_holds_what_the_rows_name_is_recognised(store: Store, objects: ObjectStore) -> None:
    keep(store, objects, "1.1")
    bind(store, objects)
    assert objects.owner() == store_id(store)


def test_a_backup_restored_keeps_its_identity(store: Store, url: str, objects: ObjectStore, tmp_path: Path) -> None:
    bind(store, objects)
    backup(url, tmp_path / "backup.db")
    keep(store, objects, "1.1")
    with Store.open(f"sqlite:///{tmp_path}/backup.db") as restored:
        bind(restored, objects)


def test_a_person_may_give_a_folder_to_another_database(store: Store, other: Store, objects: ObjectStore) -> None:
    bind(store, objects)
    keep(store, objects, "1.1")
    adopt(other, objects)
    bind(other, objects)
    with pytest.raises(StoreMismatch):
        bind(store, objects)


def test_of_two_databases_that_claim_a_new_folder_at_once_one_gets_it(objects: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        owners = set(threads.map(objects.claim, map(str, range(32))))
    assert owners == {objects.owner()}
