"""Objects to send: copies of one phantom object, each with identities of its own, as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inference.phantoms import Scenario, make_patient

SEED = 5


@dataclass(frozen=True, kw_only=True)
class Template:
    """One object to copy. UID and patient ID are replaced by others of the same length, so nothing is re-encoded."""

    subject: str
    part10: bytes
    sop_instance_uid: str
    patient_id: str

    def write(self, folder: Path, first: int, count: int) -> list[Path]:
        """Files of `count` distinct instances of distinct patients, numbered from `first`."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number in range(first, first + count):
            uid = f"{self.sop_instance_uid[:-9]}{number:09d}"
            patient_id = f"B{number:0{len(self.patient_id) - 1}d}"
            content = self.part10.replace(self.sop_instance_uid.encode(), uid.encode())
            path = folder / f"{number:09d}.dcm"
            path.write_bytes(content.replace(self.patient_id.encode(), patient_id.encode()))
            paths.append(path)
        return paths


def ecg() -> Template:
    """A 12-lead waveform, 10 s at 500 Hz. Without radiographs nothing is paired: reception alone is measured."""
    patient = make_patient(0, SEED, Scenario.PAIRED_WAVEFORM)
    return _template("ECG", patient.objects[1].part10, patient.objects[1].sop_instance_uid, patient.truth.patient_id)


def radiograph() -> Template:
    """An AP radiograph: stored and ignored, so that no estimate competes and reception alone is measured."""
    patient = make_patient(0, SEED, Scenario.AP_VIEW)
    return _template(
        "radiograph", patient.objects[0].part10, patient.objects[0].sop_instance_uid, patient.truth.patient_id
    )


def _template(subject: str, part10: bytes, uid: str, patient_id: str) -> Template:
    return Template(
        subject=f"{subject} of {len(part10) / 1e6:.2g} MB", part10=part10, sop_instance_uid=uid, patient_id=patient_id
    )
