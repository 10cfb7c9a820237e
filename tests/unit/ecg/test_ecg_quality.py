"""What is said of a recording's quality: each fault is found at the size that matters, and good ECGs are left alone.

Noise is drawn from a seeded generator.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecg_ingest.lead_images import LEADS
from ecg_ingest.quality import inspect, pacing_spikes
from ecg_ingest.recording import Recording
from tests.unit.ecg.ecg_builders import Signals

Rows = NDArray[np.float64]
HZ = 500.0
AT = np.arange(5000) / HZ


def recording(rows: Rows, hz: float = HZ) -> Recording:
    return Recording(signals_mv=rows, sampling_hz=hz, clocks=(0,) * 12, derived_leads=(), findings=())


def rows_of(heart: Signals) -> Rows:
    return np.stack([heart[lead] for lead in LEADS])


def on_sheet(rows: Rows) -> Rows:
    """The same as a 3x4 sheet shows it: each lead for its 2.5 s."""
    shown = np.full_like(rows, np.nan)
    for index in range(12):
        column = slice(1250 * (index // 3), 1250 * (index // 3 + 1))
        shown[index, column] = rows[index, column]
    return shown


def codes(rows: Rows, hz: float = HZ) -> set[str]:
    return {finding.code for finding in inspect(recording(rows, hz))}


def with_limbs(rows: Rows, one: Rows, two: Rows) -> Rows:
    """Other leads I and II, and what follows from them."""
    changed = rows.copy()
    changed[:6] = (one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    return changed


def spiked(rows: Rows, millivolts: float, samples: int) -> Rows:
    """Seventy pacing spikes a minute, of another height in every lead; limb leads obey their equations."""
    changed = rows.copy()
    heights = millivolts * np.array([1.0, 1.5, 0.5, -1.25, 0.25, 1.0, 0.8, 1.0, 1.0, 0.9, 0.8, 0.7])
    for at in range(100, 4990, round(HZ * 60 / 70)):
        changed[:, at : at + samples] += heights[:, None]
    return changed


@pytest.fixture(params=["whole", "sheet"])
def shown(request: pytest.FixtureRequest) -> Callable[[Rows], Rows]:
    """Signals as recorded, and as a 3x4 sheet shows them."""
    return on_sheet if request.param == "sheet" else lambda rows: rows


def test_a_good_ecg_is_left_alone(heart: Signals, shown: Callable[[Rows], Rows]) -> None:
    assert codes(shown(rows_of(heart))) == set()


def test_noise_and_mains_hum_are_told_apart(heart: Signals, shown: Callable[[Rows], Rows]) -> None:
    noise = np.random.default_rng(7).normal(0.0, 0.08, (12, 5000))
    assert codes(shown(rows_of(heart) + noise)) == {"noisy"}
    assert codes(shown(rows_of(heart) + 0.05 * np.sin(2 * np.pi * 50 * AT))) == {"mains"}
    assert codes(shown(rows_of(heart) + 0.05 * np.sin(2 * np.pi * 60 * AT))) == {"mains"}


def test_a_wandering_baseline_is_named(heart: Signals) -> None:
    assert codes(rows_of(heart) + 0.5 * np.sin(2 * np.pi * 0.15 * AT)) == {"wander"}


def test_a_lead_cut_off_at_the_recorders_limit_is_named(heart: Signals, shown: Callable[[Rows], Rows]) -> None:
    rows = rows_of(heart)
    five = LEADS.index("V5")
    rows[five] = np.minimum(rows[five], 0.6 * rows[five].max())
    found = inspect(recording(shown(rows)))
    assert [(finding.code, finding.lead) for finding in found] == [("saturated", "V5")]


@pytest.mark.parametrize("gain", [0.1, 10.0])
def test_a_height_that_no_heart_has_is_named(heart: Signals, gain: float) -> None:
    assert "implausible_amplitude" in codes(rows_of(heart) * gain)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_low_and_high_voltage_are_a_patients_own(heart: Signals, gain: float) -> None:
    assert "implausible_amplitude" not in codes(rows_of(heart) * gain)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("millivolts", [0.25, 1.0])
def test_pacing_spikes_are_counted(
    heart: Signals, shown: Callable[[Rows], Rows], millivolts: float, samples: int
) -> None:
    found = [
        f for f in inspect(recording(shown(spiked(rows_of(heart), millivolts, samples)))) if f.code == "pacing_spikes"
    ]
    assert len(found) == 1
    assert 60 <= int(found[0].detail.split()[0]) <= 80


def test_spikes_of_one_limbs_electrode_are_no_pacing(heart: Signals) -> None:
    rows = rows_of(heart)
    one, two = rows[0].copy(), rows[1].copy()
    one[100::400] -= 0.8  # the right arm alone: I and II alike, no chest lead
    two[100::400] -= 0.8
    assert pacing_spikes(recording(with_limbs(rows, one, two))) == 0


def test_slow_sampling_shows_no_spikes(heart: Signals) -> None:
    assert pacing_spikes(recording(rows_of(heart)[:, ::5], 100.0)) == 0


def test_a_short_recording_is_named(heart: Signals) -> None:
    assert codes(rows_of(heart)[:, :3000]) == {"short"}


def test_exchanged_arms_are_suspected(heart: Signals, shown: Callable[[Rows], Rows]) -> None:
    """On a sheet lead I and V6 are never seen at the same time: their usual beats are compared."""
    rows = rows_of(heart)
    exchanged = with_limbs(rows, -rows[0], rows[2])
    assert codes(shown(exchanged)) == {"lead_reversal_suspected"}


def test_a_limb_lead_between_two_legs_is_suspected(heart: Signals) -> None:
    rows = rows_of(heart)
    quiet = np.random.default_rng(3).normal(0.0, 0.005, 5000)
    assert "lead_reversal_suspected" in codes(with_limbs(rows, -rows[2], quiet))


def load(path: Path) -> Rows:
    with path.open() as file:
        names = [name.strip().strip('"').upper() for name in file.readline().split(",")]
        values = np.array([line.split(",") for line in file], dtype=np.float64)
    return np.stack([values[:, names.index(lead.upper())] for lead in LEADS])


def test_of_twelve_real_ecgs_one_is_called_wandering_and_none_anything_else(samples: Path) -> None:
    found = {path.name[:5]: codes(load(path)) for path in sorted((samples / "ecg_signal").glob("*_hr.csv"))}
    assert len(found) >= 12
    assert {name: said for name, said in found.items() if said} == {"00128": {"wander"}}
    for path in sorted((samples / "ecg_signal").glob("*_hr.csv")):
        assert codes(on_sheet(load(path))) <= {"wander"}


def test_exchanged_arms_of_real_ecgs_are_suspected_in_most(samples: Path) -> None:
    """Eleven of twelve; the other has a left axis with a deep S wave in V6, which no shape can tell from it."""
    suspected = 0
    for path in sorted((samples / "ecg_signal").glob("*_hr.csv")):
        rows = load(path)
        suspected += "lead_reversal_suspected" in codes(with_limbs(rows, -rows[0], rows[2]))
    assert suspected >= 11
