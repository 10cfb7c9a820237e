"""A server of ours on loopback, within the test's process, and raw connections to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs_node.dicom.audit import Audit
from pacs_node.dicom.server import StorageServer
from pacs_node.flow.commitment_desk import CommitmentDesk
from pacs_node.flow.receive import Receiver
from pacs_node.settings import Settings
from storage.database import upgrade
from storage.objects import ObjectStore
from storage.store import Store
from tests.integration.rig import free_port
from tests.unit.dicom.peers import Listening


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An SQLite file with the present schema and no rows."""
    file = tmp_path_factory.mktemp("server") / "rows.db"
    upgrade(f"sqlite:///{file}")
    return file.read_bytes()


@pytest.fixture
def listen(tmp_path: Path, empty_database: bytes) -> Iterator[Callable[..., Listening]]:
    """A function that starts a server; keyword arguments are sections of the settings."""
    started: list[Listening] = []

    def start(**sections: object) -> Listening:
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        (folder / "rows.db").write_bytes(empty_database)
        node = {"port": free_port(), **dict(sections.pop("node", {}))}  # type: ignore[call-overload]
        storage = {"database": f"sqlite:///{folder / 'rows.db'}", "objects": str(folder / "objects")}
        settings = Settings.model_validate({"node": node, "storage": storage, **sections})
        store = Store.open(settings.storage.database)
        objects = ObjectStore(settings.storage.objects)
        receiver = Receiver(store, objects, settings, lambda: datetime.now(UTC))
        audit = Audit(store.add_tallies)
        desk = CommitmentDesk(store, objects, settings, lambda: datetime.now(UTC))
        server = StorageServer(settings, receiver.open, audit=audit, desk=desk)
        server.start()
        listening = Listening(
            server=server, port=settings.node.port, store=store, objects=objects, audit=audit, settings=settings
        )
        started.append(listening)
        return listening

    yield start
    for listening in started:
        listening.server.stop(0.0)
        listening.store.close()
