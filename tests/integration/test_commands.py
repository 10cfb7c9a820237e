"""The commands, as an administrator types them, on one site: a node's folder, a small archive, phantom patients.

The tests run in the order written and share the site, as an administrator's day does; each looks at a patient of its
own where it changes something. `serve` itself is started by the last ones only.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pynetdicom import AE, evt

from inference.manifest import parse_manifest
from inference.package import locate
from inference.phantoms import PhantomPatient, Scenario, Truth, make_patient, scenario_of, write_cohort
from pacs_node.cli import main
from pacs_node.dicom.archive import Archive
from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE
from storage.objects import ObjectStore
from tests.integration.rig import Node, eventually, free_port

SEED = 21
PATIENTS = 8
VERIFICATION = "1.2.840.10008.1.1"
STATES = {
    Scenario.AP_VIEW: None,  # ignored: no match
    Scenario.ECG_NINE_DAYS_AWAY: "UNPAIRED",
    Scenario.CONTRADICTING_BIRTH_DATE: "HELD",
}
"""Where a scenario ends that gives no estimate."""
FORCED, MODEL_CHANGED, NEARER = 0, 1, 3
"""Patients of the cohort that tests below change."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command wrote and how it ended."""

    returncode: int
    stdout: str
    stderr: str


def typed(*arguments: str) -> Answer:
    """What `pulmolink` with these arguments does, as the installed program does it."""
    status = 0
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["pulmolink", *arguments])
        try:
            main()
        except SystemExit as leave:
            status = int(leave.code or 0)
    return Answer(returncode=status, stdout=out.getvalue(), stderr=err.getvalue())


