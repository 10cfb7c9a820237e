"""What limb leads say of one another: fill in missing ones, refuse leads that cannot be what they say.

Pure: recordings in, recordings or refusals out (Einthoven's and Goldberger's equations).
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS, EcgRefused, RefusalReason
from ecg_ingest.limb_beats import fit_beats
from ecg_ingest.recording import SHORTFALL_SECONDS, Recording, longest_run, runs

LIMB = LEADS[:6]
CHEST = LEADS[6:]

ALGEBRA_LIMIT = 0.35
"""Largest normalised residual of leads that are what they are called.

Measured on 30 PTB-XL records: correct leads at most .185, I and III (or aVL and aVF) exchanged at least
.49, Cabrera order read as standard at least 1.32.
"""

NOISE_RESIDUAL = 0.03  # below it nothing is wrong
EXCHANGE_RATIO = 0.67
"""An exchange of two limb leads that brings the residual below this share of it is what happened.

Measured on twelve PTB-XL records and all fifteen exchanges of each: undoing an exchange brought the
residual to at most .52 of it; exchanging two correct leads raised it to at least 1.9 times.
"""

BEATS_LIMIT, BEATS_RATIO = 0.25, 0.6
"""Of limb leads in two columns: another naming of their beats that leaves less than this, and less than this share of
what the names as they stand leave, is what was recorded.

Measured on 75 hearts (12 PTB-XL, 3 of PTB, 60 made) in 3x4, 4x3 and Cabrera order: of correct names none
was refused (lowest share .66, leaving .27); of all fifteen exchanges of each in 3x4, more than 92 % of the real hearts'
and 98 % of the made ones' were found.
"""

FLAT_MILLIVOLTS = 0.02
"""Peak to peak below which a lead is not connected: 0.2 mm on paper.

Over 2.5 s, the lowest lead of twelve PTB-XL records spans 0.236 mV.
"""

FLAT_ON_PAPER_MILLIVOLTS = 0.05  # half a millimetre: a pixel and the pen's wavering

_IN_TERMS_OF_I_AND_II = {
    "I": (1.0, 0.0),
    "II": (0.0, 1.0),
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}

_EQUATIONS: tuple[dict[str, float], ...] = (  # each sums to nothing
    {"I": 1.0, "II": -1.0, "III": 1.0},
    {"aVR": 1.0, "aVL": 1.0, "aVF": 1.0},
    {"aVR": 1.0, "I": 0.5, "II": 0.5},
    {"aVL": 1.0, "I": -1.0, "II": 0.5},
    {"aVF": 1.0, "I": 0.5, "II": -1.0},
    {"aVL": 1.0, "I": -0.5, "III": 0.5},
    {"aVF": 1.0, "II": -0.5, "III": -0.5},
    {"II": 1.0, "aVF": -2.0 / 3.0, "aVR": 2.0 / 3.0},  # a rhythm strip beside the augmented leads
)

PICTURE_LAG_SECONDS = 0.024
"""By how much rows of a picture may be shifted against one another: 0.6 mm, a lean of a quarter degree.

