"""Storage commitment's messages as values, and which objects we commit to (PS3.4 J).

Comes in: Action or Event Information as encoded; what is known of an object. Goes out: a `Request` or a `Report`, data
sets to send, a verdict. Nothing here asks, answers or stores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from ecg_ingest.channels import PARSER_FAULTS
from pacs_node.flow.index import BeyondBuffer, Bounds, HeaderIndex, read_index
from pacs_node.flow.part10 import HeaderUnreadable
from pacs_node.settings import Limits
from storage.records import Disposition, SopReference, StoredInstance

REQUEST = 1
"""Action Type ID "Request Storage Commitment" (PS3.4 table J.3-1)."""
ALL_COMMITTED = 1
SOME_FAILED = 2
"""Event Type IDs (PS3.4 table J.3-2)."""

INVALID_ARGUMENT = 0x0115
RESOURCE_LIMITATION = 0x0213

DEPTH = 8
"""Sequences within sequences in a message; the standard has one."""
ELEMENTS_A_REFERENCE = 16
_UID = re.compile(r"[0-9.]{1,64}")

COMMITTED = frozenset({Disposition.ACCEPTED, Disposition.IGNORED, Disposition.HELD})
"""What became of objects that we commit to: not REFUSED, whose content was found unusable."""


class Failure(IntEnum):
    """Failure Reasons (PS3.3 C.14.1.1)."""

    PROCESSING = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_CONFLICT = 0x0119
    DUPLICATE_TRANSACTION = 0x0131


class MessageRefused(Exception):
    """A message that cannot be taken. `status` is what to answer (PS3.7 C); `why` names no content."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a peer asks (PS3.4 table J.3-1)."""

    transaction_uid: str
    references: tuple[SopReference, ...]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a request (PS3.4 table J.3-2)."""

    transaction_uid: str
    committed: tuple[SopReference, ...]
    failed: Mapping[SopReference, int]  # with Failure Reasons

    @property
    def event_type(self) -> int:
        """Event Type ID."""
        return SOME_FAILED if self.failed else ALL_COMMITTED

    def data_set(self) -> Dataset:
        """Event Information."""
        information = Dataset()
        information.add(_as_it_is("TransactionUID", self.transaction_uid))
        if self.committed:
            information.ReferencedSOPSequence = Items([_item(reference) for reference in self.committed])
        if self.failed:
            information.FailedSOPSequence = Items([_item(reference, why) for reference, why in self.failed.items()])
        return information


def request_data_set(request: Request) -> Dataset:
    """Action Information."""
    information = Dataset()
    information.add(_as_it_is("TransactionUID", request.transaction_uid))
    information.ReferencedSOPSequence = Items([_item(reference) for reference in request.references])
    return information


def read_request(data: bytes | bytearray, transfer_syntax_uid: str, limits: Limits) -> Request:
    """Action Information as encoded by a peer.

    Raises
    ------
    MessageRefused
        Damaged, incomplete, or beyond the bounds.
    """
    information = _index(data, transfer_syntax_uid, limits)
    references = tuple(_references(information, "ReferencedSOPSequence", limits))
    if not references:
        raise MessageRefused(INVALID_ARGUMENT, "no Referenced SOP Sequence")
    return Request(transaction_uid=_uid(information, "TransactionUID"), references=tuple(dict.fromkeys(references)))


def read_report(data: bytes | bytearray, transfer_syntax_uid: str, limits: Limits) -> Report:
    """Event Information as encoded by a destination. Raises as `read_request`.

    Objects that it names in both sequences count as failed.
    """
    information = _index(data, transfer_syntax_uid, limits)
    failed = {}
    for item in _items(information, "FailedSOPSequence", limits):
        reason = _get(item, "FailureReason")
        failed[_reference(item)] = reason if isinstance(reason, int) else int(Failure.PROCESSING)
    committed = tuple(
        reference for reference in _references(information, "ReferencedSOPSequence", limits) if reference not in failed
    )
    return Report(transaction_uid=_uid(information, "TransactionUID"), committed=committed, failed=failed)


def verdict(
    references: Sequence[SopReference],
    known: Mapping[str, Sequence[StoredInstance]],
    is_kept: Callable[[StoredInstance], bool],
) -> dict[SopReference, Failure | None]:
    """Which of the objects we commit to (None), and why not to the others.

    We cannot know which of several contents that came under one SOP Instance UID is meant, so all must be kept.

    Parameters
    ----------
    known
        The rows of each SOP Instance UID.
    is_kept
        Whether the bytes of a row are in the object folder, whole.
    """
    return {
        reference: _failure(reference, known.get(reference.sop_instance_uid, ()), is_kept) for reference in references
    }


def _failure(
    reference: SopReference, named: Sequence[StoredInstance], is_kept: Callable[[StoredInstance], bool]
) -> Failure | None:
    if not named:
        return Failure.NO_SUCH_INSTANCE
    same = [stored for stored in named if stored.instance.sop_class_uid == reference.sop_class_uid]
    if not same:
        return Failure.CLASS_CONFLICT
    if any(stored.purged_at is not None or not is_kept(stored) for stored in same):
        return Failure.NO_SUCH_INSTANCE
    if not all(stored.instance.disposition in COMMITTED for stored in same):
        return Failure.PROCESSING
    return None


def _index(data: bytes | bytearray, transfer_syntax_uid: str, limits: Limits) -> HeaderIndex:
    bounds = Bounds(
        depth=DEPTH,
        elements=max(1000, ELEMENTS_A_REFERENCE * limits.commitment_references),
        value_bytes=limits.header_value_bytes,
    )
    try:
        return read_index(data, transfer_syntax_uid, bounds)
    except (HeaderUnreadable, BeyondBuffer) as error:
        raise MessageRefused(INVALID_ARGUMENT, str(error)) from None


def _items(information: HeaderIndex, keyword: str, limits: Limits) -> list[HeaderIndex]:
    items = _get(information, keyword)
    if items is None:
        return []
    if not isinstance(items, list) or not all(isinstance(item, HeaderIndex) for item in items):
        raise MessageRefused(INVALID_ARGUMENT, f"{keyword} is no sequence")
    if len(items) > limits.commitment_references:
        raise MessageRefused(RESOURCE_LIMITATION, "more objects than limits.commitment_references")
    return items


def _references(information: HeaderIndex, keyword: str, limits: Limits) -> list[SopReference]:
    return [_reference(item) for item in _items(information, keyword, limits)]


def _reference(item: HeaderIndex) -> SopReference:
    return SopReference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _uid(information: HeaderIndex, keyword: str) -> str:
    value = _get(information, keyword)
    if not isinstance(value, str) or not _UID.fullmatch(value.strip(" \0")):
        raise MessageRefused(INVALID_ARGUMENT, f"no usable {keyword}")
    return value.strip(" \0")


def _get(information: HeaderIndex, keyword: str) -> object:
    try:
        return information.get(keyword)
    except HeaderUnreadable as error:
        raise MessageRefused(INVALID_ARGUMENT, str(error)) from None
    except PARSER_FAULTS:
        raise MessageRefused(INVALID_ARGUMENT, f"{keyword} contradicts its value representation") from None


def _item(reference: SopReference, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.add(_as_it_is("ReferencedSOPClassUID", reference.sop_class_uid))
    item.add(_as_it_is("ReferencedSOPInstanceUID", reference.sop_instance_uid))
    if failure is not None:
        item.FailureReason = int(failure)
    return item


def _as_it_is(keyword: str, uid: str) -> DataElement:
    """A UID as the peer wrote it: some write components with leading zeros, of which pydicom would complain."""
    return DataElement(keyword, "UI", uid, validation_mode=IGNORE)