@dataclass
class Desk:
    """Where somebody types the commands of one node."""

    node: Node

    def run(self, *arguments: str) -> Answer:
        """A command with this node's configuration, in this process: starting Python each time takes seconds."""
        return typed("--config", str(self.node.config), *arguments)

    def json(self, *arguments: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def matches(self) -> list[dict[str, Any]]:
        """`matches --json`."""
        rows: list[dict[str, Any]] = self.json("matches")
        return rows


@dataclass
class Site(Desk):
    """A node's folder with a cohort imported, and the archive that its reports go to."""

    archive: Archive
    cohort: Path
    truths: list[Truth]
    imported: Answer  # what `import` of the cohort said

    def match_of(self, index: int) -> dict[str, Any]:
        """The current match of patient `index`."""
        (row,) = self.json("matches", "--patient", self.truths[index].patient_id)
        found: dict[str, Any] = row
        return found

    def reports_of(self, index: int) -> list[FileDataset]:
        """The SRs of patient `index` in the archive, oldest first."""
        paths = {
            arrival.path: None for arrival in self.archive.arrivals() if arrival.sop_class_uid == COMPREHENSIVE_3D_SR
        }
        files = [dcmread(path) for path in paths]
        return [file for file in files if file.PatientID == self.truths[index].patient_id]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Eight phantom patients through `import`, and an archive that listens."""
    folder = tmp_path_factory.mktemp("site")
    port = free_port()
    node = Node(folder / "node", {"pacs": port})
    node.configure()
    cohort = folder / "cohort"
    truths = write_cohort(cohort, patients=PATIENTS, seed=SEED)
    with Archive(folder / "archive", port, ae_title="ORTHANC") as archive:
        imported = Desk(node=node).run("import", str(cohort), "--json")
        yield Site(node=node, archive=archive, cohort=cohort, truths=truths, imported=imported)


@pytest.fixture(scope="module")
def told(site: Site) -> Site:
    """The same site once its reports were sent."""
    assert site.run("deliver", "--now") == Answer(returncode=0, stdout="0 deliveries still pending\n", stderr="")
    return site


def test_import_pairs_a_cohort_exactly_as_its_truth_says(site: Site) -> None:
    summary = json.loads(site.imported.stdout)
    assert summary["faulty"] == []
    assert [Path(name).name for name in summary["not_dicom"]] == ["cohort.csv", "shown.csv", "truth.csv"]
    rows = {row["radiograph_uid"]: row for row in site.matches()}
    with (site.cohort / "truth.csv").open(encoding="utf-8") as file:
        truth = list(csv.DictReader(file))
    assert len(truth) == PATIENTS
    for index, entry in enumerate(truth):
        row = rows.pop(entry["radiograph_uid"], None)
        if entry["ecg_uid"]:
            assert row is not None
            assert (row["ecg_uid"], row["state"], row["reason"]) == (entry["ecg_uid"], "REPORTED", None)
        else:
            assert (row["state"] if row else None) == STATES[scenario_of(index)]
            assert row is None or row["mpap_mmhg"] is None
    assert rows == {}, "no radiograph has a match that the truth does not know"


def test_importing_again_changes_nothing(site: Site) -> None:
    before = site.matches()
    summary = site.json("import", str(site.cohort))
    assert {entry["disposition"] for entry in summary["objects"]} == {"known"}
    assert site.matches() == before


def test_export_writes_one_row_a_current_result(site: Site, tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    site.run("export", "--format", "csv", str(out))
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = ["match_id", "patient_id", "radiograph_uid", "ecg_uid", "gap_seconds", "mpap_mmhg"]
    assert list(rows[0])[:6] == first
    paired = {truth.patient_id: truth for truth in site.truths if truth.ecg_uid}
    assert {row["patient_id"]: (row["radiograph_uid"], row["ecg_uid"]) for row in rows} == {
        name: (truth.radiograph_uid, truth.ecg_uid) for name, truth in paired.items()
    }
    for row in rows:
        assert float(row["interval_low_mmhg"]) < float(row["mpap_mmhg"]) < float(row["interval_high_mmhg"])
        assert 0 < float(row["gap_seconds"]) <= 7 * 86400
        assert row["notice"] == "research use only"
    printed = site.run("export", "-").stdout
    assert list(csv.DictReader(io.StringIO(printed))) == rows


def test_deliver_now_sends_what_is_due_and_the_archive_has_it_once(told: Site) -> None:
    paired = sum(bool(truth.ecg_uid) for truth in told.truths)
    arrivals = told.archive.arrivals()
    assert len(arrivals) == len({arrival.sop_instance_uid for arrival in arrivals}) == 2 * paired
    assert {row["state"] for row in told.matches() if row["mpap_mmhg"] is not None} == {"DELIVERED"}
    told.run("deliver", "--now")
    assert len(told.archive.arrivals()) == 2 * paired


def test_deliver_match_sends_the_stored_bytes_again(told: Site) -> None:
    match = told.match_of(FORCED)
    before = {arrival.sop_instance_uid: arrival.path.read_bytes() for arrival in told.archive.arrivals()}
    done = told.run("deliver", "--match", str(match["match_id"]), "--to", "pacs", "--now")
    assert done.stdout.startswith("2 deliveries ")
    again = told.archive.arrivals()[-2:]
    assert {arrival.sop_class_uid for arrival in again} == {COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE}
    assert all(arrival.path.read_bytes() == before[arrival.sop_instance_uid] for arrival in again)


def test_deliver_to_an_unknown_destination_is_wrong_usage_and_names_the_known_ones(told: Site) -> None:
    done = told.run("deliver", "--now", "--to", "nowhere")
    assert (done.returncode, "configured: pacs" in done.stderr) == (2, True)


def test_rerun_of_what_did_not_change_makes_no_revision(told: Site) -> None:
    match = told.match_of(FORCED)
    done = told.run("rerun", "--match", str(match["match_id"]), "--json")
    (answer,) = json.loads(done.stdout)
    assert (answer["done"], "unchanged" in answer["what"]) == (False, True)
    assert told.match_of(FORCED) == match


@pytest.mark.parametrize("option", ["--study", "--patient", "--accession"])
def test_rerun_finds_matches_by_what_an_administrator_knows(told: Site, option: str) -> None:
    match = told.match_of(FORCED)
    value = {"--study": "study_uid", "--patient": "patient_id", "--accession": "accession_number"}[option]
    answers = told.json("rerun", option, match[value])
    assert [answer["match_id"] for answer in answers] == [match["match_id"]]


def test_rerun_of_what_nobody_knows_fails_and_says_so(told: Site) -> None:
    done = told.run("rerun", "--accession", "no such number")
    assert (done.returncode, "no match is known" in done.stderr) == (1, True)
    assert told.run("rerun").returncode == 2


def test_rerun_force_makes_a_new_report_that_names_its_predecessor(told: Site) -> None:
    old = told.match_of(FORCED)
    told.run("rerun", "--match", str(old["match_id"]), "--force", "--now")
    told.run("deliver", "--now")
    _names_its_predecessor(told, FORCED, old)


def test_rerun_after_a_change_of_model_makes_a_new_report_by_that_model(
    told: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    shutil.copytree(locate("synthetic-demo"), package)
    manifest = parse_manifest((package / "manifest.json").read_bytes())
    (package / "manifest.json").write_bytes(replace(manifest, version="9.9.9").to_bytes())
    monkeypatch.setenv("PULMOLINK_MODEL_PACKAGE", str(package))
    old = told.match_of(MODEL_CHANGED)
    (answer,) = told.json("rerun", "--patient", old["patient_id"], "--now")
    assert answer["done"] is True
    told.run("deliver", "--now")
    _names_its_predecessor(told, MODEL_CHANGED, old)
    new = told.match_of(MODEL_CHANGED)
    assert new["model"].endswith(" 9.9.9")
    assert new["model_digest"] != old["model_digest"]
    monkeypatch.delenv("PULMOLINK_MODEL_PACKAGE")


def test_a_nearer_ecg_supersedes_and_the_new_report_names_the_old_one(told: Site) -> None:
    old = told.match_of(NEARER)
    near = _nearer_ecg(told, NEARER)
    folder = told.node.folder.parent / "nearer"
    folder.mkdir()
    (folder / "ecg.dcm").write_bytes(near)
    told.run("import", str(folder))
    told.run("deliver", "--now")
    _names_its_predecessor(told, NEARER, old)
    new = told.match_of(NEARER)
    assert new["ecg_uid"] == dcmread(io.BytesIO(near), stop_before_pixels=True).SOPInstanceUID
    assert (new["gap_seconds"], old["gap_seconds"] > 3600) == (3600.0, True)
    everything = told.json("matches", "--all", "--patient", old["patient_id"])
    assert {row["match_id"]: row["state"] for row in everything} == {
        old["match_id"]: "SUPERSEDED",
        new["match_id"]: "DELIVERED",
    }


def _nearer_ecg(told: Site, index: int) -> bytes:
    """Another ECG of the patient, an hour after the radiograph."""
    radiograph_at = datetime.fromisoformat(told.match_of(index)["radiograph_at"])
    other = make_patient(index, SEED + 1, Scenario.PAIRED_WAVEFORM)
    ecg = dcmread(io.BytesIO(other.objects[1].part10))
    person = dcmread(told.cohort / told.truths[index].patient_id / "radiograph.dcm", stop_before_pixels=True)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "SpecificCharacterSet"):
        setattr(ecg, keyword, person[keyword].value)
    ecg.AcquisitionDateTime = f"{radiograph_at + timedelta(hours=1):%Y%m%d%H%M%S}+0000"
    buffer = io.BytesIO()
    ecg.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _names_its_predecessor(told: Site, index: int, old: dict[str, Any]) -> None:
    """The patient's current match stands for `old`, and so does its SR in the archive."""
    new = told.match_of(index)
    assert (new["state"], new["revision"], new["supersedes"]) == ("DELIVERED", 2, old["match_id"])
    first, second = told.reports_of(index)
    assert "PredecessorDocumentsSequence" not in first
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID, instance.ReferencedSOPInstanceUID) == (
        first.StudyInstanceUID,
        first.SeriesInstanceUID,
        first.SOPInstanceUID,
    )
    shown = told.json("show", str(old["match_id"]))
    assert (shown["match"]["state"], shown["match"]["superseded_by"]) == ("SUPERSEDED", new["match_id"])


