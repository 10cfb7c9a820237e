"""What the findings about the two inputs amount to: one verdict an input, with its reasons in words."""

from __future__ import annotations

from dataclasses import dataclass

from pacs_node.report.inputs import ReportInputs


@dataclass(frozen=True, kw_only=True)
class InputQuality:
    """The verdict on one input. An input that reaches a report is usable."""

    subject: str  # "radiograph" or "ecg"
    meets_standard: bool  # False: something was found that a reader should weigh
    notes: tuple[str, ...]  # "code: detail" each


def input_qualities(inputs: ReportInputs) -> tuple[InputQuality, InputQuality]:
    """The verdicts on radiograph and ECG.

    A finding of severity "note" is told but does not lower the verdict; any other finding does, and so does
    every quality finding of the ECG's reader, which reports only what a reader of the ECG should know.
    """
    notes: dict[str, list[str]] = {"radiograph": [], "ecg": []}
    lowered = set()
    for finding in inputs.prediction.findings:
        notes[finding.subject].append(f"{finding.code}: {finding.detail}")
        if finding.severity != "note":
            lowered.add(finding.subject)
    for found in inputs.leads.quality:
        # Worded as a prediction's finding about one lead is, so that one told by both stands here once.
        detail = f"{found.lead}: {found.detail}" if found.lead else found.detail
        notes["ecg"].append(f"{found.code}: {detail}")
        lowered.add("ecg")
    radiograph, ecg = (
        InputQuality(subject=subject, meets_standard=subject not in lowered, notes=tuple(dict.fromkeys(notes[subject])))
        for subject in ("radiograph", "ecg")
    )
    return radiograph, ecg
