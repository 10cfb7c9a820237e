"""One object on its way in: fragments to its file and digest as they come, its header from the first of them.

Comes in: the origin that the C-STORE command states, then fragments. Goes out: a file not yet kept, and its header.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from pacs_node.flow.index import BeyondBuffer, Bounds, HeaderIndex, read_index
from pacs_node.flow.part10 import HeaderUnreadable, inflate_beginning, part10_prefix
from pacs_node.flow.room import shortage
from pacs_node.settings import Settings
from storage.errors import StorageError, StorageFull
from storage.objects import ObjectStore, ObjectWriter

if TYPE_CHECKING:
    from pacs_node.flow.receive import Receipt

T = TypeVar("T")

HEAD_BYTES = 64 * 1024
"""Bytes of a data set kept in memory for its header; a longer header is read from the file. Each costs a copy."""
INFLATED_BYTES = 512 * 1024
"""The same of a deflated data set, once it is inflated."""

_LONG_INFLATED = threading.Lock()
"""A deflated header beyond `INFLATED_BYTES` has to be in memory: one at a time in this process, however many come."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of an object before its first byte: what command or file meta information say, and who sends."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae: str
    ecg_documents: bool = False  # the sender sends ECGs only


class Reception:
    """Takes one data set. For one thread; `Receiver.open` makes it.

    Attributes
    ----------
    refusal : str
        Why nothing will be kept: a bound or the disk; "" while all is well. Later fragments are dropped.
    failure : StorageError or None
        The storage cannot be used at all.
    size_bytes : int
        Of the data set so far, what was dropped included.
    """

    def __init__(
        self,
        origin: Origin,
        objects: ObjectStore,
        settings: Settings,
        complete: Callable[[Reception], Receipt],
    ) -> None:
        self.origin = origin
        self.refusal = ""
        self.failure: StorageError | None = None
        self.size_bytes = 0
        self._objects = objects
        self._limits = settings.limits
        self._folder = settings.storage.objects
        self._complete = complete
        self._writer: ObjectWriter | None = None
        self._prefix = part10_prefix(origin.sop_class_uid, origin.sop_instance_uid, origin.transfer_syntax_uid)
        self._head = bytearray()

    def write(self, fragment: bytes | memoryview) -> None:
        """The next bytes of the data set; they are not referred to afterwards."""
        self.size_bytes += len(fragment)
        if self.refusal or self.failure is not None:
            return
        if self.size_bytes > self._limits.object_bytes:
            self._refuse(f"larger than limits.object_bytes ({self._limits.object_bytes})")
            return
        try:
            if self._writer is None:
                if short := shortage(self._folder, self._limits):
                    self._refuse(short)
                    return
                self._writer = self._objects.writer()
                self._writer.write(self._prefix, fragment)
            else:
                self._writer.write(fragment)
        except StorageFull:
            self._refuse("disk full")
            return
        except StorageError as error:
            self.failure = error
            self.discard()
            return
        if len(self._head) < HEAD_BYTES:
            self._head += fragment[: HEAD_BYTES - len(self._head)]

    def finish(self) -> Receipt:
        """All bytes came: store, describe and pair, and say what to answer."""
        return self._complete(self)

    def discard(self) -> None:
        """Nothing more comes, or nothing is to be kept. Harmless after `finish`."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None
        self._head = bytearray()

    def written(self) -> ObjectWriter:
        """The whole Part 10 file, to be kept.

        Raises
        ------
        StorageError
            It could not be written.
        """
        if self.failure is not None:
            raise self.failure
        if self._writer is None:
            self._writer = self._objects.writer()
            self._writer.write(self._prefix)
        return self._writer

    def with_header(self, use: Callable[[HeaderIndex], T]) -> T:
        """What `use` makes of the header. Called again with the whole file if the header is longer than the head.

        Raises
        ------
        HeaderUnreadable
            Damaged, empty or beyond the bounds.
        """
        limits = self._limits
        bounds = Bounds(
            depth=limits.header_depth, elements=limits.header_elements, value_bytes=limits.header_value_bytes
        )
        syntax = self.origin.transfer_syntax_uid
        if syntax == DeflatedExplicitVRLittleEndian:
            return self._with_inflated_header(use, bounds)
        try:
            return use(read_index(self._head, syntax, bounds, total_bytes=self.size_bytes))
        except BeyondBuffer:
            pass
        if self.size_bytes <= len(self._head):
            raise HeaderUnreadable("the data set is cut short")
        with self.written().mapped() as file, memoryview(file) as whole:
            readable = whole[len(self._prefix) : len(self._prefix) + self._limits.header_bytes]
            with readable:
                try:
                    return use(read_index(readable, syntax, bounds, total_bytes=self.size_bytes))
                except BeyondBuffer:
                    raise HeaderUnreadable("the header goes beyond limits.header_bytes") from None

    def _with_inflated_header(self, use: Callable[[HeaderIndex], T], bounds: Bounds) -> T:
        try:
            return self._with_inflated(use, bounds, min(INFLATED_BYTES, self._limits.header_bytes))
        except BeyondBuffer:
            pass
        try:
            with _LONG_INFLATED:
                return self._with_inflated(use, bounds, self._limits.header_bytes)
        except BeyondBuffer:
            raise HeaderUnreadable("the header goes beyond limits.header_bytes") from None

    def _with_inflated(self, use: Callable[[HeaderIndex], T], bounds: Bounds, kept_bytes: int) -> T:
        with self.written().mapped() as file, memoryview(file) as whole, whole[len(self._prefix) :] as deflated:
            data, size = inflate_beginning(deflated, kept_bytes)
        return use(read_index(data, ExplicitVRLittleEndian, bounds, total_bytes=size))

    def _refuse(self, why: str) -> None:
        self.refusal = why
        self.discard()