@pytest.fixture(scope="module")
def page(site: Site) -> Path:
    """An ECG page as a PDF file, with nothing of DICOM about it."""
    ecg = make_patient(0, SEED, Scenario.PAIRED_PDF_3X4).objects[1].part10
    file = site.node.folder.parent / "page.pdf"
    file.write_bytes(bytes(dcmread(io.BytesIO(ecg)).EncapsulatedDocument))
    return file


def test_ecg_add_brings_in_a_page_that_pairs_like_any_other_ecg(told: Site, page: Path) -> None:
    """The radiograph whose only ECG was nine days away gets this one."""
    index = [scenario_of(number) for number in range(PATIENTS)].index(Scenario.ECG_NINE_DAYS_AWAY)
    match = told.match_of(index)
    assert match["state"] == "UNPAIRED"
    options = ["--patient-id", match["patient_id"], "--issuer", match["issuer"]]
    done = told.run("ecg", "add", *options, "--acquired-at", match["radiograph_at"], str(page))
    assert f"stored; goes with match {match['match_id']}" in done.stdout
    assert told.match_of(index)["state"] == "PAIRED"
    again = told.run("ecg", "add", *options, "--acquired-at", match["radiograph_at"], str(page))
    assert "was stored before" in again.stdout
    # Every other command leaves a PAIRED match to the workers; rerun --now is asked to wait for it.
    (answer,) = told.json("rerun", "--patient", match["patient_id"], "--now")
    assert answer["what"] == "is in the queue already"
    told.run("deliver", "--now")
    assert (told.match_of(index)["state"], told.match_of(index)["gap_seconds"]) == ("DELIVERED", 0.0)


