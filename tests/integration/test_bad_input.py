"""Bad input at a real node: a clear reason, nothing lost, and the service goes on (issue 2, must show 6).

Every case is a phantom patient of its own whose radiograph or ECG is spoiled. All are sent to one `pulmolink serve`;
the tests then ask the commands what became of each.
"""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pynetdicom import AE, evt
from pynetdicom.presentation import build_context
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from inference.phantoms import PhantomPatient, Scenario, make_patient
from pacs_node.dicom.archive import Archive
from pacs_node.dicom.stack import quiet, send_at_once
from pacs_node.flow.part10 import DataSetBytes, from_part10, to_part10
from pacs_node.flow.sop_classes import TWELVE_LEAD_ECG
from storage.objects import ObjectStore
from tests.integration.rig import Node, eventually, free_port, listening

SEED = 11
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
SUCCESS, CANNOT_UNDERSTAND, OUT_OF_RESOURCES = 0x0000, 0xC000, 0xA700
GARBAGE = np.random.default_rng(SEED).bytes(16_384)

Spoil = Callable[[bytes], bytes]
"""A Part 10 file in, a spoiled one out."""


class ContextRefused(Exception):
    """The node took the association but not this SOP Class."""


def send(port: int, content: bytes, folder: Path) -> Dataset:
    """C-STORE a Part 10 file, its data set byte for byte; the answer with Status and, if given, ErrorComment."""
    quiet()
    parts = from_part10(content)
    file = folder / "sent.dcm"
    file.write_bytes(content)
    association = AE(ae_title="MODALITY").associate(
        "127.0.0.1",
        port,
        contexts=[build_context(parts.sop_class_uid, parts.transfer_syntax_uid)],
        evt_handlers=[(evt.EVT_CONN_OPEN, send_at_once)],
    )
    if not association.is_established:
        raise ContextRefused
    try:
        return association.send_c_store(file)
    finally:
        association.release()


@functools.cache
def base(scenario: Scenario = Scenario.PAIRED_WAVEFORM) -> PhantomPatient:
    """One phantom patient, to be copied."""
    return make_patient(0, SEED, scenario)


def copied(content: bytes, number: int) -> bytes:
    """An object of `base` as that of another patient: every UID and the patient ID replaced by others as long."""
    dataset = dcmread(io.BytesIO(content), stop_before_pixels=True)
    for uid in {dataset.SOPInstanceUID, dataset.SeriesInstanceUID, dataset.StudyInstanceUID}:
        content = content.replace(uid.encode(), f"{uid[:-3]}{number:03d}".encode())
    return content.replace(dataset.PatientID.encode(), patient_id(number).encode())


def patient_id(number: int) -> str:
    """The ID of case `number`; as long as the phantoms'."""
    return f"{base().truth.patient_id[:-3]}{number:03d}"


def edited(change: Callable[[FileDataset], None]) -> Spoil:
    """Spoil by changing elements."""

    def spoil(content: bytes) -> bytes:
        dataset = dcmread(io.BytesIO(content))
        change(dataset)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=False)
        return buffer.getvalue()

    return spoil


def cut(from_end: int) -> Spoil:
    """Spoil by losing the last bytes, as a broken transfer or a full disk at the modality does."""
    return lambda content: content[:-from_end]


def garbage(content: bytes) -> bytes:
    """The UIDs of an ECG, and 16 kB of noise for its data set."""
    parts = from_part10(content)
    return to_part10(
        DataSetBytes(
            sop_class_uid=parts.sop_class_uid,
            sop_instance_uid=parts.sop_instance_uid,
            transfer_syntax_uid=parts.transfer_syntax_uid,
            data=GARBAGE,
        )
    )


def without(*keywords: str) -> Spoil:
    """Spoil by removing elements."""

    def change(dataset: FileDataset) -> None:
        for keyword in keywords:
            if keyword in dataset:
                delattr(dataset, keyword)

    return edited(change)


