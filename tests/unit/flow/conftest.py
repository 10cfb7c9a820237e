"""A node without a network: settings, store, objects and a receiver over a fresh SQLite file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs_node.dicom.stack import quiet
from pacs_node.flow.pair import PairingRules
from pacs_node.flow.receive import Receiver
from pacs_node.settings import Settings
from storage.database import upgrade
from storage.identity import bind
from storage.objects import ObjectStore
from storage.store import Store


@dataclass
class Clock:
    """A clock that stands where a test puts it."""

    now: datetime = field(default_factory=lambda: datetime(2024, 3, 20, 8, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Node:
    """What the receiving side of a running service holds."""

    settings: Settings
    store: Store
    objects: ObjectStore
    clock: Clock

    @property
    def receiver(self) -> Receiver:
        return Receiver(self.store, self.objects, self.settings, self.clock)

    @property
    def rules(self) -> PairingRules:
        return PairingRules.of(self.settings)


@pytest.fixture(autouse=True)
def _as_in_service() -> None:
    """Every process that receives silences the DICOM libraries, which warn with values."""
    quiet()


@pytest.fixture(scope="session")
def empty_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the present schema and no rows."""
    file = tmp_path_factory.mktemp("flow") / "rows.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def make_node(tmp_path: Path, empty_rows: Path) -> Iterator[Callable[..., Node]]:
    """A function that makes a node; keyword arguments are sections of the settings."""
    stores: list[Store] = []

    def make(**sections: object) -> Node:
        folder = tmp_path / f"node{len(stores)}"
        folder.mkdir()
        rows = shutil.copy(empty_rows, folder / "rows.db")
        storage = {"database": f"sqlite:///{rows}", "objects": str(folder / "objects")}
        settings = Settings.model_validate({"storage": storage, **sections})
        stores.append(Store.open(settings.storage.database))
        objects = ObjectStore(settings.storage.objects)
        bind(stores[-1], objects)
        return Node(settings=settings, store=stores[-1], objects=objects, clock=Clock())

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node with everything at its default."""
    return make_node()
