"""Open a database (SQLite or PostgreSQL), bring its schema up to date, and tell our errors from the drivers'.

In: a URL. Out: an `Engine` whose transactions mean the same on both. It knows no table.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from storage.errors import (
    SchemaOutdated,
    SchemaTooNew,
    StorageBusy,
    StorageConflict,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from storage.schema import REVISION

MIGRATIONS: Final = Path(__file__).parent / "migrations"
BUSY_SECONDS: Final = 30.0
"""How long a writer waits for the others before `StorageBusy`."""
KEPT_CONNECTIONS: Final = 8
MOST_CONNECTIONS: Final = 64  # to an SQLite file
MOST_SERVER_CONNECTIONS: Final = 16
"""To PostgreSQL, of one process: several processes share the server's `max_connections` (100 by default)."""
WAL_KEPT_BYTES: Final = 64 << 20
CHECKPOINT_PAGES: Final = 4000
"""Pages in the write-ahead log before a commit moves them to the database: while it does, every sender waits."""
UPGRADE_LOCK: Final = 0x70756C6D6F  # "pulmo": the advisory lock of whoever changes a PostgreSQL schema
READING: Final = "pulmolink_reading"


def open_engine(url: str) -> Engine:
    """An engine for `url`, for the threads of one process.

    A transaction of the engine is a write transaction. On SQLite it takes the write lock when it begins
    (BEGIN IMMEDIATE), so that what it read stays true until it commits. `engine.execution_options(**{READING:
    True})` shares the connections and begins readers, which never wait for a writer.

    Parameters
    ----------
    url
        `sqlite:////absolute/path.db` or `postgresql://user@host/name` (driver pg8000, the extra `postgres`).

    Raises
    ------
    StorageUnavailable
        If the URL is of another kind or a driver is missing.
    """
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed)
    try:
        return _open_postgresql(parsed)
    except ModuleNotFoundError:
        raise StorageUnavailable("PostgreSQL needs the driver pg8000", "pip install 'pulmolink[postgres]'") from None


def parse_url(url: str) -> URL:
    """`url` taken apart and found to be one of the two kinds. Raises `StorageUnavailable`."""
    hint = "use sqlite:////absolute/path.db or postgresql://user@host/name"
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise StorageUnavailable("the database URL cannot be read", hint) from None
    if backend == "postgresql":
        return parsed.set(drivername="postgresql+pg8000")
    if backend != "sqlite":
        raise StorageUnavailable(f"databases of the kind {backend} are not supported", hint)
    if parsed.database in (None, "", ":memory:"):
        raise StorageUnavailable("an SQLite database needs a file", hint)
    return parsed


