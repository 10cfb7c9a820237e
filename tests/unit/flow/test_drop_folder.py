"""A folder into which carts export ECGs: whole files only, nobody guessed, nothing lost and nothing twice."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from structlog.testing import capture_logs

from ecg_ingest.lead_images import LEADS, PIXELS_SHAPE, EcgSource, LeadImages, RenderStyle
from pacs_node.flow.drop_folder import DropFolder
from pacs_node.flow.drop_identity import SidecarWrong, identity_of
from pacs_node.flow.ecg_file import as_dicom
from pacs_node.flow.identify import SETTLED, can_be_identified, identify
from pacs_node.flow.part10 import to_part10
from pacs_node.flow.upkeep import Upkeep
from pacs_node.flow.wrap import wrap_again, wrap_picture
from pacs_node.opening.opener import NotOpened, NotOpenedReason, Opener, OpenerUnavailable
from pacs_node.settings import Folder, Settings
from storage.records import Disposition, Patient, StoredInstance
from tests.unit.ecg.ecg_builders import Group, SheetStyle, part10, sheet, waveform
from tests.unit.ecg.test_ecg_aecg import Sequences, aecg
from tests.unit.flow.conftest import Node

NAME = "P1_20240302093000.pdf"
PATTERN = r"(?P<patient_id>[^_]+)_(?P<acquired_at>\d{14})\.\w+"
WHO = {"patient_id": "P1", "issuer": "HOSP", "acquired_at": "2024-03-02T09:30:00+09:00"}


@pytest.fixture(scope="module")
def heart() -> dict[str, np.ndarray]:
    """Ten seconds of drawn beats that obey the limb equations."""
    seconds = np.arange(5000) / 500 % 0.8

    def beat(p: float, r: float, t: float) -> np.ndarray:
        waves = ((0.15, p, 0.02), (0.3, r, 0.01), (0.55, t, 0.04))
        return sum(high * np.exp(-((seconds - at) ** 2) / (2 * wide**2)) for at, high, wide in waves)

    one, two = beat(0.08, 0.9, 0.1), beat(0.15, 0.5, 0.35)
    signals = {lead: beat(0.1, -0.8 + 0.3 * number, 0.2) for number, lead in enumerate(LEADS[6:])}
    signals |= {"I": one, "II": two, "III": two - one}
    return signals | {"aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}


@pytest.fixture(scope="module")
def pdf(heart: dict[str, np.ndarray]) -> bytes:
    return sheet(heart, SheetStyle())


@dataclass
class Cart:
    """The folder, a clock that the test moves, and what the node holds."""

    folder: Path
    node: Node
    watched: DropFolder
    seconds: list[float] = field(default_factory=lambda: [0.0])

    def drop(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def wait(self, seconds: float) -> int:
        self.seconds[0] += seconds
        return self.watched.look()

    def settle(self) -> int:
        """A look that sees the file, and one after nothing changed for long enough."""
        return self.wait(0) + self.wait(6)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def objects(self, *dispositions: Disposition) -> list[StoredInstance]:
        return list(self.node.store.instances(dispositions=set(dispositions or Disposition)))


@pytest.fixture
def make_cart(tmp_path: Path, make_node: Callable[..., Node], opener: Opener) -> Callable[..., Cart]:
    def make(opener: Opener = opener, **rules: object) -> Cart:
        folder = tmp_path / "carts"
        folder.mkdir(exist_ok=True)
        node = make_node(folder={"path": str(folder), "pattern": PATTERN, **rules})
        seconds = [0.0]
        watched = DropFolder(node.settings, node.receiver, opener, lambda: seconds[0], node.clock)
        return Cart(folder=folder, node=node, watched=watched, seconds=seconds)

    return make


class TestWhoseItIs:
    RULES = Folder(path="/carts", pattern=PATTERN)
    ZONE = Settings().node.zone

    def test_stands_in_the_file_name_and_times_are_the_sites(self) -> None:
        said = identity_of(NAME, None, self.RULES, self.ZONE)
        assert (said.patient_id, said.acquired_at) == ("P1", datetime(2024, 3, 2, 0, 30, tzinfo=UTC))

    @pytest.mark.parametrize(
        "name", ["P1.pdf", "P1_20241302093000.pdf", "xP1_20240302093000", "P1_20240302093000.pdf "]
    )
    def test_is_not_guessed_from_a_name_of_another_form(self, name: str) -> None:
        assert not identity_of(name, None, self.RULES, self.ZONE).is_enough

    def test_stands_in_the_json_file(self) -> None:
        said = identity_of(
            "scan0001.pdf", json.dumps({**WHO, "birth_date": "1950-01-02", "sex": "f"}).encode(), self.RULES, self.ZONE
        )
        assert said.patient("OTHER") == Patient(issuer="HOSP", patient_id="P1", name="", birth_date="19500102", sex="F")
        assert said.acquired_at == datetime(2024, 3, 2, 0, 30, tzinfo=UTC)

    @pytest.mark.parametrize(
        "told",
        [
            b"{",
            b"[]",
            b"\xff\xfe",
            b'{"patient_id": 7}',
            b'{"patient_id": "P1", "acquired_at": "yesterday"}',
            b'{"patient_id": "P1", "acquired_at": "2024-03-02"}',
            b'{"patient": "P1"}',
            b"[" * 100_000,
        ],
    )
    def test_is_not_taken_from_json_of_another_form(self, told: bytes) -> None:
        with pytest.raises(SidecarWrong) as wrong:
            identity_of("scan.pdf", told, self.RULES, self.ZONE)
        assert "P1" not in str(wrong.value)

    def test_is_nobody_where_name_and_json_disagree(self) -> None:
        with pytest.raises(SidecarWrong, match="patient_id"):
            identity_of(NAME, json.dumps({**WHO, "patient_id": "P2"}).encode(), self.RULES, self.ZONE)


class TestAFile:
    def test_that_is_whole_and_named_is_stored_and_moved_to_done(
        self, make_cart: Callable[..., Cart], pdf: bytes
    ) -> None:
        cart = make_cart(issuer="HOSP")
        cart.drop(NAME, pdf)
        assert cart.settle() == 1
        assert cart.files() == [f"done/{NAME}"]
        (stored,) = cart.objects()
        assert stored.instance.disposition is Disposition.ACCEPTED
        assert (stored.instance.patient.patient_id, stored.instance.patient.issuer) == ("P1", "HOSP")
        assert stored.instance.acquired is not None
        assert stored.instance.acquired.at == datetime(2024, 3, 2, 0, 30, tzinfo=UTC)

    def test_is_deleted_once_stored_where_a_site_wants_that(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart(stored="delete")
        cart.drop("ward/a.pdf", pdf)
        cart.drop("ward/a.json", json.dumps(WHO).encode())
        assert cart.settle() == 1
        assert cart.files() == []
        assert len(cart.objects(Disposition.ACCEPTED)) == 1

    @pytest.mark.parametrize("beside", ["scan.pdf.json", "scan.json"])
    def test_is_that_of_its_json_file(self, make_cart: Callable[..., Cart], pdf: bytes, beside: str) -> None:
        cart = make_cart(pattern="")
        cart.drop("ward 3/scan.pdf", pdf)
        assert cart.settle() == 0, "its JSON file may still come"
        cart.drop(f"ward 3/{beside}", json.dumps(WHO).encode())
        assert cart.settle() == 1
        assert cart.files() == ["done/scan.pdf", "done/scan.pdf.json"]
        (stored,) = cart.objects()
        assert (stored.instance.patient.patient_id, stored.instance.patient.issuer) == ("P1", "HOSP")

    def test_that_says_nothing_of_its_patient_is_held_after_a_while_and_not_guessed(
        self, make_cart: Callable[..., Cart], pdf: bytes
    ) -> None:
        cart = make_cart(sidecar_seconds=100)
        cart.drop("P1 2024-03-02.pdf", pdf)
        assert cart.settle() == 0
        assert cart.wait(100) == 1
        (stored,) = cart.objects()
        assert stored.instance.disposition is Disposition.HELD
        assert stored.instance.reason.startswith("patient_id_blank")
        assert stored.instance.patient.patient_id == ""
        assert cart.files() == ["held/P1 2024-03-02.pdf", "held/P1 2024-03-02.pdf.reason.txt"]
        told = json.loads((cart.folder / "held" / "P1 2024-03-02.pdf.reason.txt").read_text())
        assert f"pulmolink accept {stored.instance_id} " in told["hint"]

    def test_whose_name_and_json_disagree_is_held_at_once_under_nobodys_name(
        self, make_cart: Callable[..., Cart], pdf: bytes
    ) -> None:
        cart = make_cart()
        cart.drop(NAME, pdf)
        cart.drop(f"{NAME}.json", json.dumps({**WHO, "patient_id": "P2"}).encode())
        assert cart.settle() == 1
        (stored,) = cart.objects()
        assert (stored.instance.disposition, stored.instance.patient.patient_id) == (Disposition.HELD, "")
        told = json.loads((cart.folder / "held" / f"{NAME}.reason.txt").read_text())
        assert told["reason"] == "sidecar_wrong"
        assert "disagree" in told["detail"]

    @pytest.mark.parametrize(
        "content", [b"", b"no ECG at all", b"%PDF-1.4 cut off", b"\0" * 128 + b"DICM" + b"\xff" * 40]
    )
    def test_that_cannot_be_used_is_refused_with_the_reason_beside_it(
        self, make_cart: Callable[..., Cart], content: bytes
    ) -> None:
        cart = make_cart()
        cart.drop(NAME, content)
        assert cart.settle() == 1
        assert cart.files() == [f"refused/{NAME}", f"refused/{NAME}.reason.txt"]
        told = json.loads((cart.folder / "refused" / f"{NAME}.reason.txt").read_text())
        assert told["reason"]
        assert told["detail"]
        assert cart.objects() == []

    def test_of_the_same_name_as_an_earlier_one_overwrites_nothing(
        self, make_cart: Callable[..., Cart], pdf: bytes, heart: dict[str, np.ndarray]
    ) -> None:
        cart = make_cart()
        for content in (pdf, sheet(heart, SheetStyle(rows=6, rhythm=()))):
            cart.drop(NAME, content)
            assert cart.settle() == 1
        assert cart.files() == [f"done/{NAME}", "done/P1_20240302093000~2.pdf"]
        assert (cart.folder / "done" / NAME).read_bytes() == pdf

    def test_dropped_again_is_the_same_object(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart()
        for _ in range(2):
            cart.drop(NAME, pdf)
            assert cart.settle() == 1
        assert len(cart.objects()) == 1

    def test_that_is_dicom_says_itself_whose_it_is(
        self, make_cart: Callable[..., Cart], heart: dict[str, np.ndarray]
    ) -> None:
        dataset = waveform(Group(signals=heart))
        dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2.3"
        dataset.AcquisitionDateTime = "20240302093000"
        cart = make_cart()
        cart.drop("anything", part10(dataset))
        assert cart.settle() == 1
        (stored,) = cart.objects()
        assert (stored.instance.disposition, stored.instance.patient.patient_id) == (Disposition.ACCEPTED, "TEST")

    def test_that_could_not_be_stored_stays_and_is_tried_again(
        self, make_cart: Callable[..., Cart], pdf: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cart = make_cart(retry_seconds=60)
        cart.drop(NAME, pdf)
        with monkeypatch.context() as full:
            full.setattr("pacs_node.flow.reception.shortage", lambda *_: "disk nearly full")
            assert cart.settle() == 0
        assert cart.files() == [NAME]
        assert cart.wait(30) == 0
        assert cart.wait(31) == 1
        assert cart.files() == [f"done/{NAME}"]

    def test_that_cannot_be_read_is_told_in_words(
        self, make_cart: Callable[..., Cart], pdf: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        cart = make_cart()
        cart.drop(NAME, pdf)
        monkeypatch.setattr(cart.watched, "_store", fails)
        with capture_logs() as said:
            assert cart.settle() == 0
        assert [(line["event"], line["error"]) for line in said] == [("file_left", "Input/output error")]


class TestDone:
    def test_is_emptied_of_files_that_were_stored_long_ago(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart(keep_done_days=30)
        cart.drop(NAME, pdf)
        cart.drop(f"{NAME}.json", json.dumps(WHO | {"issuer": ""}).encode())
        cart.drop("P2_20240302093000.pdf", b"no ECG")
        os.utime(cart.folder / NAME, (0, 0))  # a cart's clock may be wrong: it counts when the file was put away
        assert cart.settle() == 2
        node = cart.node

        def removed(after: timedelta, settings: Settings = node.settings) -> int:
            return Upkeep(node.store, node.objects, settings, lambda: datetime.now(UTC) + after).clear_done()

        assert removed(timedelta(days=29)) == 0
        always = node.settings.model_copy(
            update={"folder": node.settings.folder.model_copy(update={"keep_done_days": 0})}
        )
        assert removed(timedelta(days=3000), always) == 0
        assert removed(timedelta(days=31)) == 2
        assert cart.files() == ["refused/P2_20240302093000.pdf", "refused/P2_20240302093000.pdf.reason.txt"]
        assert len(cart.objects(Disposition.ACCEPTED)) == 1


class TestAnUnfinishedFile:
    def test_is_left_while_it_grows(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart(settle_seconds=5)
        for part in range(1, 5):
            cart.drop(NAME, pdf[: len(pdf) * part // 4])
            assert cart.wait(4) == 0
        assert cart.wait(4) == 0
        assert cart.wait(2) == 1
        assert len(cart.objects(Disposition.ACCEPTED)) == 1

    def test_is_left_while_another_process_has_it_open_for_writing(
        self, make_cart: Callable[..., Cart], pdf: bytes
    ) -> None:
        cart = make_cart()
        path = cart.drop(NAME, pdf)
        program = f"import sys\nfile = open({str(path)!r}, 'ab')\nprint('open', flush=True)\nsys.stdin.read()"
        writer = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        assert cart.settle() == 0
        assert cart.wait(1000) == 0
        writer.communicate(b"", timeout=30)
        assert cart.wait(1) == 1

    def test_is_left_while_it_is_locked(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart()
        path = cart.drop(NAME, pdf)
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert cart.settle() == 0
        assert cart.wait(1) == 1

    @pytest.mark.parametrize("name", [f"{NAME}.part", f"{NAME}.tmp", f".{NAME}", f"~{NAME}", f".sync/{NAME}"])
    def test_under_a_passing_name_is_left_until_it_is_renamed(
        self, make_cart: Callable[..., Cart], pdf: bytes, name: str
    ) -> None:
        cart = make_cart()
        path = cart.drop(name, pdf)
        assert cart.settle() == 0
        path.rename(cart.folder / NAME)
        assert cart.settle() == 1

    def test_that_is_a_link_is_never_followed(self, make_cart: Callable[..., Cart], pdf: bytes, tmp_path: Path) -> None:
        cart = make_cart()
        (tmp_path / "elsewhere.pdf").write_bytes(pdf)
        (cart.folder / NAME).symlink_to(tmp_path / "elsewhere.pdf")
        (cart.folder / "in").symlink_to(tmp_path)
        assert cart.settle() + cart.wait(1000) == 0
        assert cart.objects() == []


class TestLogs:
    def test_name_no_file_and_no_patient(
        self, make_cart: Callable[..., Cart], pdf: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cart = make_cart()
        cart.drop("SECRET77_20240302093000.pdf", pdf)
        cart.drop("SECRET78.pdf", pdf)
        cart.drop("SECRET79.pdf", b"no ECG")
        cart.settle()
        cart.wait(1000)
        written = capsys.readouterr()
        assert "file_taken" in written.out + written.err
        assert "SECRET" not in written.out + written.err


class TestAHeldEcg:
    def test_counts_once_a_person_says_whose_it_is_and_is_listed_no_more(
        self, make_cart: Callable[..., Cart], pdf: bytes
    ) -> None:
        cart = make_cart()
        cart.drop("scan.pdf", pdf)
        cart.settle()
        cart.wait(1000)
        (held,) = cart.objects(Disposition.HELD)
        assert can_be_identified(held)
        patient = Patient(issuer="H", patient_id="P9", name="", birth_date="", sex="")
        node = cart.node
        receipt = identify(held, patient, datetime(2024, 3, 2, 9, tzinfo=UTC), node.store, node.objects, node.receiver)
        assert receipt.disposition is Disposition.ACCEPTED
        (accepted,) = cart.objects(Disposition.ACCEPTED)
        assert (accepted.instance.patient.patient_id, accepted.instance.patient.issuer) == ("P9", "H")
        assert cart.objects(Disposition.HELD) == []
        assert cart.node.store.instance(held.instance_id).instance.reason == SETTLED
        stored = dcmread(io.BytesIO(node.objects.get(accepted.instance.sha256)))
        assert stored.PatientID == "P9"
        assert stored.EncapsulatedDocument[: stored.EncapsulatedDocumentLength] == pdf

    def test_of_a_sender_is_never_given_to_another_patient(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart()
        cart.drop(NAME, pdf)
        cart.settle()
        (stored,) = cart.objects()
        assert not can_be_identified(stored)


class TestAFileThatHarmsItsReader:
    class Harmed(Opener):
        """An opener that answers as it does for such a file."""

        def __init__(self, answer: Exception) -> None:
            super().__init__(Settings().limits)
            self.answer = answer

        def ecg(self, data: bytes, style: RenderStyle) -> LeadImages:
            raise self.answer

    def test_is_refused_with_the_reason_beside_it(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart(opener=self.Harmed(NotOpened(NotOpenedReason.CRASHED, "its process ended on it", "see it")))
        cart.drop(NAME, pdf)
        assert cart.settle() == 1
        assert cart.files() == [f"refused/{NAME}", f"refused/{NAME}.reason.txt"]
        told = json.loads((cart.folder / "refused" / f"{NAME}.reason.txt").read_text())
        assert (told["reason"], told["hint"]) == ("opening_crashed", "see it")
        assert cart.objects() == []

    def test_stays_where_nothing_can_be_opened_now(self, make_cart: Callable[..., Cart], pdf: bytes) -> None:
        cart = make_cart(opener=self.Harmed(OpenerUnavailable("no child waits")))
        cart.drop(NAME, pdf)
        assert cart.settle() == 0
        assert cart.files() == [NAME]


class TestOtherForms:
    """As `ecg add` and the folder store them: read again from the object, the ECG is the same."""

    PATIENT = Patient(issuer="", patient_id="P1", name="山田^花子", birth_date="", sex="")
    WHEN = datetime(2024, 3, 2, 9, 30, tzinfo=UTC)

    def test_signals_of_an_aecg_come_back_to_the_microvolt(self, heart: dict[str, np.ndarray], opener: Opener) -> None:
        content = aecg(Sequences(signals={lead: heart[lead] for lead in ("I", "II", *LEADS[6:])}))
        images = opener.ecg(content, RenderStyle())
        again = opener.ecg(to_part10(as_dicom(content, images, self.PATIENT, self.WHEN, opener)), RenderStyle())
        assert again.source is EcgSource.WAVEFORM
        assert again.derived_leads == images.derived_leads
        assert np.abs(again.signals_mv - images.signals_mv).max() < 0.0011

    @pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP"])
    def test_pixels_of_a_picture_come_back_unchanged(self, form: str) -> None:
        """The picture need not be an ECG here: what counts is that every pixel is kept."""
        from ecg_ingest.dicom_file import open_dicom
        from ecg_ingest.picture import read_dicom_picture, read_picture

        noise = np.random.default_rng(1).integers(0, 256, (40, 61, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, format=form)
        pixels = read_picture(buffer.getvalue())
        parts = wrap_picture(buffer.getvalue(), pixels, self.PATIENT, self.WHEN)
        dataset = open_dicom(to_part10(parts)).dataset
        assert np.array_equal(read_dicom_picture(dataset), pixels)
        assert str(dataset.PatientName) == "山田^花子"
        assert ("LossyImageCompression" in dataset) == (form == "JPEG")
        other = wrap_again(to_part10(parts), replace(self.PATIENT, patient_id="P2"), self.WHEN)
        renamed = open_dicom(to_part10(other)).dataset
        assert (renamed.PatientID, renamed.SOPInstanceUID != dataset.SOPInstanceUID) == ("P2", True)
        assert np.array_equal(read_dicom_picture(renamed), pixels)

    def test_a_recording_whose_parts_have_no_place_in_time_is_refused(self, opener: Opener) -> None:
        from ecg_ingest.lead_images import EcgRefused, QualityFinding

        images = LeadImages(
            pixels=np.zeros(PIXELS_SHAPE, np.uint8),
            source=EcgSource.WAVEFORM,
            style=RenderStyle(),
            page_layout="",
            seconds_recorded=10.0,
            derived_leads=(),
            quality=(QualityFinding(code="times_unknown", lead="", detail=""),),
            sampling_hz=500.0,
            signals_mv=np.zeros((12, 5000), np.float32),
        )
        with pytest.raises(EcgRefused):
            as_dicom(b"<AnnotatedECG/>", images, self.PATIENT, self.WHEN, opener)


KILLED = """
    import os, sys, time
    from pathlib import Path
    from pacs_node.dicom.stack import quiet
    from pacs_node.flow import drop_folder
    from pacs_node.flow.receive import Receiver
    from pacs_node.opening.opener import Opener
    from pacs_node.service import utc_now
    from pacs_node.settings import load
    from storage.objects import ObjectStore
    from storage.store import Store

    quiet()
    calls = 0

    def die(event, arguments):
        # Ends this process at one of its renames and removals, as a power cut would: before the call is made.
        global calls
        if event in ("os.rename", "os.remove") and "carts" in str(arguments[0]):
            calls += 1
            if calls == int(sys.argv[1]):
                os._exit(9)

    sys.addaudithook(die)
    settings = load(None)
    store = Store.open(settings.storage.database)
    receiver = Receiver(store, ObjectStore(settings.storage.objects), settings, utc_now)
    seconds = [0.0]
    opener = Opener(settings.limits)
    folder = drop_folder.DropFolder(settings, receiver, opener, lambda: seconds[0], utc_now)
    folder.look()
    seconds[0] = 1000.0
    folder.look()
    os._exit(0)
