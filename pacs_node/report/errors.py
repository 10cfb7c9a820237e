"""What can go wrong in making a report. No message names a patient."""

from __future__ import annotations


class ReportError(Exception):
    """No report can be made of these inputs. `hint` says what a person may do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PatientsDiffer(ReportError):
    """Radiograph and ECG are not, or not surely, of one person. `attribute` is the keyword that differs."""

    def __init__(self, attribute: str) -> None:
        super().__init__(
            f"radiograph and ECG contradict each other in {attribute}",
            hint="nothing was reported; compare the two headers before pairing them again",
        )
        self.attribute = attribute


class HeaderUnusable(ReportError):
    """The header lacks something, or holds something, without which no conformant object can be written."""

    def __init__(self, attribute: str, reason: str) -> None:
        super().__init__(f"{attribute} {reason}", hint="correct the header at its source and send it again")
        self.attribute = attribute
