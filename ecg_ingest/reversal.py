"""Electrodes exchanged at the patient, by the shape of the leads. Findings only: dextrocardia looks the same.

The limb equations hold whichever arm an electrode is on, so only morphology can tell.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.beats import beat_samples, likeness, usual_beat
from ecg_ingest.lead_images import LEADS, QualityFinding
from ecg_ingest.recording import Recording

MIRRORED = -0.65  # correlation of a lead's usual beat with V6's
ALIKE = 0.5
NEARLY_FLAT = 0.12  # of the usual height of the other limb leads: a lead between two electrodes on legs
NEARLY_FLAT_MILLIVOLTS = 0.15
_LAG_SECONDS = 0.04

CODE = "lead_reversal_suspected"


def reversed_electrodes(recording: Recording) -> tuple[QualityFinding, ...]:
    """At most one finding: arms exchanged, right arm and left leg exchanged, or an arm exchanged with the right leg.

    An exchange of left arm and left leg shows in no shape and is not found.
    """
    heights = {lead: _height(recording, lead) for lead in LEADS[:6]}
    usual = float(np.median(list(heights.values())))
    for lead, arm in (("II", "right"), ("III", "left")):
        if 0.0 < heights[lead] < min(NEARLY_FLAT * usual, NEARLY_FLAT_MILLIVOLTS):
            return (_finding(f"lead {lead} is nearly flat beside the others: {arm} arm and right leg exchanged"),)
    shapes = {}
    beats: dict[tuple[str, ...], NDArray[np.int64]] = {}  # of leads recorded together, often all twelve
    for lead in ("I", "II", "aVR", "V6"):
        together = _recorded_with(recording, lead)
        if together not in beats:
            beats[together] = beat_samples(recording, together)
        beat = usual_beat(recording, lead, beats[together])
        if beat is None:
            return ()
        shapes[lead] = beat
    lag = round(_LAG_SECONDS * recording.sampling_hz)
    with_v6 = {lead: likeness(shapes[lead], shapes["V6"], lag) for lead in ("I", "II", "aVR")}
    # A left axis with a deep S wave in V6 is the mirror of V6 too, but lead I then points up.
    if with_v6["I"] < MIRRORED and _points_down(shapes["I"]):
        return (_finding("lead I is the mirror of V6: arm electrodes exchanged, or dextrocardia"),)
    if with_v6["II"] < MIRRORED and with_v6["aVR"] > ALIKE and _points_down(shapes["II"]):
        return (_finding("lead II is the mirror of V6 and aVR is like it: right arm exchanged with the left leg"),)
    return ()


def _points_down(beat: NDArray[np.float64]) -> bool:
    """Whether the largest deflection is negative."""
    return bool(beat[np.argmax(np.abs(beat))] < 0.0)


def _finding(detail: str) -> QualityFinding:
    return QualityFinding(code=CODE, lead="", detail=detail)


def _recorded_with(recording: Recording, lead: str) -> tuple[str, ...]:
    """Leads whose samples are there whenever this lead's are, on its clock: the other leads of a sheet's column."""
    own = np.isfinite(recording.lead(lead))
    clock = recording.clocks[LEADS.index(lead)]
    return tuple(
        other
        for other, its_clock in zip(LEADS, recording.clocks, strict=True)
        if its_clock == clock and np.isfinite(recording.lead(other))[own].all()
    )


def _height(recording: Recording, lead: str) -> float:
    """The usual peak-to-peak height of a second of a lead, in mV."""
    samples = recording.lead(lead)
    second = round(recording.sampling_hz)
    blocks = [samples[at : at + second] for at in range(0, samples.size - second + 1, second)]
    heights = [float(np.ptp(block)) for block in blocks if np.isfinite(block).all()]
    return float(np.median(heights)) if heights else 0.0