"""


@pytest.mark.parametrize("stored", ["move", pytest.param("delete", marks=pytest.mark.long)])
def test_a_process_killed_at_any_of_its_renames_loses_nothing_and_gives_no_file_to_another_patient(
    make_cart: Callable[..., Cart], pdf: bytes, heart: dict[str, np.ndarray], stored: str
) -> None:
    """The JSON of the first patient must not be there for the next file of the same name, wherever the kill fell."""
    ends = []
    for step in range(1, 6):
        cart = make_cart(pattern="", stored=stored)
        cart.drop("ecg.pdf", pdf)
        cart.drop("ecg.json", json.dumps(WHO).encode())
        settings = cart.node.settings
        environment = {
            **os.environ,
            "PULMOLINK_STORAGE_DATABASE": settings.storage.database,
            "PULMOLINK_STORAGE_OBJECTS": str(settings.storage.objects),
            "PULMOLINK_FOLDER_PATH": str(cart.folder),
            "PULMOLINK_FOLDER_STORED": stored,
        }
        program = [sys.executable, "-c", textwrap.dedent(KILLED), str(step)]
        ended = subprocess.run(program, env=environment, capture_output=True, timeout=120, check=False)
        assert ended.returncode in {0, 9}, ended.stderr.decode()
        ends.append(ended.returncode)
        cart.settle()
        cart.wait(1000)
        (accepted,) = cart.objects()
        assert (accepted.instance.disposition, accepted.instance.patient.patient_id) == (Disposition.ACCEPTED, "P1")
        assert not (cart.folder / "ecg.pdf").exists()
        assert [path.name for path in cart.folder.iterdir() if path.is_file()] == []
        cart.drop("ecg.pdf", sheet(heart, SheetStyle(header=f"another patient {step}")))
        cart.settle()
        cart.wait(1000)
        (held,) = cart.objects(Disposition.HELD)
        assert held.instance.patient.patient_id == ""
        for path in cart.folder.rglob("*"):
            if path.is_file():
                path.unlink()
        if ended.returncode == 0:
            break
    assert ends[0] == 9, "no step was cut off"
    assert ends[-1] == 0, "not every step was cut off"
