"""What is kept and answered for each object, good and bad: success means saved, and nothing is overwritten."""

from __future__ import annotations

import errno
import io
import os
import resource
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from pacs_node import log
from pacs_node.flow.folder import files_under, receive_files
from pacs_node.flow.part10 import (
    WAVEFORM_SEQUENCE,
    DataSetBytes,
    HeaderUnreadable,
    from_part10,
    read_header,
    to_part10,
)
from pacs_node.flow.receive import (
    CANNOT_UNDERSTAND,
    DATA_SET_MISMATCH,
    OUT_OF_RESOURCES,
    SUCCESS,
    Incoming,
    Receipt,
)
from pacs_node.flow.reception import HEAD_BYTES
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY, ENCAPSULATED_PDF, SECONDARY_CAPTURE
from storage.records import Disposition, Instance, Kind, NewReport, ReportKind
from tests.unit.flow.conftest import Node
from tests.unit.flow.headers import NOON, at, encoded, header, identified, radiograph, waveform
from tests.unit.flow.test_index import item, replaced


def receive(node: Node, parts: DataSetBytes, *, ecg_documents: bool = False) -> Receipt:
    return node.receiver.receive(Incoming(parts=parts, calling_ae="MODALITY", ecg_documents=ecg_documents))


def film(uid: str = "1.1", **elements: object) -> DataSetBytes:
    return encoded(identified(radiograph(), uid, **{**at(NOON), **elements}))


def raw(data: bytes, *, uid: str = "1.1", syntax: str = ExplicitVRLittleEndian) -> DataSetBytes:
    return DataSetBytes(sop_class_uid=COMPUTED_RADIOGRAPHY, sop_instance_uid=uid, transfer_syntax_uid=syntax, data=data)


def the_instance(node: Node) -> Instance:
    (stored,) = node.store.instances()
    return stored.instance


def object_files(node: Node) -> list[Path]:
    return [path for path in node.objects.root.rglob("*") if path.is_file() and path.name not in {"lock", "STORE_ID"}]


class TestTheSameInstance:
    def test_twice_is_one_row_and_one_object(self, node: Node) -> None:
        first, second = receive(node, film()), receive(node, film())
        assert (first.status, second.status) == (SUCCESS, SUCCESS)
        assert (first.duplicate, second.duplicate) == (False, True)
        assert len(node.store.instances()) == 1
        assert len(object_files(node)) == 1

    def test_with_other_bytes_is_held_beside_the_first(self, node: Node) -> None:
        receive(node, film())
        second = receive(node, film(InstitutionName="elsewhere"))
        assert (second.status, second.disposition) == (SUCCESS, Disposition.HELD)
        assert second.reason.startswith("same_uid_other_bytes:")
        kept = [stored.instance for stored in node.store.instances()]
        assert [instance.disposition for instance in kept] == [Disposition.ACCEPTED, Disposition.HELD]
        assert b"elsewhere" not in node.objects.get(kept[0].sha256)
        assert b"elsewhere" in node.objects.get(kept[1].sha256)
        assert len(node.store.matches()) == 1

    def test_of_another_patient_with_a_known_uid_is_held_too(self, node: Node) -> None:
        receive(node, film())
        assert receive(node, film(PatientID="P2")).disposition is Disposition.HELD

    def test_from_another_sender_is_the_same(self, node: Node) -> None:
        receive(node, film())
        again = node.receiver.receive(Incoming(parts=film(), calling_ae="PACS"))
        assert again.duplicate
        assert the_instance(node).calling_ae == "MODALITY"

    def test_corrected_after_a_blank_patient_id_takes_part(self, node: Node) -> None:
        assert receive(node, film(PatientID="")).disposition is Disposition.HELD
        assert receive(node, film()).disposition is Disposition.ACCEPTED


