"""Openers for tests: the real one, and one whose children misbehave."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference.phantoms import PhantomPatient, Scenario, make_patient
from pacs_node.opening.opener import Opener
from pacs_node.settings import Limits

BOUNDS = Limits(opening_bytes=2**29 + 2**28, opening_cpu_seconds=2, opening_seconds=20)


@pytest.fixture(scope="session")
def opener() -> Iterator[Opener]:
    """The real readers within small bounds."""
    with Opener(BOUNDS) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[Opener]:
    """Children that behave as their file says; see `misbehaving`."""
    program = (sys.executable, str(Path(__file__).with_name("misbehaving.py")))
    limits = Limits(opening_bytes=2**29, opening_cpu_seconds=1, opening_seconds=1)
    with Opener(limits, program=program) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="session")
def patient() -> PhantomPatient:
    """A phantom whose ECG is a PDF page."""
    return make_patient(0, 11, Scenario.PAIRED_PDF_3X4)
