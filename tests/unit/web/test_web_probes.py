"""What orchestration and monitoring ask of the web port: alive, ready, and numbers without names."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from pacs_node.dicom.stack import quiet
from pacs_node.flow.receive import Incoming, Receiver
from pacs_node.settings import Limits, Settings, Tls
from pacs_node.web.app import application
from storage.database import upgrade
from storage.objects import ObjectStore
from storage.records import MatchState, NewReport, ReportKind, SopReference
from storage.store import Store
from tests.certificates import Authority
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph, waveform

NOW = datetime(2024, 3, 20, 8, 0, tzinfo=UTC)


@pytest.fixture
def receiving_port() -> Iterator[int]:
    """A port on which somebody listens, as the receiver does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


@pytest.fixture
def node_settings(tmp_path: Path, receiving_port: int) -> Settings:
    url = f"sqlite:///{tmp_path}/rows.db"
    upgrade(url)
    return Settings.model_validate(
        {"storage": {"database": url, "objects": str(tmp_path / "objects")}, "node": {"port": receiving_port}}
    )


@pytest.fixture
def store(node_settings: Settings) -> Iterator[Store]:
    ObjectStore(node_settings.storage.objects)
    with Store.open(node_settings.storage.database) as store:
        yield store


def client(store: Store, settings: Settings) -> TestClient:
    return TestClient(application(store, settings, lambda: NOW), raise_server_exceptions=False)


def fill(store: Store, settings: Settings) -> None:
    """One reported match whose delivery is due, one that has been due for a minute, one waiting, one object held."""
    quiet()
    objects = ObjectStore(settings.storage.objects)
    minute_ago = NOW - timedelta(minutes=1)
    receiver = Receiver(store, objects, settings, lambda: minute_ago)

    def send(dataset: object, uid: str, patient_id: str) -> None:
        named = identified(dataset, uid, **at(NOON), PatientID=patient_id)  # type: ignore[arg-type]
        receiver.receive(Incoming(parts=encoded(named), calling_ae="CART"))

    send(radiograph(), "1.1", "P1")
    send(waveform(seconds=5), "1.2", "P1")
    claimed = store.claim_match([MatchState.PAIRED], "w", 60, minute_ago)
    assert claimed is not None
    store.save_prediction(claimed.match_id, "w", "{}", "d", minute_ago)
    store.claim_match([MatchState.PREDICTED], "w", 60, minute_ago)
    sr = NewReport(
        kind=ReportKind.SR,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid="2.25.1",
        series_instance_uid="2.25.2",
        study_instance_uid="1.1.1",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=objects.put(b"sr").sha256,
        size_bytes=2,
    )
    assert store.save_reports(claimed.match_id, "w", [sr], {ReportKind.SR: ["pacs"]}, NOW)
    send(radiograph(), "2.1", "P2")
    send(waveform(seconds=5), "2.2", "P2")
    send(radiograph(), "3.1", "P3")
    send(radiograph(), "4.1", "")


