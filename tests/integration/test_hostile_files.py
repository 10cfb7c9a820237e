"""Files made to do harm, sent by C-STORE to a real node: each is refused with its reason, and studies go on."""

from __future__ import annotations

import re
from pathlib import Path

from inference.phantoms import Scenario
from pacs_node.dicom.archive import Archive
from tests.integration.rig import Node, eventually, free_port
from tests.integration.test_bad_input import SUCCESS, base, copied, patient_id, pdf, send
from tests.unit.opening import hostile

LIMITS = "[limits]\nopening_bytes = 805306368\nopening_cpu_seconds = 2\n"
HARM = {
    "a stream of 400 MB in a kilobyte": (pdf(hostile.stream_bomb), "ecg_refused: opening_crashed"),
    "four million lines": (pdf(hostile.endless_drawing), "ecg_refused: opening_"),
    "a page of 35 km": (pdf(hostile.giant_page), "ecg_refused: too_large"),
}


def test_each_is_refused_and_other_studies_go_on(tmp_path: Path) -> None:
    archive_port = free_port()
    with (
        Archive(tmp_path / "archive", archive_port, ae_title="ORTHANC"),
        Node(tmp_path / "node", {"archive": archive_port}, extra=LIMITS) as node,
    ):
        radiograph, page = (item.part10 for item in base(Scenario.PAIRED_PDF_3X4).objects)
        expected = {}
        for number, (spoil, reason) in enumerate(HARM.values()):
            expected[patient_id(number)] = ("HELD", reason)
            for content in (copied(radiograph, number), spoil(copied(page, number))):
                assert send(node.port, content, tmp_path).Status == SUCCESS
        bomb, good = len(HARM), len(HARM) + 1
        expected[patient_id(bomb)] = ("HELD", "radiograph_refused: too_large")
        expected[patient_id(good)] = ("DELIVERED", "")
        for content in (hostile.claims_pixels(copied(radiograph, bomb), 65535, 65535), copied(page, bomb)):
            assert send(node.port, content, tmp_path).Status == SUCCESS
        for content in (copied(radiograph, good), copied(page, good)):
            assert send(node.port, content, tmp_path).Status == SUCCESS

        def settled() -> bool:
            found = {row["patient_id"]: (row["state"], row["reason"] or "") for row in node.matches()}
            return all(
                found.get(patient, ("", ""))[0] == state and found[patient][1].startswith(reason)
                for patient, (state, reason) in expected.items()
            )

        eventually(settled, 120, f"every study is settled; the log says {node.log[-2000:]}")
        assert "process_ended" not in node.log, "no process of the service ended"
        assert "stage_failed" not in node.log, "nothing was tried again and again"
        assert node.log.count('"opening_failed"') <= 2 * len(HARM)
        assert _with_pdfium(node) == {"pacs_node.opening.server"}


def _with_pdfium(node: Node) -> set[str]:
    """What runs of the node that has the PDF library in its memory."""
    assert node.process is not None
    numbers, found = [node.process.pid], set()
    for number in numbers:
        process = Path(f"/proc/{number}")
        numbers += map(int, (process / "task" / str(number) / "children").read_text().split())
        if re.search("pdfium", (process / "maps").read_text()):
            found.add((process / "cmdline").read_bytes().split(b"-m\0")[1].split(b"\0")[0].decode())
    assert len(numbers) > 5, "serve, its four kinds of process, and the one that opens files"
    return found
