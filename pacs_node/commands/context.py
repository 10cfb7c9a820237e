"""What most commands open first: settings, log, store, objects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from pacs_node import log
from pacs_node.service import handed_settings
from pacs_node.settings import Settings, load
from storage import database
from storage.errors import SchemaOutdated, StorageUnavailable
from storage.identity import bind
from storage.objects import ObjectStore
from storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An open store with its objects and the settings it was opened by."""

    settings: Settings
    store: Store
    objects: ObjectStore


def settings_of(ctx: click.Context, *, service: bool = False, supervised: bool = False) -> Settings:
    """The settings that `--config` and the environment give, or, if `supervised`, those that `serve` hands over.

    A service logs at `log.level`; a command that a person waits for says warnings only, beside its own output.
    """
    config: Path | None = ctx.find_root().obj
    handed = handed_settings() if supervised else None
    settings = handed or load(config)
    quieter = settings.log.model_copy(update={"level": "warning"})
    log.configure(settings.log if service or settings.log.level == "error" else quieter)
    return settings


@contextlib.contextmanager
def opened(
    ctx: click.Context, *, service: bool = False, create: bool = False, supervised: bool = False
) -> Iterator[Opened]:
    """Open the store; an outdated one is refused with the way to upgrade.

    Only with `create`, which what brings objects in has, is a new installation's database set up: to all others a
    database that is not there means a wrong path or a volume that is not mounted.
    """
    settings = settings_of(ctx, service=service, supervised=supervised)
    with open_store(settings, create=create) as result:
        yield result


@contextlib.contextmanager
def open_store(settings: Settings, *, create: bool) -> Iterator[Opened]:
    """As `opened`, for settings at hand.

    Raises
    ------
    StoreMismatch
        The database and the object folder do not belong together.
    """
    file = database.sqlite_file(settings.storage.database)
    if not create and file is not None and not file.exists():
        raise StorageUnavailable(f"there is no database {file}", "check storage.database; the first `serve` makes it")
    with _naming("storage.objects"):
        objects = ObjectStore(settings.storage.objects)
    with _naming("storage.database"):
        store = _open(settings.storage.database)
    try:
        bind(store, objects)
        yield Opened(settings=settings, store=store, objects=objects)
    finally:
        store.close()


@contextlib.contextmanager
def _naming(key: str) -> Iterator[None]:
    """Say which setting led to what cannot be used."""
    try:
        yield
    except StorageUnavailable as error:
        raise StorageUnavailable(f"{key}: {error}", error.hint) from None
    except OSError as error:
        raise StorageUnavailable(f"{key}: {error.filename or ''}: {error.strerror}", "check the path") from None


def _open(url: str) -> Store:
    """The store; a new installation's empty database is set up, an outdated one is left to `db upgrade`."""
    file = database.sqlite_file(url)
    if file is not None and not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        database.upgrade(url)
    try:
        return Store.open(url)
    except SchemaOutdated as error:
        if error.found:
            raise
    database.upgrade(url)
    return Store.open(url)
