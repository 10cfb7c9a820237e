"""What a disk holds after power is lost, from the record of `disk.c`: what was synced, and nothing that was not.

A file's bytes survive its fsync, a folder's entries the folder's own (POSIX promises no more). `crashes` stops at every
sync, rename and answer of a run and hands out what had survived there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("=iiiiqq")


class Operation(IntEnum):
    """The enumeration of `disk.c`."""

    OPENED = 1
    CLOSED = 2
    WRITTEN = 3
    TRUNCATED = 4
    SYNC_BEGINS = 5
    SYNC_ENDS = 6
    RENAMED = 7
    LINKED = 8
    REMOVED = 9
    FOLDER_MADE = 10
    SENT = 11


STOPS = frozenset({Operation.SYNC_ENDS, Operation.RENAMED, Operation.SENT})
"""A moment before each of these is looked at."""


class Record(NamedTuple):
    """One call."""

    operation: Operation
    descriptor: int
    thread: int
    path: str
    offset: int
    payload: bytes


@dataclass(eq=False)
class _File:
    """A file as processes see it, and as it would be found after a power loss."""

    seen: bytearray = field(default_factory=bytearray)
    kept: bytes = b""
    kept_since: int = -1  # when the sync began that kept it


@dataclass(eq=False)
class _Folder:
    """The same of a folder's entries."""

    seen: dict[str, _File | _Folder] = field(default_factory=dict)
    kept: dict[str, _File | _Folder] = field(default_factory=dict)
    kept_since: int = -1


@dataclass(frozen=True, kw_only=True)
class Crash:
    """What survives at one moment. Paths are relative to the root."""

    files: dict[str, bytes]
    ahead: dict[str, bytes]  # entries got to disk before anybody asked, bytes did not
    sent: int  # how many of the records of `Operation.SENT` came before


def records(log: Path) -> list[Record]:
    """The record of a run; a last one that is cut short is left out."""
    data = log.read_bytes()
    found, at = [], 0
    while at + _RECORD.size <= len(data):
        operation, descriptor, thread, path_bytes, offset, size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        path = data[at : at + path_bytes].decode()
        payload = data[at + path_bytes : at + path_bytes + size]
        at += path_bytes + size
        if at <= len(data):
            found.append(Record(Operation(operation), descriptor, thread, path, offset, payload))
    return found


class Disk:
    """A tree of files under `root`, at first all on disk.

    Parameters
    ----------
    forgets
        Paths relative to the root, or their beginnings: a sync of these does nothing. For negative controls.
    """

    def __init__(
        self, root: Path, at_first: dict[str, bytes], folders: list[str], forgets: tuple[str, ...] = ()
    ) -> None:
        self._root = f"{root}/"
        self._forgets = forgets
        self._top = _Folder()
        self._open: dict[int, tuple[str, _File | _Folder]] = {}
        # By thread: what is being synced, how it was when that began, and when that was.
        self._syncing: dict[int, tuple[_File | _Folder, bytes | dict[str, _File | _Folder], int]] = {}
        self._syncs = 0
        for name in folders:
            self._folder(name, make=True)
        for name, content in at_first.items():
            folder, _, last = name.rpartition("/")
            parent = self._folder(folder, make=True)
            parent.seen[last] = parent.kept[last] = _File(seen=bytearray(content), kept=content)

    def survivors(self, *, ahead: bool) -> dict[str, bytes]:
        """What is found after a power loss now; `ahead`: every entry, with the bytes that were synced."""
        found: dict[str, bytes] = {}

        def gather(folder: _Folder, prefix: str) -> None:
            for name, entry in (folder.seen if ahead else folder.kept).items():
                if isinstance(entry, _Folder):
                    gather(entry, f"{prefix}{name}/")
                else:
                    found[prefix + name] = entry.kept

        gather(self._top, "")
        return found

    def apply(self, record: Record) -> None:
        """Carry one call out."""
        match record.operation:
            case Operation.OPENED:
                self._opened(record)
            case Operation.CLOSED:
                self._open.pop(record.descriptor, None)
            case Operation.WRITTEN:
                content = self._file(record).seen
                if len(content) < record.offset:
                    content.extend(bytes(record.offset - len(content)))
                content[record.offset : record.offset + len(record.payload)] = record.payload
            case Operation.TRUNCATED:
                content = self._file(record).seen
                del content[record.offset :]
                content.extend(bytes(record.offset - len(content)))
            case Operation.SYNC_BEGINS:
                entry = self._open[record.descriptor][1]
                self._syncs += 1
                then = dict(entry.seen) if isinstance(entry, _Folder) else bytes(entry.seen)
                self._syncing[record.thread] = (entry, then, self._syncs)
            case Operation.SYNC_ENDS:
                self._synced(record)
            case Operation.RENAMED | Operation.LINKED:
                source, target = record.path.split("\0")
                (before, old), (after, new) = self._place(source), self._place(target)
                after.seen[new] = before.seen[old]
                if record.operation is Operation.RENAMED:
                    del before.seen[old]
            case Operation.REMOVED:
                folder, name = self._place(record.path)
                folder.seen.pop(name, None)
            case Operation.FOLDER_MADE:
                folder, name = self._place(record.path)
                folder.seen[name] = _Folder()
            case Operation.SENT:
                pass

    def _opened(self, record: Record) -> None:
        if record.path.rstrip("/") == self._root.rstrip("/"):
            self._open[record.descriptor] = ("", self._top)
            return
        folder, name = self._place(record.path)
        entry = folder.seen.get(name)
        if entry is None:
            entry = folder.seen[name] = _File()
        if record.offset and isinstance(entry, _File):
            entry.seen.clear()
        self._open[record.descriptor] = (record.path.removeprefix(self._root), entry)

    def _synced(self, record: Record) -> None:
        name = self._open[record.descriptor][0]
        entry, then, began = self._syncing.pop(record.thread)
        if any(name == one or (one.endswith("*") and name.startswith(one[:-1])) for one in self._forgets):
            return
        if began > entry.kept_since:  # else another, begun later, was quicker
            entry.kept_since = began
            entry.kept = then  # type: ignore[assignment]

    def _file(self, record: Record) -> _File:
        entry = self._open[record.descriptor][1]
        if not isinstance(entry, _File):
            raise TypeError("a folder is written to")
        return entry

    def _place(self, path: str) -> tuple[_Folder, str]:
        folder, _, name = path.removeprefix(self._root).rstrip("/").rpartition("/")
        return self._folder(folder), name

    def _folder(self, name: str, *, make: bool = False) -> _Folder:
        folder = self._top
        for part in name.split("/") if name else ():
            inner = folder.seen.get(part)
            if inner is None and make:
                inner = folder.seen[part] = folder.kept[part] = _Folder()
            if not isinstance(inner, _Folder):
                raise NotADirectoryError(name)
            folder = inner
        return folder


def crashes(disk: Disk, run: list[Record]) -> Iterator[Crash]:
    """What survives just before each stop of the run, and at its end."""
    sent = 0
    for record in run:
        if record.operation in STOPS:
            yield Crash(files=disk.survivors(ahead=False), ahead=disk.survivors(ahead=True), sent=sent)
        disk.apply(record)
        sent += record.operation is Operation.SENT
    yield Crash(files=disk.survivors(ahead=False), ahead=disk.survivors(ahead=True), sent=sent)
