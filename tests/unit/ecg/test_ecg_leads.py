"""Limb leads prove one another: what is missing is computed exactly, what contradicts is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecg_ingest.lead_images import LEADS, EcgRefused, RefusalReason
from ecg_ingest.leads import (
    ALGEBRA_LIMIT,
    BEATS_LIMIT,
    BEATS_RATIO,
    LIMB,
    complete,
    refuse_impossible,
    weights,
    worst_residual,
)
from ecg_ingest.limb_beats import fit_beats
from ecg_ingest.quality import inspect
from ecg_ingest.recording import Recording
from tests.unit.ecg.ecg_builders import Signals

PAIRS = list(itertools.combinations(LIMB, 2))


def recording(rows: np.ndarray, hz: float = 500.0, clocks: tuple[int, ...] = (0,) * 12) -> Recording:
    return Recording(signals_mv=rows, sampling_hz=hz, clocks=clocks, derived_leads=(), findings=())


def whole(heart: Signals) -> np.ndarray:
    return np.stack([heart[lead] for lead in LEADS])


def in_columns(rows: np.ndarray, rhythm: bool = False) -> np.ndarray:
    """What a 3x4 sheet shows: three leads at a time, and lead II all the time where there is a strip."""
    shown = np.full_like(rows, np.nan)
    for row in range(12):
        part = slice(row // 3 * 1250, (row // 3 + 1) * 1250)
        shown[row, part] = rows[row, part]
    if rhythm:
        shown[1] = rows[1]
    return shown


def exchanged(rows: np.ndarray, one: str, other: str) -> np.ndarray:
    order = list(LEADS)
    a, b = LEADS.index(one), LEADS.index(other)
    order[a], order[b] = other, one
    return rows[[LEADS.index(lead) for lead in order]]


@pytest.mark.parametrize("rhythm", [False, True])
def test_leads_of_a_column_are_told_by_the_beats_of_the_next(heart: Signals, rhythm: bool) -> None:
    """I and III exchanged obey I + III = II; any order of aVR, aVL and aVF sums to nothing."""
    right = in_columns(whole(heart), rhythm)
    refuse_impossible(recording(right), seconds=2.5)
    fit = fit_beats(recording(right))
    assert fit is not None
    assert fit.residual < fit.best
    for pair in itertools.combinations(LIMB, 2):
        with pytest.raises(EcgRefused) as refused:
            refuse_impossible(recording(exchanged(right, *pair)), seconds=2.5)
        assert refused.value.reason is RefusalReason.LEAD_ALGEBRA


def test_real_leads_in_columns_are_refused_for_no_better_name_and_most_exchanges_are_found(samples: Path) -> None:
    found = 0
    records = ptbxl(samples)
    for rows in records:
        refuse_impossible(recording(in_columns(rows)), seconds=2.5)
        for pair in (("I", "III"), ("aVR", "aVF"), ("aVL", "aVF"), ("aVR", "aVL")):
            fit = fit_beats(recording(in_columns(exchanged(rows, *pair))))
            found += fit is not None and fit.best < min(BEATS_LIMIT, BEATS_RATIO * fit.residual)
    assert found >= 0.85 * 4 * len(records)


def test_leads_seen_at_once_need_no_beats(heart: Signals) -> None:
    assert fit_beats(recording(whole(heart))) is None


def ptbxl(samples: Path) -> list[np.ndarray]:
    return [np.loadtxt(path, delimiter=",", skiprows=1).T for path in sorted((samples / "ecg_signal").glob("*_hr.csv"))]


@pytest.mark.parametrize("pair", PAIRS)
def test_any_two_limb_leads_give_the_other_four(heart: Signals, pair: tuple[str, str]) -> None:
    rows = whole(heart)
    for row, lead in enumerate(LIMB):
        if lead not in pair:
            rows[row] = np.nan
    filled = complete(recording(rows))
    np.testing.assert_allclose(filled.signals_mv, whole(heart), atol=1e-9)
    assert filled.derived_leads == tuple(lead for lead in LIMB if lead not in pair)


@settings(max_examples=60, deadline=None)
@given(
    pair=st.sampled_from(PAIRS),
    one=st.floats(-5, 5, allow_nan=False),
    two=st.floats(-5, 5, allow_nan=False),
    lead=st.sampled_from(LIMB),
)
def test_derived_leads_obey_einthoven_and_goldberger(pair: tuple[str, str], one: float, two: float, lead: str) -> None:
    leads = {
        "I": one,
        "II": two,
        "III": two - one,
        "aVR": -(one + two) / 2,
        "aVL": one - two / 2,
        "aVF": two - one / 2,
    }
    a, b = weights(lead, pair)
    assert a * leads[pair[0]] + b * leads[pair[1]] == pytest.approx(leads[lead], abs=1e-9)


def test_leads_on_different_clocks_derive_nothing(heart: Signals) -> None:
    rows = whole(heart)
    rows[2:6] = np.nan
    with pytest.raises(EcgRefused) as refused:
        complete(recording(rows, clocks=(0, *range(1, 12))))
    assert refused.value.reason is RefusalReason.LEADS_MISSING


def test_every_exchange_of_two_limb_leads_is_refused_on_real_records(samples: Path, heart: Signals) -> None:
    for rows in [*ptbxl(samples), whole(heart)]:
        refuse_impossible(recording(rows), seconds=2.5)
        for one, other in itertools.combinations(range(6), 2):
            exchanged = rows.copy()
            exchanged[[one, other]] = rows[[other, one]]
            with pytest.raises(EcgRefused) as refused:
                refuse_impossible(recording(exchanged), seconds=2.5)
            assert refused.value.reason is RefusalReason.LEAD_ALGEBRA


def test_rows_shifted_by_one_and_cabrera_order_are_refused(heart: Signals) -> None:
    rows = whole(heart)
    cabrera = rows.copy()
    cabrera[:6] = [heart["aVL"], heart["I"], -heart["aVR"], heart["II"], heart["aVF"], heart["III"]]
    for wrong in (np.roll(rows, 1, axis=0), cabrera):
        assert worst_residual(recording(wrong))[0] > ALGEBRA_LIMIT


def test_the_rhythm_strip_proves_the_augmented_leads_of_a_sheet(heart: Signals) -> None:
    rows = np.full((12, 5000), np.nan)
    for row, lead in enumerate(LEADS):
        first = row // 3 * 1250
        rows[row, first : first + 1250] = heart[lead][first : first + 1250]
    rows[1] = heart["II"]
    refuse_impossible(recording(rows), seconds=2.5)
    rows[[4, 5]] = rows[[5, 4]]  # aVL and aVF: their sum with aVR stays zero
    with pytest.raises(EcgRefused) as refused:
        refuse_impossible(recording(rows), seconds=2.5)
    assert refused.value.reason is RefusalReason.LEAD_ALGEBRA


def test_findings_are_raised_by_what_they_name_and_by_nothing_in_a_clean_record(heart: Signals) -> None:
    times = np.arange(5000) / 500.0
    assert inspect(recording(whole(heart))) == ()

    def codes(change: np.ndarray) -> set[tuple[str, str]]:
        rows = whole(heart)
        rows[7] = rows[7] + change
        return {(finding.code, finding.lead) for finding in inspect(recording(rows))}

    assert codes(0.06 * np.sin(2 * np.pi * 50 * times)) == {("mains", "V2")}
    assert codes(0.06 * np.sin(2 * np.pi * 60 * times)) == {("mains", "V2")}
    assert codes(0.8 * np.sin(2 * np.pi * 0.15 * times)) == {("wander", "V2")}
    assert codes(np.random.default_rng(1).normal(0.0, 0.1, 5000)) == {("noisy", "V2")}  # seeded


def test_exchanged_arms_pass_the_algebra_and_raise_a_warning(heart: Signals) -> None:
    rows = whole(heart)
    rows[:6] = [-heart["I"], heart["III"], heart["II"], heart["aVL"], heart["aVR"], heart["aVF"]]
    refuse_impossible(recording(rows), seconds=2.5)
    assert [finding.code for finding in inspect(recording(rows))] == ["lead_reversal_suspected"]


def test_no_correct_real_record_is_suspected_of_exchanged_arms(samples: Path) -> None:
    for rows in ptbxl(samples):
        assert "lead_reversal_suspected" not in {finding.code for finding in inspect(recording(rows))}
