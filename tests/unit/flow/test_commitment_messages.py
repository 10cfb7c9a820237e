"""Storage commitment's messages are read within bounds, and we commit to what is kept and to nothing else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from pacs_node.flow.commitment import (
    Failure,
    MessageRefused,
    Report,
    Request,
    read_report,
    read_request,
    request_data_set,
    verdict,
)
from pacs_node.settings import Limits
from storage.records import Disposition, SopReference, StoredInstance
from tests.unit.storage.storage_examples import instance

LIMITS = Limits(commitment_references=20)
SYNTAXES = st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian])
UIDS = st.from_regex(r"[12]\.[0-9]{1,30}(\.[0-9]{1,10}){0,2}", fullmatch=True)  # leading zeros occur
REFERENCES = st.lists(st.builds(SopReference, UIDS, UIDS), max_size=20, unique=True)


def bytes_of(information: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    data = encode(information, is_implicit_vr=syntax == ImplicitVRLittleEndian, is_little_endian=True)
    assert data is not None
    return data


def wrong(**elements: object) -> bytes:
    """A request with elements replaced; None takes one away."""
    information = request_data_set(Request(transaction_uid="2.25.1", references=(SopReference("1.2", "1.3"),)))
    for keyword, value in elements.items():
        if value is None:
            delattr(information, keyword)
        else:
            vr = "SQ" if isinstance(value, Sequence) else "UI"
            information.add(DataElement(keyword, vr, value, validation_mode=IGNORE))
    return bytes_of(information)


@given(transaction=UIDS, references=REFERENCES.filter(bool), syntax=SYNTAXES)
def test_a_request_is_read_as_it_was_written(transaction: str, references: list[SopReference], syntax: str) -> None:
    request = Request(transaction_uid=transaction, references=tuple(references))
    assert read_request(bytes_of(request_data_set(request), syntax), syntax, LIMITS) == request


@given(transaction=UIDS, references=REFERENCES, failing=st.integers(0, 20), syntax=SYNTAXES)
def test_a_report_is_read_as_it_was_written(
    transaction: str, references: list[SopReference], failing: int, syntax: str
) -> None:
    report = Report(
        transaction_uid=transaction,
        committed=tuple(references[failing:]),
        failed=dict.fromkeys(references[:failing], 0x0112),
    )
    assert report.event_type == (2 if references[:failing] else 1)
    assert read_report(bytes_of(report.data_set(), syntax), syntax, LIMITS) == report


@given(data=st.binary(max_size=300), syntax=SYNTAXES)
def test_bytes_that_are_no_message_are_refused_and_nothing_else(data: bytes, syntax: str) -> None:
    for read in (read_request, read_report):
        with pytest.raises(MessageRefused) as caught:
            read(data, syntax, LIMITS)
        assert caught.value.status in {0x0115, 0x0213}


@given(at=st.integers(0, 80), value=st.integers(0, 255))
def test_a_request_with_a_changed_byte_is_read_or_refused(at: int, value: int) -> None:
    data = bytearray(wrong())
    data[at % len(data)] = value
    with suppress(MessageRefused):
        assert read_request(data, ExplicitVRLittleEndian, LIMITS).references


def nested(levels: int) -> Dataset:
    item = Dataset()
    for _ in range(levels):
        outer = Dataset()
        outer.ReferencedSOPSequence = Sequence([item])
        item = outer
    item.TransactionUID = "2.25.1"
    return item


@pytest.mark.parametrize(
    "data",
    [
        wrong(TransactionUID=None),
        wrong(TransactionUID=""),
        wrong(TransactionUID="2.25.1\\2.25.2"),
        wrong(TransactionUID="../etc"),
        wrong(TransactionUID="1" * 65),
        wrong(ReferencedSOPSequence=None),
        wrong(ReferencedSOPSequence=Sequence([])),
        wrong(ReferencedSOPSequence=Sequence([Dataset()])),
        wrong()[:-4],
        bytes_of(nested(3)),
        bytes_of(nested(60)),
    ],
)
def test_a_request_that_lacks_something_is_an_invalid_argument(data: bytes) -> None:
    with pytest.raises(MessageRefused) as caught:
        read_request(data, ExplicitVRLittleEndian, LIMITS)
    assert caught.value.status == 0x0115


def test_an_object_that_is_both_committed_and_failed_failed() -> None:
    both = SopReference("1.2", "1.3")
    data = bytes_of(Report(transaction_uid="2.25.1", committed=(both,), failed={both: 0x0110}).data_set())
    assert read_report(data, ExplicitVRLittleEndian, LIMITS).committed == ()


CR = "1.2.840.10008.5.1.4.1.1.1"


def kept(**changes: object) -> StoredInstance:
    purged_at = changes.pop("purged_at", None)
    made = replace(instance("1.3"), **changes)  # type: ignore[arg-type]
    return StoredInstance(instance_id=1, instance=made, purged_at=purged_at)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "failure"),
    [
        ([kept()], None),
        ([kept(disposition=Disposition.IGNORED)], None),
        ([kept(disposition=Disposition.HELD)], None),
        ([kept(disposition=Disposition.REFUSED)], Failure.PROCESSING),
        ([kept(purged_at=datetime(2026, 1, 1, tzinfo=UTC))], Failure.NO_SUCH_INSTANCE),
        ([kept(sha256="gone")], Failure.NO_SUCH_INSTANCE),
        ([kept(sop_class_uid="1.2.840.10008.5.1.4.1.1.7")], Failure.CLASS_CONFLICT),
        ([kept(), kept(sop_class_uid="1.2.840.10008.5.1.4.1.1.7")], None),
        ([kept(), kept(sha256="gone")], Failure.NO_SUCH_INSTANCE),
        ([], Failure.NO_SUCH_INSTANCE),
    ],
)
def test_we_commit_to_what_is_kept(rows: list[StoredInstance], failure: Failure | None) -> None:
    asked = SopReference(CR, "1.3")
    judged = verdict([asked], {"1.3": rows} if rows else {}, lambda stored: stored.instance.sha256 != "gone")
    assert judged == {asked: failure}
