"""Every bound of [limits] shows: what is beyond it is answered as documented, and what is within goes on."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from pacs_node.dicom import rates
from pacs_node.dicom.audit import Audit, Outcome, Reason, clean
from pacs_node.dicom.negotiation import CLASSES_OF
from pacs_node.dicom.rates import Rates
from pacs_node.dicom.wire import ASSOCIATE_AC, ASSOCIATE_RJ, INVALID_PARAMETER, P_DATA
from pacs_node.flow import room
from pacs_node.flow.sop_classes import COMPUTED_RADIOGRAPHY, ENCAPSULATED_PDF, RECEIVED, TWELVE_LEAD_ECG
from pacs_node.settings import Limits, Source
from storage.errors import StorageBusy
from tests.unit.dicom.peers import (
    CONTEXTS,
    EXPLICIT,
    VERIFICATION,
    Listening,
    aborted,
    answer,
    film,
    pdu,
    pdv,
    request,
    stored,
)

Listen = Callable[..., Listening]
TESTS = Path(__file__).parents[2]


@pytest.mark.parametrize("key", list(Limits.model_fields))
def test_every_bound_is_set_by_some_test(key: str) -> None:
    """A bound that no test lowers and goes beyond is a bound that nobody saw work."""
    here = Path(__file__).name
    texts = [file.read_text(encoding="utf-8") for file in TESTS.rglob("*.py")]
    assert any(f'"{key}": ' in text or f"{key}=" in text or f"{key} = " in text for text in texts), here


def reject(node: Listening, asked: bytes) -> tuple[int, ...]:
    """Result, source and reason of the rejection of a request."""
    with node.connect() as connection:
        connection.sendall(asked)
        told = answer(connection)
    assert told[0] == ASSOCIATE_RJ
    return tuple(told[7:10])


class TestRoom:
    def full(self, monkeypatch: pytest.MonkeyPatch, **fields: int) -> None:
        """From now on the volume says so."""
        found = {"f_bavail": 10**9, "f_frsize": 4096, "f_files": 10**6, "f_favail": 10**6, **fields}
        monkeypatch.setattr(room, "os", SimpleNamespace(statvfs=lambda _folder: SimpleNamespace(**found)))

    @pytest.mark.parametrize(
        ("field", "setting"), [({"f_bavail": 1}, "limits.free_disk_bytes"), ({"f_favail": 1}, "limits.free_inodes")]
    )
    def test_below_the_watermark_objects_and_then_associations_are_refused(
        self, listen: Listen, monkeypatch: pytest.MonkeyPatch, field: dict[str, int], setting: str
    ) -> None:
        node = listen(limits={"free_disk_bytes": 2**20, "free_inodes": 100})
        line = node.associate()
        self.full(monkeypatch, **field)
        assert setting in room.shortage(node.objects.root, node.settings.limits)
        line.socket.sendall(stored(film()))
        assert line.status() == 0xA700
        assert line.echo() == 0
        line.release()
        assert node.files() == 0
        assert reject(node, request()) == (2, 3, 2)
        assert node.counts()["rejected", "disk"] == 1
        node.associate([(VERIFICATION, EXPLICIT)]).release()  # who stores nothing may ask whether we live
        monkeypatch.setattr(room, "os", os)
        line = node.associate()
        line.socket.sendall(stored(film()))
        assert line.status() == 0
        line.release()

    def test_a_file_system_that_counts_no_inodes_is_not_short_of_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full(monkeypatch, f_files=0, f_favail=0)
        assert room.shortage(Path("/"), Limits()) == ""


class TestRates:
    def test_a_source_waits_for_its_turn_and_others_do_not(self) -> None:
        rates = Rates(10)
        fast = Source(ae_title="FAST", host="h", objects_per_second=1000)
        slow, other = Source(ae_title="SLOW", host="h"), Source(ae_title="OTHER", host="h")
        waits = [rates.turn(slow) for _ in range(21)]
        assert waits[0] == waits[9] == 0.0
        assert waits[20] == pytest.approx(1.0, abs=0.2)
        assert rates.turn(other) == 0.0
        assert [rates.turn(fast) for _ in range(100)] == [0.0] * 100

    def test_a_turn_too_far_away_is_none_and_takes_none(self) -> None:
        rates = Rates(1)
        source = Source(ae_title="A", host="h")
        waits = [rates.turn(source) for _ in range(100)]
        assert waits[-1] is None
        assert len([wait for wait in waits if wait is not None]) == pytest.approx(12, abs=1)

    def test_no_bound_is_none(self) -> None:
        rates = Rates(0)
        assert {rates.turn(Source(ae_title="A", host="h")) for _ in range(10_000)} == {0.0}

    def test_objects_beyond_the_rate_come_later_and_all_of_them_are_stored(self, listen: Listen) -> None:
        node = listen(limits={"objects_per_second": 10})
        line = node.associate()
        began = time.monotonic()
        for number in range(16):
            line.socket.sendall(stored(film(f"1.2.{number}")))
        assert [line.status() for _ in range(16)] == [0] * 16
        assert time.monotonic() - began > 0.4
        line.release()
        assert len(node.store.instances()) == 16

    def test_objects_far_beyond_the_rate_are_answered_out_of_resources(
        self, listen: Listen, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(rates, "LONGEST_WAIT_SECONDS", 0.0)
        node = listen(limits={"objects_per_second": 1})
        line = node.associate()
        statuses = []
        for number in range(6):
            line.socket.sendall(stored(film(f"1.2.{number}")))
            statuses.append(line.status())
        line.release()
        assert set(statuses) == {0, 0xA700}
        assert len(node.store.instances()) == statuses.count(0)


class TestLengths:
    def test_an_association_request_beyond_its_bound_is_aborted(self, listen: Listen) -> None:
        node = listen(limits={"association_bytes": 4096})
        with node.connect() as connection:
            connection.sendall(request(CONTEXTS * 60))
            assert aborted(answer(connection)) == INVALID_PARAMETER
        node.serves()

    def test_a_pdu_beyond_what_we_offered_is_aborted(self, listen: Listen) -> None:
        node = listen(limits={"pdu_bytes": 4096})
        with node.connect() as connection:
            connection.sendall(request() + pdu(P_DATA, pdv(1, 0, bytes(9000))))
            assert aborted(answer(connection)) == INVALID_PARAMETER
        node.serves()

    def test_a_command_set_beyond_its_bound_is_aborted(self, listen: Listen) -> None:
        node = listen(limits={"command_bytes": 1024})
        with node.connect() as connection:
            connection.sendall(request() + pdu(P_DATA, pdv(1, 1, bytes(1025))))
            assert aborted(answer(connection)) == INVALID_PARAMETER
        node.serves()

    @pytest.mark.parametrize(
        "limit",
        [{"header_elements": 1000}, {"header_bytes": 65536}, {"header_depth": 4}, {"header_value_bytes": 1024}],
    )
    def test_a_header_beyond_a_bound_is_held_and_says_which(self, listen: Listen, limit: dict[str, int]) -> None:
        from tests.unit.flow.test_index import sequences

        node = listen(limits=limit)
        (key,) = limit
        content = {
            "header_elements": lambda: film(OtherPatientIDsSequence=[]) + b"\x09\x00\x10\x10UN\0\0\0\0\0\0" * 1100,
            "header_bytes": lambda: film(DerivationDescription="x" * 700_000),
            "header_depth": lambda: film() + sequences(9, undefined=True, tag=(0x0054, 0x0220)),
            "header_value_bytes": lambda: film(StudyDescription="x" * 1026),
        }[key]()
        line = node.associate()
        line.socket.sendall(stored(content))
        assert line.status() == 0xC000
        line.release()
        (row,) = node.store.instances()
        assert row.instance.reason.startswith("unreadable: ")


class TestConnections:
    def test_one_address_does_not_take_the_places_of_the_others(self, listen: Listen) -> None:
        node = listen(limits={"connections_per_peer": 3, "connections": 10, "association_seconds": 30})
        lines = [node.associate() for _ in range(3)]
        with node.connect() as connection:
            assert answer(connection) == b""
        with socket.create_connection(("127.0.0.1", node.port), source_address=("127.0.0.2", 0)) as other:
            other.sendall(request())
            assert other.recv(1)[0] == ASSOCIATE_AC
        for line in lines:
            line.release()
        assert node.counts()["refused", "connections_per_peer"] == 1

    def test_what_waits_to_be_accepted_when_the_server_stops_is_answered(self, listen: Listen) -> None:
        """A connection that the kernel took for us is not reset: its peer hears that it should try again."""
        node = listen()
        waiting = [node.connect() for _ in range(20)]
        for connection in waiting:
            connection.sendall(request())
        stopping = threading.Thread(target=node.server.stop, args=(5.0,))
        stopping.start()
        told = [answer(connection) for connection in waiting]
        stopping.join()
        assert {answered[0] for answered in told} <= {ASSOCIATE_AC, ASSOCIATE_RJ}
        for connection in waiting:
            connection.close()


class TestWhoMaySpeak:
    @pytest.mark.parametrize(
        ("accepts", "taken"),
        [
            (["radiograph"], {COMPUTED_RADIOGRAPHY}),
            (["ecg"], {TWELVE_LEAD_ECG}),
            (["document"], {ENCAPSULATED_PDF}),
            (["ecg", "document"], {TWELVE_LEAD_ECG, ENCAPSULATED_PDF}),
        ],
    )
    def test_a_source_sends_what_it_may(self, listen: Listen, accepts: list[str], taken: set[str]) -> None:
        node = listen(sources=[{"ae_title": "REPLAY", "host": "127.0.0.1", "accepts": accepts}])
        classes = [COMPUTED_RADIOGRAPHY, TWELVE_LEAD_ECG, ENCAPSULATED_PDF]
        asked = [(VERIFICATION, EXPLICIT), *((sop_class, EXPLICIT) for sop_class in classes)]
        with node.connect() as connection:
            connection.sendall(request(asked))
            told = connection.recv(65536)
        results = [told[at + 6] for at in range(74, len(told)) if told[at : at + 2] == b"\x21\x00"]
        assert results == [0, *(0 if sop_class in taken else 3 for sop_class in classes)]

    def test_every_received_class_is_of_some_kind(self) -> None:
        assert frozenset().union(*CLASSES_OF.values()) == frozenset(RECEIVED)

    def test_further_titles_are_ours_too(self, listen: Listen) -> None:
        node = listen(node={"ae_title": "OURS", "also_called": ["PULMOLINK"], "require_called_ae_title": True})
        node.serves()
        asked = request().replace(b"PULMOLINK       ", b"THEIRS          ")
        assert reject(node, asked) == (1, 1, 7)
        assert node.counts() == {("accepted", ""): 1, ("rejected", "called_ae_title"): 1}


class TestAudit:
    def events(self, capsys: pytest.CaptureFixture[str]) -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    def test_who_spoke_and_who_was_turned_away_is_told_without_control_characters(
        self, listen: Listen, capsys: pytest.CaptureFixture[str]
    ) -> None:
        node = listen(sources=[{"ae_title": "REPLAY", "host": "127.0.0.1"}])
        node.serves()
        asked = request().replace(b"REPLAY          ", b"EVIL\n\x1b[31m      ")
        assert reject(node, asked) == (1, 1, 3)
        told = self.events(capsys)
        assert "association_accepted" in told
        assert "association_rejected" in told
        assert "110126 Node Authentication" in told
        assert "not in sources" in told
        assert "\x1b[31m      " not in told
        assert "EVIL\n" not in told

    @pytest.mark.parametrize(
        ("foreign", "logged"), [("A\nB", "A?B"), ("\x1b[2J", "?[2J"), ("x" * 99, "x" * 64), ("\ufffd", "\ufffd")]
    )
    def test_foreign_text_is_cut_and_cleaned(self, foreign: str, logged: str) -> None:
        assert clean(foreign) == logged

    def test_counts_that_cannot_be_kept_now_are_kept_later(self) -> None:
        kept: dict[tuple[str, str], int] = {}
        failing = [True]

        def keep(counts: object) -> None:
            if failing.pop():
                raise StorageBusy("a test")
            kept.update(counts)  # type: ignore[call-overload]

        audit = Audit(keep)
        audit.cut(Reason.TOO_SLOW)
        audit.flush()
        failing.append(False)
        audit.cut(Reason.TOO_SLOW)
        audit.flush()
        assert kept == {("cut", "too_slow"): 2}

    def test_a_reload_that_changed_nothing_is_no_change_of_security(self, capsys: pytest.CaptureFixture[str]) -> None:
        audit = Audit(lambda _counts: None)
        audit.reconfigured([])
        assert self.events(capsys) == ""
        audit.reconfigured(["sources"])
        assert "settings_changed" in self.events(capsys)

    def test_every_word_fits_its_column(self) -> None:
        assert max(len(reason) for reason in Reason) <= 32
        assert max(len(outcome) for outcome in Outcome) <= 16
