"""Copy a database while it is in use, and find out whether rows and objects still belong together.

Neither repairs anything. A backup holds rows alone: copy the object folder after it, so that it has every
object named.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Select, exists, literal, null, select, text, tuple_

from storage.connections import Connections
from storage.database import sqlite_file
from storage.errors import (
    BackupRefused,
    ObjectDamaged,
    ObjectMissing,
    StorageUnavailable,
)
from storage.identity import bind
from storage.objects import ObjectStore
from storage.records import MatchState
from storage.schema import chest_features, instances, matches, reports
from storage.upkeep import Upkeep

PAGES_AT_ONCE = 4096
"""Database pages copied between two chances for a writer (16 MiB)."""
ROWS_AT_ONCE = 1000


class ProblemKind(StrEnum):
    """What `verify` may find."""

    DATABASE_DAMAGED = "database_damaged"  # its own check of pages, indexes or references failed
    OBJECT_MISSING = "object_missing"  # a row names it, the folder lacks it
    OBJECT_DAMAGED = "object_damaged"  # its size or its digest is wrong
    OBJECT_ORPHANED = "object_orphaned"  # no row names it: left by a killed writer, set aside by the scheduler in time
    REPORTS_ABSENT = "reports_absent"  # a match says that it has reports and has none


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One finding. `subject` is "instance 12", "report 3", "object <sha256>"; never a patient."""

    kind: ProblemKind
    subject: str
    detail: str


def backup(url: str, target: Path) -> None:
    """Write a copy of an SQLite database to `target` (mode 0600), while others go on writing.

    The copy is one file, checked, and on disk when this returns; until then `target` does not exist.

    Raises
    ------
    BackupRefused
        If the target exists, or the database is in PostgreSQL, which has its own tool.
    StorageUnavailable
        If reading or writing fails.
    """
    source = sqlite_file(url)
    if source is None:
        raise BackupRefused(
            target, "the rows are in PostgreSQL", "use pg_dump --format=custom, then copy the object folder"
        )
    if target.exists():
        raise BackupRefused(target, "it exists", "give a new name, such as one with today's date")
    if not source.is_file():
        raise BackupRefused(target, "there is no database file", "check [storage] database")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".backup-")
    except OSError as error:
        raise BackupRefused(target, f"its folder cannot be written ({error.strerror})", "") from error
    os.close(handle)
    partial = Path(name)
    try:
        _copy(source, partial)
        # A link, and no rename, refuses to replace what appeared meanwhile.
        os.link(partial, target)
        _sync(target.parent)
    except FileExistsError:
        raise BackupRefused(target, "it exists", "give a new name, such as one with today's date") from None
    except (OSError, sqlite3.Error) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else getattr(error, "sqlite_errorname", type(error).__name__)
        )
        raise StorageUnavailable(f"the backup failed: {reason}", "check the space on both volumes") from error
    finally:
        partial.unlink(missing_ok=True)


def verify(url: str, objects: ObjectStore, *, read_objects: bool = False) -> list[Problem]:
    """Everything about the stored rows and objects that is not as it must be; empty if all is well.

    Parameters
    ----------
    read_objects
        Also read every object and compare its digest; otherwise presence and size are compared.

    Raises
    ------
    SchemaOutdated, SchemaTooNew, StorageUnavailable
        If the database cannot be looked at.
    StoreMismatch
        If the folder is not that of the database.
    """
    problems: list[Problem] = []
    with Upkeep.open(url) as store:
        bind(store, objects)
        # No transaction stays open while objects are read: it would keep PostgreSQL from cleaning up and
        # SQLite's log from being shortened.
        with store.reading() as connection:
            problems += _check_database(connection)
        for subject, sha256, size_bytes in _named_objects(store):
            for problem in _check_object(objects, subject, sha256, size_bytes, read=read_objects):
                # It may have been given up since its row was read.
                if store.referenced_digests([sha256]):
                    problems.append(problem)
        with store.reading() as connection:
            problems += _check_reports(connection)
        problems += [
            Problem(kind=ProblemKind.OBJECT_ORPHANED, subject=f"object {sha256}", detail="no row names it")
            for sha256, orphaned in store.orphans(objects)
            if orphaned
        ]
    return problems