@pytest.mark.parametrize(
    ("arguments", "content", "status", "says"),
    [
        (["--patient-id", "X", "--acquired-at", "2026-03-01T09:30"], b"no PDF at all", 1, "refused:"),
        (["--patient-id", "X", "--acquired-at", "2026-03-01T09:30"], b"", 1, "empty"),
        (["--patient-id", "X", "--acquired-at", "2026-03-01T09:30"], bytes(128) + b"DICM", 2, "pulmolink import"),
        (["--patient-id", "X", "--acquired-at", "yesterday"], None, 2, "ISO 8601"),
        (["--patient-id", " ", "--acquired-at", "2026-03-01T09:30"], None, 2, "--patient-id is blank"),
        (["--patient-id", "X", "--acquired-at", "2026-03-01", "--birth-date", "1950"], None, 2, "YYYYMMDD"),
    ],
    ids=["not a PDF", "empty file", "a DICOM file", "no time", "blank patient ID", "short birth date"],
)
def test_ecg_add_refuses_with_a_reason_and_stores_nothing(
    told: Site, page: Path, tmp_path: Path, arguments: list[str], content: bytes | None, status: int, says: str
) -> None:
    before = told.json("status")["instances"]
    file = page
    if content is not None:
        file = tmp_path / "ecg.pdf"
        file.write_bytes(content)
    done = told.run("ecg", "add", *arguments, str(file))
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    assert told.json("status")["instances"] == before


@contextmanager
def refusing_archive(port: int, answer: list[int]) -> Iterator[None]:
    """A destination that takes everything and answers each object with `answer[0]`."""
    ae = AE(ae_title="ORTHANC")
    for sop_class in (VERIFICATION, COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE):
        ae.add_supported_context(sop_class)
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _event: answer[0])])
    try:
        yield
    finally:
        ae.shutdown()


def test_a_refused_delivery_is_failed_with_its_status_and_deliver_failed_drives_it_again(tmp_path: Path) -> None:
    port = free_port()
    node = Node(tmp_path / "node", {"strict": port})
    node.configure()
    desk = Desk(node=node)
    _import_one_pair(desk, tmp_path)
    answer = [0xA900]
    with refusing_archive(port, answer):
        desk.run("deliver", "--now")
        (match,) = desk.matches()
        deliveries = desk.json("show", str(match["match_id"]))["deliveries"]
        assert [(entry["state"], entry["last_status"]) for entry in deliveries] == [("FAILED", "0xA900")] * 2
        (destination,) = desk.json("status")["destinations"]
        assert (destination["failed"], destination["last_error"]) == (2, "status 0xA900")
        assert match["state"] == "REPORTED"
        answer[0] = 0x0000
        done = desk.run("deliver", "--failed", "--to", "strict", "--now")
        assert done.stdout.startswith("2 failed deliveries driven again\n0 deliveries still pending")
    assert desk.matches()[0]["state"] == "DELIVERED"


def test_deliver_now_to_a_destination_that_is_down_says_so_and_is_done_in_part(tmp_path: Path) -> None:
    node = Node(tmp_path / "node", {"down": free_port()})
    node.configure()
    desk = Desk(node=node)
    _import_one_pair(desk, tmp_path)
    done = desk.run("deliver", "--now")
    assert (done.returncode, done.stdout) == (3, "2 deliveries still pending; no answer from down\n")


def _import_one_pair(desk: Desk, folder: Path) -> PhantomPatient:
    patient = make_patient(0, SEED, Scenario.PAIRED_WAVEFORM)
    (folder / "pair").mkdir()
    for item in patient.objects:
        (folder / "pair" / item.name).write_bytes(item.part10)
    desk.run("import", str(folder / "pair"))
    return patient


def test_doctor_finds_nothing_wrong_with_a_site_that_works(told: Site) -> None:
    done = told.run("doctor", "--json")
    checks = {check["part"]: check for check in json.loads(done.stdout)}
    assert {part: check["ok"] for part, check in checks.items()} == dict.fromkeys(checks, True)
    assert done.returncode == 0
    assert set(checks) >= {"configuration", "database", "objects", "model", "DICOM port", "web port"}
    assert "golden cases reproduced" in checks["model"]["found"]
    assert "accepts sr, overlay" in checks["destination pacs"]["found"]


