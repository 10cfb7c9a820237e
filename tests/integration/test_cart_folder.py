"""A folder into which carts drop sheets, under `serve`: a named one goes the whole way, an unnamed one is held."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom

from ecg_ingest.lead_images import LEADS
from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE
from tests.integration.conftest import RealPatient
from tests.integration.rig import Node, Orthanc, eventually, storescu
from tests.unit.ecg.ecg_builders import SheetStyle, sheet

FOLDER = """[folder]
path = "{path}"
pattern = '(?P<patient_id>[^_]+)_(?P<acquired_at>\\d{{14}})\\.pdf'
issuer = "RIG"
settle_seconds = 0.3
sidecar_seconds = 0.5
poll_seconds = 0.1
"""


def test_a_sheet_dropped_into_the_folder_of_serve_is_paired_reported_and_put_away(
    tmp_path: Path, real_patient: RealPatient, orthanc: Orthanc, tool: Callable[[str], str]
) -> None:
    """Issue 5, folders; the ECG is a page that a cart exported, three days after the radiograph."""
    carts = tmp_path / "carts"
    carts.mkdir()
    page = page_of(real_patient)
    with Node(tmp_path / "node", {"pacs": orthanc.port}, extra=FOLDER.format(path=carts)) as node:
        sent = storescu(tool("storescu"), node.port, real_patient.radiograph_file, propose="-xw")
        assert sent.returncode == 0, sent.stderr
        (carts / "RIG-001_20260304100000.pdf").write_bytes(page)
        (carts / "scan0001.pdf").write_bytes(page + b"\n")
        eventually(lambda: len(orthanc.instances()) == 2, 90, "SR and overlay in Orthanc")
        eventually(lambda: not [path for path in carts.iterdir() if path.is_file()], 30, "nothing is left to take")
        (match,) = eventually(
            lambda: [row for row in node.matches() if row["state"] == "DELIVERED"], 20, "the match is DELIVERED"
        )
        (held,) = node.json("held")
        log = node.log
        assert node.stop() == 0
    assert {entry["sop_class"] for entry in orthanc.instances()} == {COMPREHENSIVE_3D_SR, SECONDARY_CAPTURE}
    assert match["gap_seconds"] == 3 * 86400
    assert held["reason"].startswith("patient_id_blank")
    assert sorted(str(path.relative_to(carts)) for path in carts.rglob("*") if path.is_file()) == [
        "done/RIG-001_20260304100000.pdf",
        "held/scan0001.pdf",
        "held/scan0001.pdf.reason.txt",
    ]
    assert json.loads((carts / "held" / "scan0001.pdf.reason.txt").read_text())["reason"] == "patient_id_blank"
    assert "RIG-001" not in log


def page_of(patient: RealPatient) -> bytes:
    """The patient's ECG as a PDF page of 3x4 with a rhythm strip."""
    group = patient.ecg.WaveformSequence[0]
    raw = np.frombuffer(group.WaveformData, dtype="<i2").reshape(-1, 12).T[:, ::2]
    assert isinstance(patient.ecg, pydicom.Dataset)
    return sheet(dict(zip(LEADS, raw * 1.25e-3, strict=True)), SheetStyle())
