"""Fixtures every test may use: where real samples lie, and what to do on a machine without them."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from pydicom.data import get_testdata_file

# Shared by tests on SQLite and on PostgreSQL; here, because whichever is collected first imports them.
pytest.register_assert_rewrite(
    "tests.unit.storage.pairing_behaviour",
    "tests.unit.storage.queue_behaviour",
    "tests.unit.storage.shadow_behaviour",
    "tests.unit.storage.storage_examples",
    "tests.unit.storage.upkeep_behaviour",
)

REPOSITORY = Path(__file__).resolve().parent.parent


def _missing(what: str) -> None:
    """A missing part fails where CI runs the tests and skips, by name, elsewhere."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{what}; with CI=true this is a failure")
    pytest.skip(what)


@pytest.fixture(autouse=True)
def _log_as_at_the_start() -> None:
    """A command run within a test sets up the log of its process; the next test begins anew, on standard error."""
    structlog.reset_defaults()
    structlog.configure(
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of real samples: $PULMOLINK_SAMPLES, else ../shared/data beside the repository."""
    folder = Path(os.environ.get("PULMOLINK_SAMPLES", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "README.md").is_file():
        _missing(f"real samples not found in {folder.name} (set PULMOLINK_SAMPLES)")
    return folder


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Look up a program of a Debian package, such as `tool("storescu")`."""

    def find(name: str) -> str:
        servers = ":".join(map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)))
        path = shutil.which(name) or shutil.which(name, path=f"/usr/sbin:/sbin:{servers}")
        if path is None:
            _missing(f"the program {name} is not installed (deploy/test_tools.sh installs the Debian packages)")
        return str(path)

    return find


@pytest.fixture(scope="session")
def philips_radiograph() -> Path:
    """A real PA chest radiograph (Philips CR, MONOCHROME1, JPEG 2000), from PyPI's pydicom-data."""
    return Path(str(get_testdata_file("RG1_J2KI.dcm", download=False)))


@pytest.fixture(scope="session")
def mortara_ecg() -> Path:
    """A real 12-lead ECG (Mortara ELI 250, 1000 Hz, 10 s), carried by PyPI's pydicom."""
    return Path(str(get_testdata_file("waveform_ecg.dcm", download=False)))