def test_doctor_names_a_destination_that_is_down_and_one_that_takes_no_reports(tmp_path: Path) -> None:
    port = free_port()
    node = Node(tmp_path / "node", {"down": free_port(), "pictures": port})
    node.configure()
    desk = Desk(node=node)
    desk.run("db", "upgrade")
    ae = AE(ae_title="ORTHANC")
    for sop_class in (VERIFICATION, SECONDARY_CAPTURE):
        ae.add_supported_context(sop_class)
    ae.start_server(("127.0.0.1", port), block=False)
    try:
        done = desk.run("doctor", "--json")
    finally:
        ae.shutdown()
    found = {check["part"]: (check["ok"], check["found"]) for check in json.loads(done.stdout)}
    assert done.returncode == 1
    assert found["destination down"][0] is False
    assert "check host, port" in found["destination down"][1]
    assert found["destination pictures"][0] is False
    assert "does not accept sr" in found["destination pictures"][1]
    assert found["model"][0] is True


def test_db_verify_finds_a_damaged_object_and_backup_gives_a_database_that_works(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.configure()
    desk = Desk(node=node)
    _import_one_pair(desk, tmp_path)
    assert desk.run("db", "verify") == Answer(returncode=0, stdout="0 problems\n", stderr="")
    backup = tmp_path / "backup.db"
    desk.run("db", "backup", str(backup))
    other = Node(tmp_path / "other")
    other.configure()
    shutil.copy(backup, tmp_path / "other" / "pulmolink.db")
    shutil.copytree(tmp_path / "node" / "objects", tmp_path / "other" / "objects", dirs_exist_ok=True)
    assert Desk(node=other).matches() == desk.matches()
    assert Desk(node=other).run("db", "verify") == Answer(returncode=0, stdout="0 problems\n", stderr="")
    sha256 = desk.json("show", str(desk.matches()[0]["match_id"]))["ecg"]["sha256"]
    damaged = ObjectStore(tmp_path / "node" / "objects").path(sha256)
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
    done = desk.run("db", "verify")
    assert done.returncode == 1
    assert sha256 in done.stdout


def test_the_json_of_matches_status_and_show_has_the_promised_fields(told: Site) -> None:
    """Tools outside this repository read these."""
    rows = told.matches()
    promised = {"match_id", "state", "radiograph_uid", "ecg_uid", "gap_seconds", "mpap_mmhg", "model", "reason"}
    assert all(promised <= set(row) for row in rows)
    status = told.json("status")
    assert sum(status["matches"].values()) == len(told.json("matches", "--all"))
    assert {"matches", "queue_age_seconds", "destinations", "notice"} <= set(status)
    (destination,) = status["destinations"]
    assert (destination["name"], destination["pending"], destination["failed"]) == ("pacs", 0, 0)
    shown = told.json("show", told.match_of(FORCED)["radiograph_uid"])
    assert {"match", "estimate", "radiograph", "ecg", "reports", "deliveries", "notice"} <= set(shown)
    assert len(shown["estimate"]["patch_mpap_mmhg"]) == 9


def test_show_of_an_unknown_match_fails_with_one_sentence(told: Site) -> None:
    for name in ("999999", "1.2.3"):
        done = told.run("show", name)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("command", ["matches", "status", "show", "doctor"])
def test_a_listing_fits_its_terminal(told: Site, command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    arguments = [command, str(told.match_of(FORCED)["match_id"])] if command == "show" else [command]
    printed = told.run(*arguments).stdout
    assert max(map(len, printed.splitlines())) <= columns
    assert "research use only" in " ".join(printed.split())


def test_serve_ends_with_status_0_on_sigterm_although_a_port_probe_and_an_idle_association_are_open(
    tmp_path: Path,
) -> None:
    node = Node(tmp_path / "node")
    node.start()
    eventually(lambda: '"model_loaded"' in node.log, 60, "the worker has its model")
    ae = AE(ae_title="IDLE")
    ae.add_requested_context(VERIFICATION)
    idle = ae.associate("127.0.0.1", node.port)
    assert idle.is_established
    with socket.create_connection(("127.0.0.1", node.port)):
        assert node.stop() == 0
    assert "process_killed" not in node.log
    assert node.log.rstrip().endswith("}")
    idle.abort()


def test_serve_says_at_its_start_that_a_port_is_taken(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.configure()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", node.port))
        taken.listen()
        done = node.run("serve", check=False)
    assert done.returncode == 2
    assert f"node.host, node.port: cannot listen on 127.0.0.1:{node.port}" in done.stderr