On twelve PTB-XL records it lets no wrong order of three leads pass that did not pass without it (lowest
residual of a wrong order .079 against .083, of the right one at most .131 against .132).
"""
_LAG_STEP = 2  # samples
_BEND_SECONDS = 0.6  # what is slower is the paper's: measured, it tells right from wrong orders as well as before

_COMPARABLE_SECONDS = 1.0  # shorter overlaps prove nothing


def complete(recording: Recording) -> Recording:
    """The recording with all twelve leads; those computed from others are named in `derived_leads`.

    Raises
    ------
    EcgRefused
        LEADS_MISSING, naming them, if a chest lead is absent or fewer than two limb leads share one clock.
    """
    missing = recording.missing
    if not missing:
        return recording
    absent_chest = [lead for lead in missing if lead in CHEST]
    pair = _best_pair(recording)
    if absent_chest or pair is None:
        unfilled = absent_chest if pair is not None else missing
        raise EcgRefused(
            RefusalReason.LEADS_MISSING,
            f"lead{'s' if len(unfilled) > 1 else ''} {', '.join(unfilled)} not recorded "
            f"({len(LEADS) - len(missing)} of 12 found)",
            "twelve leads are needed, or V1 to V6 and two limb leads, from which the others follow exactly",
        )
    signals = recording.signals_mv.copy()
    clocks = list(recording.clocks)
    first, second = recording.lead(pair[0]), recording.lead(pair[1])
    for lead in missing:
        a, b = weights(lead, pair)
        signals[LEADS.index(lead)] = a * first + b * second
        clocks[LEADS.index(lead)] = recording.clocks[LEADS.index(pair[0])]
    return replace(recording, signals_mv=signals, clocks=tuple(clocks), derived_leads=missing)


def weights(lead: str, pair: tuple[str, str]) -> tuple[float, float]:
    """`lead` as a sum of the two leads of `pair`, which may be any two limb leads."""
    (a, c), (b, d) = _IN_TERMS_OF_I_AND_II[pair[0]], _IN_TERMS_OF_I_AND_II[pair[1]]
    x, y = _IN_TERMS_OF_I_AND_II[lead]
    determinant = a * d - b * c
    return (x * d - y * b) / determinant, (y * a - x * c) / determinant


def _best_pair(recording: Recording) -> tuple[str, str] | None:
    """The two limb leads on one clock that overlap longest; I and II come first among equals."""
    best: tuple[int, tuple[str, str] | None] = (0, None)
    for pair in itertools.combinations(LIMB, 2):
        one, other = (recording.clocks[LEADS.index(lead)] for lead in pair)
        if one != other:
            continue
        overlap = int((np.isfinite(recording.lead(pair[0])) & np.isfinite(recording.lead(pair[1]))).sum())
        if overlap > best[0]:
            best = (overlap, pair)
    return best[1]


def refuse_impossible(recording: Recording, *, seconds: float, from_picture: bool = False) -> None:
    """Refuse leads that are too short, flat, or that break the limb equations.

    Parameters
    ----------
    recording : Recording
        All twelve leads.
    seconds : float
        How much of each lead a picture shows.
    from_picture : bool
        Whether the leads were read from pixels: their rows may lie some milliseconds apart, and the line
        of each may lean.

    Raises
    ------
    EcgRefused
        TOO_SHORT, FLAT_LEAD or LEAD_ALGEBRA.
    """
    for lead in LEADS:
        samples = recording.lead(lead)
        start, end = longest_run(samples)
        if (end - start) / recording.sampling_hz < seconds - SHORTFALL_SECONDS:
            raise EcgRefused(
                RefusalReason.TOO_SHORT,
                f"lead {lead} has {(end - start) / recording.sampling_hz:.2f} s without a gap",
                f"{seconds:g} s of each lead are needed",
            )
    if from_picture:
        flat = [lead for lead in LEADS if _span(recording.lead(lead)) < FLAT_ON_PAPER_MILLIVOLTS]
    else:
        flat = [lead for lead in LEADS if _is_flat(recording.lead(lead), recording.sampling_hz, seconds)]
    if flat:
        raise EcgRefused(
            RefusalReason.FLAT_LEAD,
            f"lead{'s' if len(flat) > 1 else ''} {', '.join(flat)} flat (under {FLAT_MILLIVOLTS:g} mV)",
            "an electrode was off: record the ECG again",
        )
    _refuse_broken_algebra(_level(recording) if from_picture else recording, PICTURE_LAG_SECONDS * from_picture)


def _span(samples: NDArray[np.float64]) -> float:
    """Millivolts between the 1st and 99th per cent: what a speck of ink beside the line does not change."""
    present = samples[np.isfinite(samples)]
    return float(np.quantile(present, 0.99) - np.quantile(present, 0.01))


def _is_flat(samples: NDArray[np.float64], sampling_hz: float, seconds: float) -> bool:
    """Whether any stretch that a picture could show is flat: an electrode may fall off half-way."""
    present = samples[np.isfinite(samples)]
    if float(np.ptp(present)) < FLAT_MILLIVOLTS:
        return True
    width = max(1, int((seconds - SHORTFALL_SECONDS) * sampling_hz))
    start, end = longest_run(samples)
    run = samples[start:end]
    blocks = [run[at : at + width] for at in range(0, run.size - width + 1, width)]
    return any(float(np.ptp(block)) < FLAT_MILLIVOLTS for block in blocks)


def _level(recording: Recording) -> Recording:
    """Every lead without the slow bends of its paper, and without what pixels add: the mean over 18 ms.

    Both are sums of samples, the same for every lead, so that the equations hold for what is left.
    """
    signals = recording.signals_mv.copy()
    fine = round(0.018 * recording.sampling_hz) | 1
    slow = round(_BEND_SECONDS * recording.sampling_hz) | 1
    for row in signals:
        for start, end in runs(row):
            if end - start > 4 * fine:
                part = row[start:end]
                row[start:end] = _running_mean(part, fine) - _running_mean(part, slow)
    return replace(recording, signals_mv=signals)


def _running_mean(samples: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Over `width` samples about each, or those of them that exist."""
    total = np.concatenate(([0.0], np.cumsum(samples)))
    places = np.arange(samples.size)
    left, right = np.maximum(places - width // 2, 0), np.minimum(places + width // 2 + 1, samples.size)
    mean: NDArray[np.float64] = (total[right] - total[left]) / (right - left)
    return mean


def _refuse_broken_algebra(recording: Recording, lag_seconds: float) -> None:
    """Refuse limb leads whose equations fail, or hold clearly better under other names."""
    hint = (
        "leads are exchanged or mislabelled, or a picture was misread: have the recorder's export checked; "
        "photograph paper flat and from straight above, or scan it"
    )
    residual, equation = worst_residual(recording, lag_seconds)
    if residual > ALGEBRA_LIMIT:
        raise EcgRefused(
            RefusalReason.LEAD_ALGEBRA,
            f"{equation} do not belong together (residual {residual:.2f}, at most {ALGEBRA_LIMIT:g})",
            hint,
        )
    fit = fit_beats(recording)
    if fit is not None and fit.best < BEATS_LIMIT and fit.best < BEATS_RATIO * fit.residual:
        raise EcgRefused(
            RefusalReason.LEAD_ALGEBRA,
            f"the beats of the limb leads say: {fit.naming} (residual {fit.best:.2f} against {fit.residual:.2f})",
            hint,
        )
    if residual < NOISE_RESIDUAL:
        return
    for one, other in itertools.combinations(LIMB, 2):
        order = list(range(len(LEADS)))
        a, b = LEADS.index(one), LEADS.index(other)
        order[a], order[b] = b, a
        exchanged, _ = worst_residual(
            replace(
                recording,
                signals_mv=recording.signals_mv[order],
                clocks=tuple(recording.clocks[row] for row in order),
            ),
            lag_seconds,
        )
        if exchanged < residual * EXCHANGE_RATIO and _checks(recording) == _checks(recording, order):
            raise EcgRefused(
                RefusalReason.LEAD_ALGEBRA,
                f"leads {one} and {other} fit each other's place better "
                f"(residual {exchanged:.2f} against {residual:.2f})",
                hint,
            )


def _checks(recording: Recording, order: list[int] | None = None) -> int:
    """How many limb equations can be checked: an exchange that merely escapes the check proves nothing."""
    rows = order or list(range(len(LEADS)))
    present = np.isfinite(recording.signals_mv[rows])
    clocks = [recording.clocks[row] for row in rows]
    needed = _COMPARABLE_SECONDS * recording.sampling_hz
    count = 0
    for equation in _EQUATIONS:
        terms = [LEADS.index(lead) for lead in equation]
        if len({clocks[row] for row in terms}) == 1 and present[terms].all(axis=0).sum() >= needed:
            count += 1
    return count


def worst_residual(recording: Recording, lag_seconds: float = 0.0) -> tuple[float, str]:
    """The largest normalised residual over the limb equations that can be checked, and its leads.

    For each equation: the root mean square of the sum over the root of the summed squares of its terms,
    each lead about its median, over the samples where all its leads were recorded at once. 0 where no
    equation can be checked. With `lag_seconds`, the least over shifts of the leads by up to so much.
    """
    lag = round(lag_seconds * recording.sampling_hz)
    worst = (0.0, "")
    for equation in _EQUATIONS:
        rows = [LEADS.index(lead) for lead in equation]
        if len({recording.clocks[row] for row in rows}) > 1:
            continue
        terms = recording.signals_mv[rows] * np.array(list(equation.values()))[:, None]
        terms = terms[:, np.isfinite(terms).all(axis=0)]
        if terms.shape[1] < _COMPARABLE_SECONDS * recording.sampling_hz:
            continue
        terms = terms - np.median(terms, axis=1, keepdims=True)
        residual = _residual(terms, lag)
        if residual > worst[0]:
            worst = (residual, ", ".join(equation))
    return worst


def _residual(terms: NDArray[np.float64], lag: int) -> float:
    """Root mean square of three leads' sum over that of the leads, the least over shifts of two of them."""
    length = terms.shape[1] - 2 * lag
    first = terms[0, lag : lag + length]
    second, third = (
        np.stack([row[lag + shift : lag + shift + length] for shift in range(-lag, lag + 1, _LAG_STEP)])
        for row in terms[1:]
    )
    squares = float(first @ first) + (second * second).sum(axis=1)[:, None] + (third * third).sum(axis=1)[None, :]
    products = (second @ first)[:, None] + (third @ first)[None, :] + second @ third.T
    if float(squares.max()) == 0.0:
        return 0.0
    return float(np.sqrt(np.maximum(squares + 2.0 * products, 0.0) / np.maximum(squares, 1e-12)).min())
