"""Orthanc asks us for storage commitment and is asked by us, over a whole run (issue 3)."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

from pacs_node.settings import load
from storage.records import MatchState
from storage.store import Store
from tests.integration.conftest import RealPatient
from tests.integration.rig import Node, Orthanc, eventually

BOTH_WAYS = """
[[sources]]
ae_title = "ORTHANC"
host = "127.0.0.1"
commitment_port = {port}
[[destinations]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = {port}
commitment = true
"""


def post(orthanc: Orthanc, path: str, content: bytes, method: str = "POST") -> Any:
    asked = urllib.request.Request(f"http://127.0.0.1:{orthanc.http_port}{path}", data=content, method=method)
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
        return json.loads(answer.read() or b"null")


def ends(node: Node, state: MatchState) -> None:
    """The one match comes to `state`; asked of the rows, because a command takes a second to start."""
    with Store.open(load(node.config).storage.database) as store:
        eventually(lambda: [match.state for match in store.matches()] == [state], 90, f"the match is {state}")


def told(orthanc: Orthanc, transaction: str) -> dict[str, Any]:
    """What Orthanc was reported on a transaction, once it was."""

    def report() -> Any:
        found = orthanc.get(f"/storage-commitment/{transaction}")
        return found if found["Status"] != "Pending" else None

    found: dict[str, Any] = eventually(report, 20, "our report reaches Orthanc")
    return found


def test_orthanc_is_committed_to_and_commits_and_the_match_ends_committed(
    tmp_path: Path, real_patient: RealPatient, orthanc: Orthanc
) -> None:
    held = [
        post(orthanc, "/instances", file.read_bytes())["ID"]
        for file in (real_patient.radiograph_file, real_patient.ecg_file)
    ]
    node = Node(tmp_path / "node", extra=BOTH_WAYS.format(port=orthanc.port))
    modality = {"AET": "PULMOLINK", "Host": "127.0.0.1", "Port": node.port}
    post(orthanc, "/modalities/pulmolink", json.dumps(modality).encode(), method="PUT")
    with node:
        asked = {"DicomInstances": [[entry["sop_class"], entry["uid"]] for entry in orthanc.instances()]}
        order = {"Resources": held, "StorageCommitment": True, "Synchronous": True}
        post(orthanc, "/modalities/pulmolink/store", json.dumps(order).encode())
        kept = post(orthanc, "/modalities/pulmolink/storage-commitment", json.dumps(asked).encode())["ID"]
        asked["DicomInstances"].append(["1.2.840.10008.5.1.4.1.1.1", "1.2.3.4.5"])
        asked["DicomInstances"].append(["1.2.840.10008.5.1.4.1.1.7", asked["DicomInstances"][0][1]])
        in_part = post(orthanc, "/modalities/pulmolink/storage-commitment", json.dumps(asked).encode())["ID"]

        report = told(orthanc, kept)
        assert report["Status"] == "Success"
        assert {entry["SOPInstanceUID"] for entry in report["Success"]} == {
            real_patient.radiograph.SOPInstanceUID,
            real_patient.ecg.SOPInstanceUID,
        }
        report = told(orthanc, in_part)
        assert report["Status"] == "Failure"
        assert len(report["Success"]) == 2
        assert sorted(entry["FailureReason"] for entry in report["Failures"]) == [0x0112, 0x0119]

        ends(node, MatchState.COMMITTED)
        details = node.json("show", "1")
        status = node.json("status")
        assert node.stop() == 0
    assert [entry["state"] for entry in details["deliveries"]] == ["COMMITTED"] * 2
    assert [entry["commitment"] for entry in details["deliveries"]] == ["committed"] * 2
    assert status["commitment_requests"]["answered"] == 3  # with the one that went with the sending
    assert status["commitment_requests"]["unanswered"] == []
    (pacs,) = status["destinations"]
    assert (pacs["committed"], pacs["commitments_awaited"]) == (2, 0)
    assert len(orthanc.instances()) == 4


def test_what_orthanc_lost_is_sent_again(tmp_path: Path, real_patient: RealPatient, orthanc: Orthanc) -> None:
    """It says so when it is asked, and gets the same bytes once more."""
    node = Node(
        tmp_path / "node",
        extra=BOTH_WAYS.format(port=orthanc.port) + "[delivery]\nfirst_retry_seconds = 0.5\n"
        "[commitment]\nwait_seconds = 0\nanswer_seconds = 2\n",
    )
    with node:
        # Orthanc does not know us yet: it cannot report.
        folder = tmp_path / "examinations"
        folder.mkdir()
        for file in (real_patient.radiograph_file, real_patient.ecg_file):
            post(orthanc, "/instances", file.read_bytes())
            file.rename(folder / file.name)
        node.run("import", str(folder))
        eventually(lambda: len(orthanc.instances()) == 4, 60, "the reports are in Orthanc")
        ends(node, MatchState.DELIVERED)
        before = {entry["uid"] for entry in orthanc.instances()}
        lost = [entry for entry in orthanc.instances() if entry["sop_class"].endswith(".7")]
        for entry in lost:
            erase = urllib.request.Request(
                f"http://127.0.0.1:{orthanc.http_port}/instances/{entry['id']}", method="DELETE"
            )
            urllib.request.urlopen(erase, timeout=30).close()  # noqa: S310
        modality = {"AET": "PULMOLINK", "Host": "127.0.0.1", "Port": node.port}
        post(orthanc, "/modalities/pulmolink", json.dumps(modality).encode(), method="PUT")
        ends(node, MatchState.COMMITTED)
        assert len(lost) == 1
        assert {entry["uid"] for entry in orthanc.instances()} == before
        assert "commitment_taken" in node.log
