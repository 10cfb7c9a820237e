"""Small rooms of the flow: waiting for work, wrapping a PDF as DICOM, one digest over all that decides an answer."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import cast

import pytest
from pydicom import dcmread

from inference.prediction import ModelIdentity
from pacs_node import CODE_VERSION
from pacs_node.flow.digest import run_digest
from pacs_node.flow.pace import LOOK_ANYWAY_SECONDS, Pace
from pacs_node.flow.pairing import RULE_VERSION
from pacs_node.flow.part10 import to_part10
from pacs_node.flow.receive import Incoming
from pacs_node.flow.wrap import wrap_pdf
from pacs_node.settings import Settings
from storage.records import Disposition, Kind, MatchState, Patient
from storage.store import Store
from tests.unit.flow.conftest import Node
from tests.unit.flow.test_pair_by_arrival import send_film, the_match

TOKYO = timezone(timedelta(hours=9))
WHO = Patient(issuer="", patient_id="P1", name="山田^花子", birth_date="19500102", sex="F")
WHEN = datetime(2024, 3, 2, 9, 30, tzinfo=TOKYO)


class TestWaiting:
    def test_ends_when_another_process_commits(self, node: Node) -> None:
        pace = Pace(node.store, 0.01)
        threading.Timer(0.05, send_film, (node, "1.1")).start()
        started = time.monotonic()
        pace.wait(threading.Event())
        assert 0.04 < time.monotonic() - started < LOOK_ANYWAY_SECONDS

    def test_ends_by_itself_because_time_alone_makes_work_due(self, node: Node) -> None:
        started = time.monotonic()
        Pace(node.store, 0.01).wait(threading.Event())
        assert LOOK_ANYWAY_SECONDS <= time.monotonic() - started < LOOK_ANYWAY_SECONDS + 1

    def test_ends_at_once_when_told_to_stop(self, node: Node) -> None:
        stop = threading.Event()
        stop.set()
        started = time.monotonic()
        Pace(node.store, 0.01).wait(stop)
        assert time.monotonic() - started < 0.2

    def test_pauses_where_the_database_does_not_tell_of_changes(self) -> None:
        """PostgreSQL's counter always moves; without a pause an idle worker would keep a core busy."""

        class LikePostgresql:
            is_sqlite = False
            calls = 0

            def change_counter(self) -> int:
                self.calls += 1
                return self.calls

        pace = Pace(cast(Store, LikePostgresql()), 0.05)
        started = time.monotonic()
        pace.wait(threading.Event())
        assert time.monotonic() - started >= 0.05


class TestAPdfAsDicom:
    def test_is_received_as_an_ecg_and_pairs(self, node: Node) -> None:
        send_film(node, "1.1")
        receipt = node.receiver.receive(Incoming(parts=wrap_pdf(b"%PDF-1.7 odd", WHO, WHEN), calling_ae="ecg add"))
        assert (receipt.kind, receipt.disposition) == (Kind.ECG, Disposition.ACCEPTED)
        assert the_match(node).state is MatchState.PAIRED
        assert the_match(node).ecg_at == WHEN

    def test_made_twice_is_the_same_object(self) -> None:
        assert wrap_pdf(b"%PDF", WHO, WHEN) == wrap_pdf(b"%PDF", WHO, WHEN)

    @pytest.mark.parametrize(
        ("pdf", "who", "when"),
        [
            (b"%PDF2", WHO, WHEN),
            (b"%PDF", replace(WHO, patient_id="P2"), WHEN),
            (b"%PDF", replace(WHO, issuer="H"), WHEN),
            (b"%PDF", WHO, WHEN + timedelta(minutes=1)),
        ],
    )
    def test_of_another_file_patient_or_time_is_another_object(self, pdf: bytes, who: Patient, when: datetime) -> None:
        assert wrap_pdf(pdf, who, when).sop_instance_uid != wrap_pdf(b"%PDF", WHO, WHEN).sop_instance_uid

    def test_carries_the_file_and_the_name_unharmed(self) -> None:
        dataset = dcmread(io.BytesIO(to_part10(wrap_pdf(b"%PDF-1.7 odd!", WHO, WHEN))))
        assert dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength] == b"%PDF-1.7 odd!"
        assert str(dataset.PatientName) == "山田^花子"
        assert dataset.AcquisitionDateTime == "20240302093000.000000+0900"

    def test_without_an_offset_of_the_time_is_refused(self) -> None:
        with pytest.raises(ValueError, match="timezone-aware"):
            wrap_pdf(b"%PDF", WHO, WHEN.replace(tzinfo=None))


MODEL = ModelIdentity(
    name="n", version="1", kind="synthetic-demo", digest="m", preprocessing_digest="p", architecture="a"
)


class TestTheDigest:
    def test_is_the_same_for_the_same(self) -> None:
        assert run_digest("r", "e", MODEL, Settings()) == run_digest("r", "e", MODEL, Settings())

    @pytest.mark.parametrize(
        ("radiograph", "ecg", "model", "sections"),
        [
            ("r2", "e", MODEL, {}),
            ("r", "e2", MODEL, {}),
            ("r", "e", replace(MODEL, digest="m2"), {}),
            ("r", "e", replace(MODEL, preprocessing_digest="p2"), {}),
            ("r", "e", MODEL, {"node": {"site_timezone": "Europe/Berlin"}}),
            ("r", "e", MODEL, {"pairing": {"default_issuer": "H"}}),
            ("r", "e", MODEL, {"model": {"device": "cuda"}}),
        ],
    )
    def test_changes_with_inputs_model_and_the_settings_that_show_in_a_report(
        self, radiograph: str, ecg: str, model: ModelIdentity, sections: dict[str, object]
    ) -> None:
        changed = run_digest(radiograph, ecg, model, Settings.model_validate(sections))
        assert changed != run_digest("r", "e", MODEL, Settings())

    def test_does_not_change_with_settings_that_decide_no_answer(self) -> None:
        other = Settings.model_validate({"web": {"port": 9}, "worker": {"threads": 2}, "log": {"level": "error"}})
        assert run_digest("r", "e", MODEL, other) == run_digest("r", "e", MODEL, Settings())

    def test_of_a_cpu_is_what_it_was_before_there_were_devices(self) -> None:
        """Guards: every report of an existing archive made again, because its digest had another part."""
        parts = {
            "radiograph": "r",
            "ecg": "e",
            "model": "m",
            "preprocessing": "p",
            "code": CODE_VERSION,
            "ae_title": Settings().node.ae_title,
            "site_timezone": Settings().node.site_timezone,
            "default_issuer": "",
            "pairing_rule": RULE_VERSION,
        }
        before = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        assert run_digest("r", "e", MODEL, Settings()) == before