class TestWhatPairingNeeds:
    @pytest.mark.parametrize(
        ("elements", "code"),
        [
            ({"PatientID": ""}, "patient_id_blank"),
            ({"PatientID": "   "}, "patient_id_blank"),
            ({"PatientID": None}, "patient_id_blank"),
            ({"AcquisitionDateTime": None}, "date_missing"),
            ({"AcquisitionDateTime": "yesterday"}, "date_missing"),
            ({"StudyInstanceUID": None}, "uid_missing"),
            ({"SeriesInstanceUID": None}, "uid_missing"),
        ],
    )
    def test_what_lacks_it_is_kept_and_held_with_the_reason(
        self, node: Node, elements: dict[str, object], code: str
    ) -> None:
        receipt = receive(node, film(**elements))
        assert (receipt.status, receipt.disposition) == (SUCCESS, Disposition.HELD)
        assert receipt.reason.startswith(f"{code}:")
        assert node.store.matches() == ()
        assert node.objects.get(the_instance(node).sha256)

    @pytest.mark.parametrize(
        ("keyword", "element"),
        [("PatientID", 0x20), ("IssuerOfPatientID", 0x21), ("PatientBirthDate", 0x30), ("PatientSex", 0x40)],
    )
    @pytest.mark.parametrize(
        "instead",
        [item(undefined=True), item(undefined=False), b"OB\0\0\x02\0\0\0P1", b"US\x02\0\x01\0", b"XX\x02\0P1"],
        ids=["a sequence", "a short sequence", "bytes", "a number", "of no known form"],
    )
    def test_what_tells_people_apart_but_cannot_be_read_pairs_nobody(
        self, make_node: Callable[..., Node], keyword: str, element: int, instead: bytes
    ) -> None:
        node = make_node(pairing={"default_issuer": "OURS"})
        for number, made in enumerate((radiograph(), waveform(), radiograph(), waveform())):
            good = encoded(identified(made, f"1.{number}", IssuerOfPatientID="THEIRS", **at(NOON)))
            parts = DataSetBytes(**{**vars(good), "data": replaced(good.data, element, instead)})
            receipt = receive(node, parts)
            assert (receipt.status, receipt.disposition) == (SUCCESS, Disposition.HELD)
            assert receipt.reason.startswith(f"patient_unreadable: {keyword} ")
        assert node.store.matches() == ()
        for row in node.store.instances():
            patient = row.instance.patient
            assert patient.patient_id in {"", "1", "P1"}
            assert patient.issuer in {"", "1", "THEIRS"}

    def test_what_would_be_ignored_anyway_is_not_held_for_it(self, node: Node) -> None:
        assert receive(node, film(PatientID="", ViewPosition="AP")).disposition is Disposition.IGNORED

    @pytest.mark.parametrize(
        ("birth_date", "sex", "expected"),
        [
            ("19500102", "F", ("19500102", "F")),
            ("1950.01.02", "f", ("19500102", "F")),
            ("1950/01/02", " M ", ("19500102", "M")),
            ("00000000", "U", ("", "")),
            ("1950", "female", ("", "")),
        ],
    )
    def test_birth_date_and_sex_count_as_said_in_the_standards_form(
        self, node: Node, birth_date: str, sex: str, expected: tuple[str, str]
    ) -> None:
        receive(node, film(PatientBirthDate=birth_date, PatientSex=sex, SpecificCharacterSet="ISO_IR 192"))
        patient = the_instance(node).patient
        assert (patient.birth_date, patient.sex) == expected

    def test_a_japanese_name_is_kept_as_it_reads(self, node: Node) -> None:
        receive(
            node,
            film(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"),
        )
        assert the_instance(node).patient.name == "Yamada^Tarou=山田^太郎=やまだ^たろう"


class TestBadObjects:
    """Each is kept, so that a person can look, and the sender is told that it was not understood."""

    def check(self, node: Node, parts: DataSetBytes) -> Receipt:
        receipt = receive(node, parts)
        assert (receipt.status, receipt.disposition) == (CANNOT_UNDERSTAND, Disposition.HELD)
        assert receipt.reason.startswith("unreadable:")
        assert 0 < len(receipt.comment) <= 64
        stored = the_instance(node)
        assert stored.kind is Kind.OTHER
        assert node.objects.get(stored.sha256).endswith(parts.data)
        assert node.store.matches() == ()
        return receipt

    def test_sixteen_kilobytes_of_garbage(self, node: Node) -> None:
        self.check(node, raw(bytes((7 * index * index + 13 * index) % 251 for index in range(16384))))

    @pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
    def test_sixteen_kilobytes_of_one_byte(self, node: Node, fill: bytes) -> None:
        receipt = receive(node, raw(fill * 16384))
        assert receipt.status != SUCCESS
        assert the_instance(node).disposition is Disposition.HELD

    def test_nothing_at_all(self, node: Node) -> None:
        self.check(node, raw(b""))

    def test_a_header_cut_off_in_the_middle(self, node: Node) -> None:
        receipt = receive(node, raw(film().data[:40]))
        assert receipt.status in {CANNOT_UNDERSTAND, DATA_SET_MISMATCH}
        assert the_instance(node).disposition is Disposition.HELD

    def test_a_deflate_bomb(self, node: Node) -> None:
        """A quarter of a megabyte that would fill 270."""
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = b"".join(deflater.compress(bytes(2**20)) for _ in range(270)) + deflater.flush()
        assert len(data) < 2**19
        receipt = self.check(node, raw(data, syntax=DeflatedExplicitVRLittleEndian))
        assert "inflates beyond" in receipt.reason

    def test_one_byte_may_pad_a_deflated_data_set(self, node: Node) -> None:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = deflater.compress(film().data) + deflater.flush() + b"\0"
        assert receive(node, raw(data, syntax=DeflatedExplicitVRLittleEndian)).disposition is Disposition.ACCEPTED

    @pytest.mark.parametrize("more", [1, 2**16, 2**20])
    def test_what_follows_a_deflated_data_set_is_damage(self, node: Node, more: int) -> None:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        data = deflater.compress(film().data) + deflater.flush() + bytes(1 + more)
        assert "more follows" in self.check(node, raw(data, syntax=DeflatedExplicitVRLittleEndian)).reason

    def test_a_long_deflated_header_is_read_to_its_end(self, node: Node) -> None:
        deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        long = film()
        filler = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 2 * HEAD_BYTES) + bytes(2 * HEAD_BYTES)
        at_patient = long.data.index(struct.pack("<HH", 0x0010, 0x0010))
        data = deflater.compress(long.data[:at_patient] + filler + long.data[at_patient:]) + deflater.flush()
        assert receive(node, raw(data, syntax=DeflatedExplicitVRLittleEndian)).disposition is Disposition.ACCEPTED
        assert the_instance(node).patient.patient_id == "P1"

    def test_a_damaged_deflated_data_set(self, node: Node) -> None:
        self.check(node, raw(b"\x07" * 500, syntax=DeflatedExplicitVRLittleEndian))

    @pytest.mark.parametrize("defined_length", [True, False])
    def test_three_hundred_nested_sequences(self, node: Node, defined_length: bool) -> None:
        receipt = receive(node, raw(nested_sequences(300, defined_length=defined_length)))
        assert receipt.status in {CANNOT_UNDERSTAND, DATA_SET_MISMATCH}
        assert the_instance(node).disposition is Disposition.HELD

    def test_three_hundred_nested_sequences_where_the_rules_look(self, node: Node) -> None:
        """Sequences of a defined length are parsed when somebody asks, after the header was read."""
        good = film(BodyPartExamined=None, StudyDescription="chest")
        tail = nested_sequences(300, tag=(0x0054, 0x0220), defined_length=True)
        receipt = receive(node, raw(good.data + tail))
        assert receipt.status == SUCCESS
        assert the_instance(node).kind is Kind.RADIOGRAPH

    @pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SOPClassUID"])
    def test_uids_that_differ_from_the_commands(self, node: Node, keyword: str) -> None:
        parts = film(**{keyword: "1.2.3.4"})
        command = raw(parts.data)
        receipt = receive(node, command)
        assert (receipt.status, receipt.disposition) == (DATA_SET_MISMATCH, Disposition.HELD)
        assert receipt.reason.startswith("uid_mismatch:")

    def test_an_unknown_sop_class_is_kept_and_ignored(self, node: Node) -> None:
        receipt = receive(node, encoded(identified(header("1.2.840.10008.5.1.4.1.1.2"), "1.1")))
        assert (receipt.status, receipt.disposition) == (SUCCESS, Disposition.IGNORED)
        assert receipt.reason.startswith("sop_class:")

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=12))
    def test_changed_bytes_anywhere_never_stop_the_receiver(self, node: Node, changes: list[tuple[int, int]]) -> None:
        good = encoded(identified(waveform(seconds=5), "1.1", **at(NOON)))
        data = bytearray(good.data)
        for position, value in changes:
            data[position % len(data)] = value
        receipt = receive(node, DataSetBytes(**{**vars(good), "data": bytes(data)}))
        assert receipt.status in {SUCCESS, CANNOT_UNDERSTAND, DATA_SET_MISMATCH}


