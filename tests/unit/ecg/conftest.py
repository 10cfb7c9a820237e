"""The signals of a real ECG, for tests that draw or encode them anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from ecg_ingest.lead_images import LEADS
from tests.unit.ecg.ecg_builders import Signals


@pytest.fixture(scope="session")
def heart(mortara_ecg: Path) -> Signals:
    """Ten seconds of the Mortara ECG that pydicom carries, in mV at 500 Hz; read without our decoder.

    Limb leads other than I and II are computed, so that each equation holds to the last digit.
    """
    group = pydicom.dcmread(mortara_ecg).WaveformSequence[0]
    raw = np.frombuffer(group.WaveformData, dtype="<i2").reshape(-1, 12).T[:, ::2]
    signals = dict(zip(LEADS, raw * 1.25e-3, strict=True))
    one, two = signals["I"], signals["II"]
    signals |= {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return signals