def sqlite_file(url: str) -> Path | None:
    """The file of an SQLite URL, None for PostgreSQL."""
    parsed = parse_url(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def upgrade(url: str) -> str:
    """Bring the schema of `url` to `REVISION` in one transaction; makes an SQLite file (0600) if needed.

    Safe to call from several processes at once: one does the work, the others find it done.

    Returns
    -------
    str
        The revision it was at before, "" for an empty database.

    Raises
    ------
    SchemaTooNew
        If a later program made it.
    """
    from alembic import command  # slow to import, and only this needs it
    from alembic.config import Config

    file = sqlite_file(url)
    if file is not None:
        _make_private_file(file)
    engine = open_engine(url)
    try:
        with translated(), engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
            found = read_revision(connection)
            if found > REVISION:
                raise SchemaTooNew(found, REVISION)
            if found < REVISION:
                config = Config()
                # Config interpolates "%".
                config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
    finally:
        engine.dispose()
    return found


def check_revision(url: str) -> None:
    """Pass if `url` has the schema of this program.

    Raises
    ------
    SchemaOutdated
        If it is older or absent.
    SchemaTooNew
        If a later program made it.
    StorageUnavailable
        If it cannot be reached.
    """
    engine = open_engine(url)
    try:
        check_engine(engine, url)
    finally:
        engine.dispose()


def check_engine(engine: Engine, url: str) -> None:
    """`check_revision` for an engine that is open already.

    Raises
    ------
    StorageUnavailable
        Also if the server is set to lose what it committed: then nothing may be acknowledged.
    """
    file = sqlite_file(url)
    if file is not None and not file.exists():
        raise SchemaOutdated("", REVISION)
    with translated(), engine.execution_options(**{READING: True}).connect() as connection:
        if connection.dialect.name == "postgresql":
            _check_durable(connection)
        found = read_revision(connection)
    if found < REVISION:
        raise SchemaOutdated(found, REVISION)
    if found > REVISION:
        raise SchemaTooNew(found, REVISION)


def read_revision(connection: Connection) -> str:
    """The revision that the database says it is at, "" if it says nothing."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.scalar(text("SELECT version_num FROM alembic_version")) or "")


@contextmanager
def begun(connection: Connection) -> Iterator[None]:
    """A write transaction of an SQLite connection, begun and ended by the driver.

    SQLAlchemy's own beginning and end cost as much as a short transaction. What it executes meanwhile joins this one.
    """
    driver: Any = connection.connection.driver_connection
    try:
        if driver.in_transaction:  # one that was interrupted before it could be ended; nobody was told of success
            driver.rollback()
        driver.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.commit()  # nothing, if SQLAlchemy executed nothing
            driver.commit()
        except BaseException:
            try:
                connection.rollback()
            finally:
                driver.rollback()
            raise
    except sqlite3.Error as error:
        raise translate_sqlite(error) from None


@contextmanager
def translated() -> Iterator[None]:
    """Turn the drivers' errors into ours, without their texts and parameters, which quote values."""
    try:
        yield
    except PoolTimeout:
        raise StorageBusy(f"waited {BUSY_SECONDS:.0f} s for a connection of this process") from None
    except DBAPIError as error:
        raise _translate(error) from None
    except StatementError as error:
        # A value that one of our column types refused, such as a naive datetime: the caller's mistake.
        raise (error.orig or error) from None


def _translate(error: DBAPIError) -> StorageError:
    origin = error.orig
    if isinstance(origin, sqlite3.Error):
        return translate_sqlite(origin)
    return _translate_postgresql(origin)


def translate_sqlite(origin: sqlite3.Error) -> StorageError:
    """Our error for one of SQLite's driver."""
    # Only errors that SQLite itself raised carry a name; the module's own (such as a closed database) do not.
    name = getattr(origin, "sqlite_errorname", type(origin).__name__)
    if name.startswith("SQLITE_FULL"):
        return StorageFull("write", "the database")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StorageBusy(f"waited {BUSY_SECONDS:.0f} s for another writer")
    if name.startswith("SQLITE_CONSTRAINT"):
        # "UNIQUE constraint failed: table.column": names of columns, never values.
        return StorageConflict(str(origin))
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return StorageUnavailable(f"the database file is damaged ({name})", "restore a backup; run pulmolink db verify")
    return StorageUnavailable(
        f"the database cannot be used ({name})",
        "check that its folder exists, that this user may write it and that the volume has no errors",
    )


def _translate_postgresql(origin: BaseException | None) -> StorageError:
    fields: dict[str, Any] = {}
    if origin is not None and origin.args and isinstance(origin.args[0], dict):
        fields = origin.args[0]  # pg8000 hands over the server's error fields by their letters
    code = str(fields.get("C", ""))
    if code.startswith("23"):
        return StorageConflict(str(fields.get("n", code)))
    if code in {"53100", "53200"}:
        return StorageFull("write", "the database")
    if code == "53300":
        return StorageBusy("the server has no connection left (max_connections)")
    if origin is not None and str(origin) == "network error":
        # pg8000's words where the server hangs up, sometimes before its refusal for want of a connection was read.
        return StorageBusy("the server ended the connection")
    if code in {"40001", "40P01", "55P03"}:
        return StorageBusy(f"SQLSTATE {code}")
    return StorageUnavailable(
        f"the database cannot be used ({f'SQLSTATE {code}' if code else type(origin).__name__})",
        "check that PostgreSQL runs, that the URL's user may connect, and its log",
    )


def _check_durable(connection: Connection) -> None:
    for setting in ("fsync", "full_page_writes"):
        if connection.scalar(text(f"SHOW {setting}")) == "off":
            raise StorageUnavailable(
                f"PostgreSQL runs with {setting} = off: a power cut loses or damages what was acknowledged",
                f"set {setting} = on in postgresql.conf (SHOW config_file says where) and reload the server",
            )


def _open_postgresql(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=KEPT_CONNECTIONS,
        max_overflow=MOST_SERVER_CONNECTIONS - KEPT_CONNECTIONS,
        pool_timeout=BUSY_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        try:
            # Of its values only `off` returns from a commit that is not on disk. Set for the session whatever it is,
            # so that no reload of the server's configuration changes it.
            cursor.execute(
                "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit') "
                "WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"
            )
            # What is read after a lock was waited for must be what its last holder left.
            cursor.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
            connection.commit()
        finally:
            cursor.close()

    return engine


def _open_sqlite(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=KEPT_CONNECTIONS,
        max_overflow=MOST_CONNECTIONS - KEPT_CONNECTIONS,
        pool_timeout=BUSY_SECONDS,
        connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        # The driver's own BEGIN comes too late and of the wrong kind; `_begin` below says it instead.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {BUSY_SECONDS * 1000:.0f}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"journal_size_limit = {WAL_KEPT_BYTES}",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get(READING, False)
        # By the driver itself: as a statement of SQLAlchemy it would cost a fifth of a short transaction.
        driver: Any = connection.connection.driver_connection
        if driver.in_transaction:
            return  # `begun` began it
        try:
            driver.execute("BEGIN" if reading else "BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise translate_sqlite(error) from None

    return engine


def _make_private_file(file: Path) -> None:
    """Make the file before SQLite does: it holds patient data, and its -wal and -shm take over its mode."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageUnavailable(
            f"the database file {file} cannot be made: {error.strerror}",
            "check that this user may write its folder",
        ) from error
    # Several processes may turn a new file to WAL at once, and SQLite does not let them wait for each other
    # there.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorname", "") != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise translate_sqlite(error) from None
            time.sleep(0.01)
