"""Process-wide settings of the DICOM libraries: they log and warn with patient data unless told not to."""

from __future__ import annotations

import logging
import warnings

import pydicom.config
from pynetdicom import _config


def quiet() -> None:
    """Keep identities out of standard error: pydicom warns with values, pynetdicom logs identifiers."""
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_SEND_CHUNKED_DATASET = True  # send stored bytes, never re-encode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?")
    for name in ("pydicom", "pynetdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