def nested_sequences(depth: int, *, tag: tuple[int, int] = (0x0008, 0x1140), defined_length: bool) -> bytes:
    """An explicit little endian data set of one sequence in another, `depth` times."""
    inner = b""
    for _ in range(depth):
        if defined_length:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = struct.pack("<HH2sHI", *tag, b"SQ", 0, len(item)) + item
        else:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            inner = struct.pack("<HH2sHI", *tag, b"SQ", 0, 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return inner


class TestAFullDisk:
    def test_answers_out_of_resources_and_keeps_nothing(self, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        receiver, parts = node.receiver, film()
        with monkeypatch.context() as disk:
            disk.setattr(os, "fsync", full)
            receipt = receiver.receive(Incoming(parts=parts, calling_ae="MODALITY"))
        self.check_nothing_is_kept(node, receipt)
        assert receive(node, parts).status == SUCCESS

    def test_in_the_middle_of_an_object_keeps_no_part_of_it(self, node: Node) -> None:
        """The kernel's file-size limit stops a write half-way, as a full volume and a quota do."""
        document = identified(header(ENCAPSULATED_PDF, Modality="ECG"), "1.1", **at(NOON))
        document.EncapsulatedDocument = bytes(8 * 2**20)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        parts = encoded(document)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 * 2**20, hard))
        try:
            receipt = receive(node, parts)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        self.check_nothing_is_kept(node, receipt)
        assert receive(node, parts).status == SUCCESS

    @staticmethod
    def check_nothing_is_kept(node: Node, receipt: Receipt) -> None:
        assert (receipt.status, receipt.disposition) == (OUT_OF_RESOURCES, None)
        assert node.store.instances() == ()
        assert object_files(node) == []

    def test_nearly_full_is_full(self, make_node: Callable[..., Node]) -> None:
        node = make_node(limits={"free_disk_bytes": 2**60})
        assert receive(node, film()).status == OUT_OF_RESOURCES
        assert node.store.instances() == ()

    def test_an_object_beyond_the_limit_is_refused_whole(self, make_node: Callable[..., Node]) -> None:
        node = make_node(limits={"object_bytes": 1024})
        receipt = receive(node, raw(bytes(1025)))
        assert (receipt.status, receipt.comment[:17]) == (OUT_OF_RESOURCES, "larger than limit")
        assert object_files(node) == []