def waveform(change: Callable[[Dataset, np.ndarray[Any, Any]], np.ndarray[Any, Any]]) -> Spoil:
    """Spoil the samples [samples, channels] of the only multiplex group."""

    def spoil(dataset: FileDataset) -> None:
        group = dataset.WaveformSequence[0]
        samples = np.frombuffer(group.WaveformData, "<i2").reshape(-1, group.NumberOfWaveformChannels)
        group.WaveformData = np.ascontiguousarray(change(group, samples.copy())).tobytes()

    return edited(spoil)


def leads_kept(*kept: int) -> Spoil:
    """Only these channels of the twelve."""

    def change(group: Dataset, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        group.ChannelDefinitionSequence = [group.ChannelDefinitionSequence[index] for index in kept]
        group.NumberOfWaveformChannels = len(kept)
        return samples[:, list(kept)]

    return waveform(change)


def flat_v3(_group: Dataset, samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    samples[:, 8] = 0
    return samples


def pdf(make: Callable[[], bytes]) -> Spoil:
    """Another document in an Encapsulated PDF object."""

    def change(dataset: FileDataset) -> None:
        document = make()
        dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
        dataset.EncapsulatedDocumentLength = len(document)

    return edited(change)


def encrypted_pdf() -> bytes:
    """A page that needs a password to open."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer, encrypt=StandardEncryption("open sesame"))
    canvas.drawString(100, 700, "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6")
    canvas.save()
    return buffer.getvalue()


def blank_pdf() -> bytes:
    """A page with nothing on it."""
    buffer = io.BytesIO()
    canvas = Canvas(buffer)
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


DATES = (
    "AcquisitionDateTime",
    *(f"{which}{what}" for which in ("Acquisition", "Study", "Series", "Content") for what in ("Date", "Time")),
)
EIGHT = (0, 1, 6, 7, 8, 9, 10, 11)  # I, II, V1..V6: the others follow from them
SEVEN = EIGHT[:-1]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A spoiled pair: what is sent, what the sender is told, and what the commands must show."""

    spoil_radiograph: Spoil | None = None
    spoil_ecg: Spoil | None = None
    page: bool = False  # the ECG is a PDF page
    status: int = SUCCESS
    disposition: str  # of the spoiled object
    reason: str  # how its reason begins
    match_state: str | None  # of the radiograph; None: it has no match
    match_reason: str = ""  # how the match's reason begins


def ecg_refused(spoil: Spoil, reason: str, *, page: bool = False) -> Case:
    """An ECG that only the worker finds out about."""
    return Case(
        spoil_ecg=spoil,
        page=page,
        disposition="refused",
        reason=f"{reason}:",
        match_state="HELD",
        match_reason=f"ecg_refused: {reason}:",
    )


def radiograph_refused(spoil: Spoil, reason: str) -> Case:
    """A radiograph that only the worker finds out about."""
    return Case(
        spoil_radiograph=spoil,
        disposition="refused",
        reason=f"{reason}:",
        match_state="HELD",
        match_reason=f"radiograph_refused: {reason}:",
    )


CASES = {
    "truncated in the header": Case(
        spoil_ecg=cut(122_000),
        status=CANNOT_UNDERSTAND,
        disposition="held",
        reason="unreadable:",
        match_state="UNPAIRED",
    ),
    "truncated in the waveform": Case(
        spoil_ecg=cut(60_000),
        status=CANNOT_UNDERSTAND,
        disposition="held",
        reason="unreadable:",
        match_state="UNPAIRED",
    ),
    "16 kB garbage as data set": Case(
        spoil_ecg=garbage, status=CANNOT_UNDERSTAND, disposition="held", reason="unreadable:", match_state="UNPAIRED"
    ),
    "radiograph without pixel data": radiograph_refused(without("PixelData"), "no_pixel_data"),
    "radiograph with truncated pixel data": radiograph_refused(cut(1_000_000), "truncated"),
    "blank patient ID": Case(
        spoil_radiograph=edited(lambda dataset: setattr(dataset, "PatientID", "")),
        disposition="held",
        reason="patient_id_blank:",
        match_state=None,
    ),
    "radiograph without a date": Case(
        spoil_radiograph=without(*DATES), disposition="held", reason="date_missing:", match_state=None
    ),
    "ECG without a date": Case(
        spoil_ecg=without(*DATES), disposition="held", reason="date_missing:", match_state="UNPAIRED"
    ),
    "ECG with seven leads": Case(
        spoil_ecg=leads_kept(*SEVEN), disposition="refused", reason="leads_missing:", match_state="UNPAIRED"
    ),
    "flat lead": ecg_refused(waveform(flat_v3), "flat_lead"),
    "sampling rate 0": Case(
        spoil_ecg=edited(lambda dataset: setattr(dataset.WaveformSequence[0], "SamplingFrequency", "0")),
        disposition="refused",
        reason="bad_sampling:",
        match_state="UNPAIRED",
    ),
    "encrypted PDF": ecg_refused(pdf(encrypted_pdf), "encrypted", page=True),
    "empty PDF": ecg_refused(pdf(lambda: b""), "empty", page=True),
    "blank PDF page": ecg_refused(pdf(blank_pdf), "empty", page=True),
}
EIGHT_LEADS, TWICE, GOOD = (len(CASES) + offset for offset in range(3))
"""Patient numbers of the cases that end well."""


@dataclass
class Aftermath:
    """The node after everything was sent, and what it said."""

    node: Node
    folder: Path
    answers: dict[str, Dataset] = field(default_factory=dict)  # case: answer to the spoiled object
    sent: dict[str, bytes] = field(default_factory=dict)  # case: the spoiled object
    objects: list[dict[str, Any]] = field(default_factory=list)  # `held`, every disposition
    matches: list[dict[str, Any]] = field(default_factory=list)

    def object_of(self, content: bytes) -> dict[str, Any]:
        """The one row of `held` that says where these bytes are."""
        (row,) = [row for row in self.objects if row["sha256"] == address(content)]
        return row

    def match_of(self, number: int) -> dict[str, Any] | None:
        """The match of a patient, if there is one."""
        return next((row for row in self.matches if row["patient_id"] == patient_id(number)), None)


def address(content: bytes) -> str:
    """Where the node keeps an object: the digest of its data set behind the node's own preamble."""
    return sha256(to_part10(from_part10(content))).hexdigest()


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """Send every case to one node, then good pairs; wait until all are settled."""
    folder = tmp_path_factory.mktemp("bad-input")
    archive_port = free_port()
    with (
        Archive(folder / "archive", archive_port, ae_title="ORTHANC"),
        Node(folder / "node", {"archive": archive_port}) as node,
    ):
        after = Aftermath(node=node, folder=folder)
        waveform_pair = [item.part10 for item in base().objects]
        page = base(Scenario.PAIRED_PDF_3X4).objects[1].part10
        for number, (name, case) in enumerate(CASES.items()):
            for content, spoil in (
                (waveform_pair[0], case.spoil_radiograph),
                (page if case.page else waveform_pair[1], case.spoil_ecg),
            ):
                whole = copied(content, number)
                if spoil is None:
                    assert send(node.port, whole, folder).Status == SUCCESS
                else:
                    after.sent[name] = spoil(whole)
                    after.answers[name] = send(node.port, after.sent[name], folder)
        _send_good_pairs(after, waveform_pair)
        expected = {patient_id(number): case.match_state for number, case in enumerate(CASES.values())}
        expected |= dict.fromkeys(map(patient_id, (EIGHT_LEADS, TWICE, GOOD)), "DELIVERED")
        wanted = {patient: state for patient, state in expected.items() if state}

        def settled() -> bool:
            after.matches = node.matches()
            return {row["patient_id"]: row["state"] for row in after.matches} == wanted

        with suppress(AssertionError):  # the test of the case that differs says how
            eventually(settled, 60, "every case is settled")
        dispositions = [f"--disposition={name}" for name in ("held", "refused", "ignored")]
        after.objects = node.json("held", *dispositions)
        yield after


def _send_good_pairs(after: Aftermath, pair: list[bytes]) -> None:
    """Eight leads, a UID that comes twice with other bytes, and a pair without fault, last."""
    for number in (EIGHT_LEADS, TWICE, GOOD):
        for content in pair:
            whole = copied(content, number)
            if number == EIGHT_LEADS and content is pair[1]:
                whole = leads_kept(*EIGHT)(whole)
            assert send(after.node.port, whole, after.folder).Status == SUCCESS
    other = edited(lambda dataset: setattr(dataset, "SeriesDescription", "corrected"))(copied(pair[1], TWICE))
    after.sent["same UID, other bytes"] = other
    after.answers["same UID, other bytes"] = send(after.node.port, other, after.folder)


@pytest.mark.parametrize("name", CASES)
def test_the_sender_is_told_the_truth_and_a_command_lists_the_reason(aftermath: Aftermath, name: str) -> None:
    case, answer = CASES[name], aftermath.answers[name]
    assert answer.Status == case.status
    assert (answer.get("ErrorComment", "") != "") is (case.status != SUCCESS)
    row = aftermath.object_of(aftermath.sent[name])
    assert (row["disposition"], row["reason"][: len(case.reason)]) == (case.disposition, case.reason)
    assert len(row["reason"]) > len(case.reason) + 10, "a sentence follows the code"


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_kept_as_they_came(aftermath: Aftermath, name: str) -> None:
    """Also of what was refused: an engineer asks for it."""
    objects = ObjectStore(aftermath.node.folder / "objects")
    kept = objects.get(address(aftermath.sent[name]))
    assert from_part10(kept).data == from_part10(aftermath.sent[name]).data


@pytest.mark.parametrize("name", CASES)
def test_the_match_of_the_radiograph_says_what_is_missing(aftermath: Aftermath, name: str) -> None:
    case = CASES[name]
    match = aftermath.match_of(list(CASES).index(name))
    if case.match_state is None:
        assert match is None
        return
    assert match is not None
    assert (match["state"], (match["reason"] or "")[: len(case.match_reason)]) == (case.match_state, case.match_reason)
    assert match["mpap_mmhg"] is None
    if case.match_reason:
        shown = aftermath.node.run("show", str(match["match_id"])).stdout
        assert case.match_reason.split(":")[1].strip() in shown


def test_eight_independent_leads_are_enough(aftermath: Aftermath) -> None:
    match = aftermath.match_of(EIGHT_LEADS)
    assert match is not None
    assert (match["state"], match["reason"]) == ("DELIVERED", None)
    assert match["interval_low_mmhg"] < match["mpap_mmhg"] < match["interval_high_mmhg"]


def test_the_same_uid_with_other_bytes_is_held_beside_the_first_and_changes_nothing(aftermath: Aftermath) -> None:
    other = aftermath.sent["same UID, other bytes"]
    assert aftermath.answers["same UID, other bytes"].Status == SUCCESS
    row = aftermath.object_of(other)
    assert (row["disposition"], row["reason"].partition(":")[0]) == ("held", "same_uid_other_bytes")
    match = aftermath.match_of(TWICE)
    assert match is not None
    assert (match["state"], match["revision"]) == ("DELIVERED", 1)
    detail = aftermath.node.json("show", str(match["match_id"]))
    assert detail["ecg"]["sha256"] != row["sha256"]
    objects = ObjectStore(aftermath.node.folder / "objects")
    assert {objects.exists(detail["ecg"]["sha256"]), objects.exists(row["sha256"])} == {True}


def test_an_unknown_sop_class_is_refused_when_the_association_is_made(aftermath: Aftermath) -> None:
    ct = edited(lambda dataset: setattr(dataset, "SOPClassUID", CT_IMAGE))(copied(base().objects[0].part10, 999))
    parts = from_part10(ct)
    ct = to_part10(
        DataSetBytes(
            sop_class_uid=CT_IMAGE,
            sop_instance_uid=parts.sop_instance_uid,
            transfer_syntax_uid=EXPLICIT,
            data=parts.data,
        )
    )
    with pytest.raises(ContextRefused):
        send(aftermath.node.port, ct, aftermath.folder)


def test_a_good_pair_sent_after_everything_else_is_delivered(aftermath: Aftermath) -> None:
    match = aftermath.match_of(GOOD)
    assert match is not None
    assert match["state"] == "DELIVERED"
    deliveries = aftermath.node.json("show", str(match["match_id"]))["deliveries"]
    assert [(entry["kind"], entry["state"]) for entry in deliveries] == [("sr", "DELIVERED"), ("overlay", "DELIVERED")]


def test_no_process_ended_and_the_log_holds_neither_traceback_nor_patient(aftermath: Aftermath) -> None:
    log = aftermath.node.log
    assert "Traceback" not in log
    assert "process_ended" not in log
    assert "stage_failed" not in log
    person = dcmread(io.BytesIO(base().objects[0].part10), stop_before_pixels=True)
    family = str(person.PatientName).partition("^")[0]
    for identity in (family, person.PatientBirthDate, patient_id(0)[:-3], person.AccessionNumber[:-3]):
        assert identity not in log


def test_everything_that_has_a_row_is_whole(aftermath: Aftermath) -> None:
    assert aftermath.node.run("db", "verify").stdout.endswith("0 problems\n")


def test_import_names_each_bad_file_and_takes_the_rest(tmp_path: Path) -> None:
    """The same faults as files; exit status 3: done in part."""
    node = Node(tmp_path / "node")
    node.configure()
    pair = [item.part10 for item in base().objects]
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    ct = edited(lambda dataset: setattr(dataset, "SOPClassUID", CT_IMAGE))(copied(pair[0], 2))
    for name, content in {
        "radiograph.dcm": pair[0],
        "ecg.dcm": pair[1],
        "garbage.dcm": GARBAGE,
        "garbage": GARBAGE,
        "empty.dcm": b"",
        "truncated.dcm": copied(pair[1], 1)[:-60_000],
        "ct.dcm": ct.replace(TWELVE_LEAD_ECG.encode(), CT_IMAGE.encode()),
        "notes.txt": b"not DICOM, and does not claim to be\n",
    }.items():
        (incoming / name).write_bytes(content)
    done = node.run("import", str(incoming), "--json", check=False)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    (match,) = node.matches()
    assert (match["state"], match["mpap_mmhg"] is not None) == ("REPORTED", True)
    again = node.run("import", str(incoming), check=False)
    assert again.returncode == 3
    assert len(node.matches()) == 1


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own of a few megabytes; skips where mounting is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("free_disk_bytes", [1_000_000, 0], ids=["kept free", "to the last byte"])
def test_a_full_disk_is_answered_with_out_of_resources_and_takes_objects_again_when_it_has_room(
    tmp_path: Path, free_disk_bytes: int
) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        node = Node(disk / "node", extra=f"[limits]\nfree_disk_bytes = {free_disk_bytes}\n")
        node.configure()
        radiograph = make_patient(0, SEED, Scenario.AP_VIEW).objects[0].part10
        with _receiver(node, tmp_path):
            statuses, number = [], 0
            while OUT_OF_RESOURCES not in statuses and number < 8:
                answer = send(node.port, copied(radiograph, number), tmp_path)
                statuses.append(answer.Status)
                number += 1
            assert statuses == [SUCCESS] * (number - 1) + [OUT_OF_RESOURCES]
            assert "disk" in answer.ErrorComment
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            assert send(node.port, copied(radiograph, number - 1), tmp_path).Status == SUCCESS
        log = (tmp_path / "receive.log").read_text(encoding="utf-8")
        assert "Traceback" not in log
        assert '"refused"' in log
        assert len(node.json("held", "--disposition=ignored")) == number
        assert node.run("db", "verify").stdout == "0 problems\n"


@contextmanager
def _receiver(node: Node, folder: Path) -> Iterator[None]:
    """The receiver alone, its log elsewhere than on the disk that fills."""
    with (folder / "receive.log").open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "pacs_node", "--config", str(node.config), "receive"], stderr=stream
        )
    try:
        eventually(lambda: listening(node.port), 30, "the receiver listens")
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)
