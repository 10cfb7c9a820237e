"""A store in a fresh SQLite file, and an object folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database import upgrade
from storage.objects import ObjectStore
from storage.store import Store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with the present schema and no rows."""
    file = tmp_path_factory.mktemp("empty") / "rows.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture
def url(tmp_path: Path, empty_database: Path) -> str:
    """An SQLite database of one's own with the present schema."""
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'rows.db')}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """The open store of `url`."""
    with Store.open(url) as store:
        yield store


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    """An empty object folder."""
    return ObjectStore(tmp_path / "objects")