class TestOwnResults:
    @pytest.mark.parametrize("sop_class", [SECONDARY_CAPTURE, ENCAPSULATED_PDF])
    def test_by_their_maker_they_are_ignored(self, node: Node, sop_class: str) -> None:
        own = identified(header(sop_class, Manufacturer="pulmolink", Modality="ECG"), "1.1", **at(NOON))
        receipt = receive(node, encoded(own), ecg_documents=True)
        assert (receipt.status, receipt.kind, receipt.disposition) == (SUCCESS, Kind.OWN, Disposition.IGNORED)

    def test_by_their_uid_they_are_ignored_even_if_an_archive_changed_the_maker(self, node: Node) -> None:
        receive(node, film("1.1"))
        receive(node, encoded(identified(waveform(), "1.2", **at(NOON))))
        match = node.store.claim_match(list(node.store.count_matches()), "w", 60, node.clock())
        assert match is not None
        assert node.store.save_prediction(match.match_id, "w", "{}", "d", node.clock())
        match = node.store.claim_match(list(node.store.count_matches()), "w", 60, node.clock())
        assert match is not None
        overlay = NewReport(
            kind=ReportKind.OVERLAY,
            sop_class_uid=SECONDARY_CAPTURE,
            sop_instance_uid="1.3",
            series_instance_uid="1.4",
            study_instance_uid="1.5",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            sha256=node.objects.put(b"x").sha256,
            size_bytes=1,
        )
        assert node.store.save_reports(match.match_id, "w", [overlay], {}, node.clock())
        came_back = identified(radiograph(SOPClassUID=SECONDARY_CAPTURE), "1.3", **at(NOON))
        receipt = receive(node, encoded(came_back))
        assert (receipt.kind, receipt.disposition) == (Kind.OWN, Disposition.IGNORED)


