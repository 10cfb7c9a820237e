"""Milliseconds from the last acknowledgement of a pair to the arrival of its reports in the archive.

Patients are sent one after the other, each when the one before is answered: the time of one examination, not of a
queue. With "ECG last" the radiograph was sent well before, so that its chest embedding is kept.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from inference.phantoms import PhantomObject, PhantomPatient, Scenario, make_patient
from pacs_node.dicom.archive import Archive
from pacs_node.dicom.client import Conversation, Peer
from pacs_node.flow.part10 import from_part10
from pacs_node.flow.sop_classes import COMPREHENSIVE_3D_SR
from tests.benchmarks.record import Recorder, load_now
from tests.integration.rig import Node, eventually

SEED = 9
LIMIT_SECONDS = 60.0
REPORTS = ("SR", "overlay")


@dataclass
class Course:
    """Sends patients to `node` and times what comes back to `archive`."""

    node: Node
    archive: Archive
    folder: Path
    seen: int = 0  # arrivals of patients answered before
    patients: int = 0  # made so far, so that each is another one
    samples: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def run(self, case: str, scenario: Scenario, count: int, *, ecg_last: bool) -> None:
        """`count` patients of one scenario, in one order."""
        # Recent ones: a radiograph whose window has closed is not looked at before its ECG comes.
        taken = datetime.now(UTC) - timedelta(days=2)
        patients = [
            make_patient(self.patients + number, SEED, scenario, radiograph_at=taken) for number in range(count)
        ]
        self.patients += count
        if ecg_last:
            worked = len(stage_times(self.node)["WAITING"])
            for patient in patients:
                self._send(patient.objects[0])
            eventually(
                lambda: len(stage_times(self.node)["WAITING"]) >= worked + count,
                10 * LIMIT_SECONDS,
                "every chest embedding is kept",
            )
        for patient in patients:
            for kind, milliseconds in self._answer(patient, ecg_last=ecg_last).items():
                self.samples[case][kind].append(milliseconds)

    def _answer(self, patient: PhantomPatient, *, ecg_last: bool) -> dict[str, float]:
        radiograph, ecg = patient.objects[0], patient.objects[1]
        if not ecg_last:
            self._send(ecg)
        acknowledged = self._send(ecg if ecg_last else radiograph)
        arrivals = eventually(
            lambda: len(self.archive.arrivals()) >= self.seen + 2 and self.archive.arrivals()[self.seen :],
            LIMIT_SECONDS,
            "SR and overlay are in the archive",
        )
        self.seen += len(arrivals)
        return {
            ("SR" if arrival.sop_class_uid == COMPREHENSIVE_3D_SR else "overlay"): 1000 * (arrival.at - acknowledged)
            for arrival in arrivals
        }

    def _send(self, item: PhantomObject) -> float:
        """C-STORE one object over an association of its own; when it was acknowledged."""
        parts = from_part10(item.part10)
        path = self.folder / "object.dcm"
        path.write_bytes(item.part10)
        peer = Peer(
            ae_title="PULMOLINK", host="127.0.0.1", port=self.node.port, calling_ae_title="BENCH", timeout_seconds=60
        )
        context = (parts.sop_class_uid, parts.transfer_syntax_uid)
        with Conversation(peer, [context]) as conversation:
            status = conversation.store(path, sop_class=context[0], transfer_syntax=context[1])
            acknowledged = time.monotonic()
        if status != 0:
            raise RuntimeError(f"the node answered 0x{status:04X}")
        return acknowledged


def measure(course: Course, recorder: Recorder, patients: int, tell: Callable[[str], None]) -> None:
    """The first answer after the start, then each case."""
    load = load_now()
    tell("first answer after the start")
    course.run("first after start, ECG waveform last", Scenario.PAIRED_WAVEFORM, 1, ecg_last=True)
    for case, scenario, count, ecg_last in (
        ("ECG waveform last, chest embedding kept", Scenario.PAIRED_WAVEFORM, patients, True),
        ("ECG page (PDF) last, chest embedding kept", Scenario.PAIRED_PDF_3X4, max(1, patients // 2), True),
        ("radiograph last", Scenario.PAIRED_WAVEFORM, patients, False),
    ):
        tell(f"{case}: {count} patients")
        course.run(case, scenario, count, ecg_last=ecg_last)
    for case, by_kind in course.samples.items():
        for kind in REPORTS:
            recorder.add(
                "answer (last acknowledgement to arrival in the archive)",
                f"{case}: to {kind}",
                "ms",
                by_kind[kind],
                load,
                case=case,
                report=kind,
                seed=SEED,
            )
    for stage, times in stage_times(course.node).items():
        recorder.add("stage", f"worker, {stage.lower()} (its log)", "ms", times, load, stage=stage)


def stage_times(node: Node) -> dict[str, list[float]]:
    """Milliseconds of each stage worked so far, by the state it started from, as the worker's log says."""
    times: dict[str, list[float]] = defaultdict(list)
    for line in node.log.splitlines():
        if '"worked"' in line:
            entry = json.loads(line)
            times[entry["stage"]].append(float(entry["milliseconds"]))
    return times
