"""The whole way once with real parts: DCMTK sends real files, Orthanc gets the reports, the validators read them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from pydicom import dcmread

from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE
from tests.integration.conftest import JAPANESE_NAME, RealPatient
from tests.integration.rig import Node, Orthanc, eventually, storescu


def test_a_radiograph_and_an_ecg_give_a_report_and_an_overlay_in_the_radiographs_study(
    tmp_path: Path, real_patient: RealPatient, orthanc: Orthanc, tool: Callable[[str], str]
) -> None:
    """Issue 2, must show 2."""
    with Node(tmp_path / "node", {"pacs": orthanc.port}) as node:
        for file, propose in ((real_patient.radiograph_file, "-xw"), (real_patient.ecg_file, "-x=")):
            sent = storescu(tool("storescu"), node.port, file, propose=propose)
            assert sent.returncode == 0, sent.stderr
        held = eventually(
            lambda: len(orthanc.instances()) == 2 and orthanc.instances(), 60, "SR and overlay in Orthanc"
        )
        (match,) = eventually(
            lambda: [row for row in node.matches() if row["state"] == "DELIVERED"], 20, "the match is DELIVERED"
        )
        log = node.log

    assert {entry["sop_class"] for entry in held} == {COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE}
    assert {entry["study"] for entry in held} == {real_patient.radiograph.StudyInstanceUID}
    assert match["radiograph_uid"] == real_patient.radiograph.SOPInstanceUID
    assert match["ecg_uid"] == real_patient.ecg.SOPInstanceUID
    assert match["gap_seconds"] == 3 * 86400
    assert match["interval_low_mmhg"] < match["mpap_mmhg"] < match["interval_high_mmhg"]
    for entry in held:
        file = orthanc.file(entry["id"], tmp_path / f"{entry['id']}.dcm")
        assert errors_of_dciodvfy(tool("dciodvfy"), file) == []
        returned = dcmread(file)
        assert str(returned.PatientName) == JAPANESE_NAME
        assert returned.PatientID == "RIG-001"
        assert returned.AccessionNumber == "ACC1"
        if entry["sop_class"] == COMPREHENSIVE_3D_SR:
            printed = subprocess.run([tool("dsrdump"), str(file)], capture_output=True, text=True, check=True).stdout
            assert "Pulmonary artery Mean blood pressure" in printed
            assert f"{match['mpap_mmhg']:.0f}" in printed
            assert "RESEARCH USE ONLY" in printed
    for identity in ("RIG-001", "Yamada", "山田", "19500101", "ACC1"):
        assert identity not in log


def errors_of_dciodvfy(program: str, file: Path) -> list[str]:
    """The error lines that dciodvfy prints."""
    checked = subprocess.run([program, str(file)], capture_output=True, text=True, check=False)
    return [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]


def test_a_destination_that_was_down_for_the_whole_run_gets_everything_once(
    tmp_path: Path, real_patient: RealPatient, tool: Callable[[str], str]
) -> None:
    """Issue 2, must show 4; a second destination that is up is not held back meanwhile."""
    late = Orthanc(tool("Orthanc"), tmp_path / "late")
    with (
        Orthanc(tool("Orthanc"), tmp_path / "up") as up,
        Node(
            tmp_path / "node",
            {"late": late.port, "up": up.port},
            extra="[delivery]\nprobe_seconds = 1\n",
        ) as node,
    ):
        storescu(tool("storescu"), node.port, real_patient.ecg_file)
        storescu(tool("storescu"), node.port, real_patient.radiograph_file, propose="-xw")
        eventually(lambda: len(up.instances()) == 2, 60, "the destination that is up has both reports")
        (match,) = node.matches()
        assert match["state"] == "REPORTED"
        assert node.stop() == 0
        node.start()
        with late:
            eventually(lambda: len(late.instances()) == 2, 60, "the late destination has both reports")
            eventually(lambda: node.matches()[0]["state"] == "DELIVERED", 20, "the match is DELIVERED")
            assert sorted(entry["uid"] for entry in late.instances()) == sorted(
                entry["uid"] for entry in up.instances()
            )
            details = node.json("show", str(match["match_id"]))
    assert [entry["state"] for entry in details["deliveries"]] == ["DELIVERED"] * 4