CARRIED = Path(str(get_testdata_file("waveform_ecg.dcm", download=False))).parent
REAL_FILES = sorted(path for path in CARRIED.rglob("*.dcm") if path.stat().st_size < 2**20)
"""The test files that pydicom carries in its package; no network is asked."""


def has_meta(path: Path) -> bool:
    """Whether pydicom finds a complete file meta information in a file."""
    try:
        meta = read_file_meta_info(path)
    except InvalidDicomError:
        return False
    wanted = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    return all(meta.get(keyword) for keyword in wanted)


WITH_META = [path for path in REAL_FILES if has_meta(path)]


class TestBytes:
    @pytest.mark.parametrize("path", WITH_META, ids=lambda path: path.name)
    def test_every_real_file_keeps_its_data_set_byte_for_byte_behind_a_blank_preamble(self, path: str) -> None:
        content = path.read_bytes()
        parts = from_part10(content)
        stored = to_part10(parts)
        assert stored[:132] == bytes(128) + b"DICM"
        assert stored.endswith(parts.data)
        assert content.endswith(parts.data)
        assert from_part10(stored) == parts
        assert to_part10(parts) == stored
        # A library's version in the file would make a resend other bytes after an upgrade.
        assert b"PYDICOM" not in stored[: len(stored) - len(parts.data)]

    @pytest.mark.parametrize("path", sorted(set(REAL_FILES) - set(WITH_META)), ids=lambda path: path.name)
    def test_a_file_without_meta_information_is_refused_in_a_sentence(self, path: Path) -> None:
        with pytest.raises(HeaderUnreadable, match=r"^(no|file meta)"):
            from_part10(path.read_bytes())

    def test_every_transfer_syntax_of_the_real_files_reads_alike_before_and_after(self) -> None:
        seen: set[str] = set()
        for path in REAL_FILES:
            content = path.read_bytes()
            try:
                parts = from_part10(content)
                if parts.transfer_syntax_uid in seen:
                    continue
                before = dcmread(io.BytesIO(content), stop_before_pixels=True)
                after = read_header(to_part10(parts))
                for tag in [tag for tag in before.keys() if tag >= WAVEFORM_SEQUENCE]:  # noqa: SIM118 - not a dict
                    del before[tag]
                assert list(before.keys()) == list(after.keys())
                assert before == after
            except (HeaderUnreadable, AttributeError):
                continue
            seen.add(parts.transfer_syntax_uid)
        assert len(seen) >= 8  # implicit, explicit, big endian, deflated, RLE, JPEG, JPEG-LS, JPEG 2000

    def test_a_preamble_of_another_file_format_does_not_come_along(self) -> None:
        """A preamble may carry a program: a DICOM file that is a PE or TIFF file too (CVE-2019-11687)."""
        content = b"MZ" + b"\x90" * 126 + to_part10(film())[128:]
        assert to_part10(from_part10(content))[:128] == bytes(128)