def _copy(source: Path, partial: Path) -> None:
    with closing(sqlite3.connect(source)) as reading, closing(sqlite3.connect(partial)) as writing:
        reading.backup(writing, pages=PAGES_AT_ONCE)
        # One file and no -wal beside it.
        writing.execute("PRAGMA journal_mode = DELETE")
        findings = [str(row[0]) for row in writing.execute("PRAGMA integrity_check")]
    if findings != ["ok"]:
        raise sqlite3.DatabaseError("the copy is damaged")
    _sync(partial)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_database(connection: Connection) -> Iterator[Problem]:
    if connection.dialect.name != "sqlite":
        return  # PostgreSQL enforces references; for its pages there is pg_amcheck
    for (finding,) in connection.execute(text("PRAGMA integrity_check")):
        if finding != "ok":
            yield Problem(kind=ProblemKind.DATABASE_DAMAGED, subject="database", detail=str(finding))
    for table, row_id, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield Problem(
            kind=ProblemKind.DATABASE_DAMAGED,
            subject=f"{table} row {row_id}",
            detail=f"refers to no row of {parent}",
        )


def _named_objects(store: Connections) -> Iterator[tuple[str, str, int | None]]:
    """What each row names: whose it is, its digest, and its size where a row says it. Read batch by batch."""
    display = chest_features.c
    looks: list[tuple[str, Select[Any], Sequence[Column[Any]]]] = [
        (
            "instance",
            select(instances.c.instance_id, instances.c.sha256, instances.c.size_bytes).where(
                instances.c.purged_at.is_(None)
            ),
            [instances.c.instance_id],
        ),
        ("report", select(reports.c.report_id, reports.c.sha256, reports.c.size_bytes), [reports.c.report_id]),
        (
            "display of instance",
            select(display.radiograph_id, display.display_sha256, null(), display.model_digest),
            [display.radiograph_id, display.model_digest],
        ),
    ]
    for noun, look, key in looks:
        after: tuple[Any, ...] = ()
        while True:
            page = look.order_by(*key).limit(ROWS_AT_ONCE)
            if after:
                page = page.where(tuple_(*key) > tuple_(*map(literal, after)))
            with store.reading() as connection:
                found = connection.execute(page).all()
            for row in found:
                yield f"{noun} {row[0]}", row[1], row[2]
            if len(found) < ROWS_AT_ONCE:
                break
            after = (found[-1][0], *found[-1][3:])


def _check_object(
    objects: ObjectStore, subject: str, sha256: str, size_bytes: int | None, *, read: bool
) -> Iterator[Problem]:
    found = objects.size_bytes(sha256)
    if found is None:
        yield Problem(kind=ProblemKind.OBJECT_MISSING, subject=subject, detail=f"object {sha256}")
        return
    if size_bytes is not None and found != size_bytes:
        detail = f"object {sha256} has {found} bytes instead of {size_bytes}"
        yield Problem(kind=ProblemKind.OBJECT_DAMAGED, subject=subject, detail=detail)
    elif read:
        try:
            objects.check(sha256)
        except ObjectDamaged:
            detail = f"object {sha256} has another digest"
            yield Problem(kind=ProblemKind.OBJECT_DAMAGED, subject=subject, detail=detail)
        except ObjectMissing:
            yield Problem(kind=ProblemKind.OBJECT_MISSING, subject=subject, detail=f"object {sha256}")


def _check_reports(connection: Connection) -> Iterator[Problem]:
    ended = [MatchState.REPORTED, MatchState.DELIVERED, MatchState.COMMITTED]
    without = select(matches.c.match_id).where(
        matches.c.state.in_(ended), ~exists().where(reports.c.match_id == matches.c.match_id)
    )
    for match_id in connection.scalars(without):
        yield Problem(kind=ProblemKind.REPORTS_ABSENT, subject=f"match {match_id}", detail="no report is stored")