def numbers(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    return {
        (sample.name, tuple(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_healthz_says_that_the_process_answers(store: Store, node_settings: Settings) -> None:
    answer = client(store, node_settings).get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readyz_is_ready_when_objects_can_be_received_and_rows_written(store: Store, node_settings: Settings) -> None:
    answer = client(store, node_settings).get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "parts": {"database": "ok", "objects": "ok", "receiver": "ok"},
    }


def test_readyz_names_the_receiver_that_does_not_listen(store: Store, node_settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    settings = node_settings.model_copy(update={"node": node_settings.node.model_copy(update={"port": port})})
    answer = client(store, settings).get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"] == {
        "database": "ok",
        "objects": "ok",
        "receiver": "nobody listens on the DICOM port",
    }


def test_readyz_names_the_folder_that_is_gone(store: Store, node_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "objects").rename(tmp_path / "elsewhere")
    answer = client(store, node_settings).get("/readyz")
    assert (answer.status_code, answer.json()["parts"]["objects"]) == (503, "folder not writable")


def test_readyz_names_the_bound_that_keeps_objects_from_being_stored(store: Store, node_settings: Settings) -> None:
    """Every association that would store is rejected meanwhile."""
    settings = node_settings.model_copy(update={"limits": Limits(free_disk_bytes=2**62)})
    answer = client(store, settings).get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["objects"] == "disk nearly full (limits.free_disk_bytes)"


def test_readyz_names_the_database_that_fails_and_healthz_goes_on(
    store: Store, node_settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "rows.db").write_bytes(b"not a database " * 1000)
    for beside in ("rows.db-wal", "rows.db-shm"):
        (tmp_path / beside).unlink(missing_ok=True)
    asking = client(store, node_settings)
    answer = asking.get("/readyz")
    assert (answer.status_code, answer.json()["parts"]["database"]) == (503, "StorageUnavailable")
    assert asking.get("/healthz").status_code == 200


def test_metrics_without_a_database_are_unavailable_and_say_nothing_wrong(
    store: Store, node_settings: Settings, tmp_path: Path
) -> None:
    """Zeros in place of an answer would silence the alarm they should ring."""
    (tmp_path / "rows.db").write_bytes(b"not a database " * 1000)
    for beside in ("rows.db-wal", "rows.db-shm"):
        (tmp_path / beside).unlink(missing_ok=True)
    answer = client(store, node_settings).get("/metrics")
    assert answer.status_code == 503
    assert "pulmolink_matches" not in answer.text


def test_metrics_count_matches_objects_and_deliveries(store: Store, node_settings: Settings) -> None:
    fill(store, node_settings)
    answer = client(store, node_settings).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    found = numbers(answer.text)
    assert {labels[0]: value for (name, labels), value in found.items() if name == "pulmolink_matches"} == {
        **{state.value: 0.0 for state in MatchState},
        "REPORTED": 1.0,
        "PAIRED": 1.0,
        "WAITING": 1.0,
    }
    assert found["pulmolink_instances", ("accepted", "radiograph")] == 3
    assert found["pulmolink_instances", ("held", "radiograph")] == 1
    assert found["pulmolink_deliveries", ("pacs", "PENDING")] == 1
    assert found["pulmolink_deliveries", ("pacs", "FAILED")] == 0
    assert found["pulmolink_queue_age_seconds", ()] == 60.0


def test_metrics_count_connections_by_outcome_and_reason(store: Store, node_settings: Settings) -> None:
    store.add_tallies({("rejected", "sources"): 3, ("accepted", ""): 2})
    found = numbers(client(store, node_settings).get("/metrics").text)
    assert found["pulmolink_connections_total", ("rejected", "sources")] == 3
    assert found["pulmolink_connections_total", ("accepted", "")] == 2


def test_metrics_say_when_our_certificate_ends(store: Store, node_settings: Settings, tmp_path: Path) -> None:
    files = Authority(tmp_path / "pki").issue("node", ends=timedelta(days=9))
    name = ("pulmolink_tls_certificate_ends_timestamp_seconds", ())
    for tls, expected in (
        (Tls(certificate=str(files.certificate), key=str(files.key)), datetime.now(UTC).timestamp() + 9 * 86400),
        (Tls(certificate="/nowhere"), 0.0),
        (Tls(), None),
    ):
        settings = node_settings.model_copy(update={"tls": tls})
        found = numbers(client(store, settings).get("/metrics").text).get(name)
        assert found == (None if expected is None else pytest.approx(expected, abs=60))


def test_readyz_asks_the_tls_port_where_it_is_the_only_one(
    store: Store, node_settings: Settings, receiving_port: int
) -> None:
    tls = node_settings.tls.model_copy(update={"port": receiving_port, "only": True})
    node = node_settings.node.model_copy(update={"port": 1})
    settings = node_settings.model_copy(update={"tls": tls, "node": node})
    assert client(store, settings).get("/readyz").status_code == 200


def test_metrics_count_commitments_awaited_and_owed(store: Store, node_settings: Settings) -> None:
    fill(store, node_settings)
    claimed = store.claim_delivery("pacs", "w", 60, NOW)
    assert claimed is not None
    store.delivered(claimed.delivery_id, "w", 0, NOW, wants_commitment=True)
    store.add_request("2.25.1", "CT1", "192.0.2.1", [SopReference("1.2", "1.3")], due_at=NOW, now=NOW)
    found = numbers(client(store, node_settings).get("/metrics").text)
    assert found["pulmolink_commitments_awaited", ("pacs",)] == 1
    assert found["pulmolink_commitment_requests", ("PENDING",)] == 1
    assert found["pulmolink_commitment_requests", ("GIVEN_UP",)] == 0


def test_metrics_are_the_rows_and_so_survive_a_restart(store: Store, node_settings: Settings) -> None:
    fill(store, node_settings)
    before = numbers(client(store, node_settings).get("/metrics").text)
    with Store.open(node_settings.storage.database) as reopened:
        assert numbers(client(reopened, node_settings).get("/metrics").text) == before


def test_nothing_of_a_patient_is_in_any_answer(store: Store, node_settings: Settings) -> None:
    fill(store, node_settings)
    asking = client(store, node_settings)
    for path in ("/healthz", "/readyz", "/metrics", "/nowhere"):
        text = asking.get(path).text
        for word in ("Tanaka", "P1", "19500102", "1.1.1"):
            assert word not in text


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_nothing_may_be_changed_through_it(store: Store, node_settings: Settings, path: str) -> None:
    assert client(store, node_settings).post(path).status_code == 405


def test_nothing_else_is_there_yet(store: Store, node_settings: Settings) -> None:
    assert client(store, node_settings).get("/").status_code == 404