class TestAFolder:
    def test_what_is_no_dicom_is_named_and_the_rest_goes_on(self, node: Node, tmp_path: Path) -> None:
        folder = tmp_path / "in"
        (folder / "deep").mkdir(parents=True)
        (folder / "a.txt").write_text("hello")
        (folder / "b.dcm").write_bytes(to_part10(film()))
        (folder / "deep" / "c.dcm").write_bytes(to_part10(film("1.2")))
        (folder / "d.dcm").symlink_to(folder / "b.dcm")
        results = {result.path.name: result for result in receive_files(files_under(folder), node.receiver, 2**20)}
        assert {name: result.kept for name, result in results.items()} == {
            "a.txt": False,
            "b.dcm": True,
            "c.dcm": True,
        }
        assert results["a.txt"].reason == "not a DICOM file"
        assert {stored.instance.calling_ae for stored in node.store.instances()} == {"import"}

    def test_every_real_file_of_pydicom_is_taken_or_named(self, node: Node) -> None:
        """Damaged ones, empty ones and files without meta information among them."""
        paths = REAL_FILES
        results = list(receive_files(paths, node.receiver, 2**30))
        assert len(results) == len(paths)
        assert all(result.kept or result.reason for result in results)
        kept = [result for result in results if result.kept]
        assert len(kept) > len(paths) / 2


class TestLogs:
    @pytest.mark.parametrize("form", ["json", "console"])
    def test_nothing_of_the_patient_is_written(self, node: Node, capfd: pytest.CaptureFixture[str], form: str) -> None:
        configured = structlog.get_config()
        try:
            log.configure(node.settings.log.model_copy(update={"format": form, "level": "debug"}))
            who = {
                "PatientID": "SECRET-4711",
                "PatientName": "SECRETNAME^GIVEN",
                "PatientBirthDate": "19370917",
                "AccessionNumber": "SECRETACC",
                "IssuerOfPatientID": "SECRETISSUER",
                "StudyDescription": "SECRETSTUDY chest",
            }
            with warnings.catch_warnings():
                warnings.simplefilter("default")  # as outside of pytest: printed, with the value
                receive(node, film("1.1", **who))
                receive(node, film("1.1", **{**who, "InstitutionName": "SECRETPLACE"}))
                receive(node, film("1.2", **{**who, "PatientBirthDate": "SECRETDATE", "PatientSex": "SECRETSEX"}))
                receive(node, film("1.3", **{**who, "ViewPosition": "SECRETVIEW"}))
                receive(node, encoded(identified(waveform(), "1.4", **{**who, **at(NOON), "PatientSex": "M"})))
                receive(node, raw(b"SECRET" * 3000, uid="1.5"))
        finally:
            structlog.configure(**configured)
        written = capfd.readouterr()
        assert "received" in written.err
        for text in (written.out, written.err):
            assert "SECRET" not in text.upper()
            assert "1937" not in text

    def test_a_key_that_could_name_a_patient_is_dropped(self) -> None:
        event = {"event": "x", "patient_id": "1", "accession_number": "2", "match_id": 3}
        assert log.drop_identity(None, "info", event) == {
            "event": "x",
            "patient_id": "(not logged)",
            "accession_number": "(not logged)",
            "match_id": 3,
        }
