"""One target under atheris, in a process that ends with it: `tests.fuzz.run` starts it with libFuzzer's options."""

from __future__ import annotations

import logging
import sys

import atheris
import structlog

INSTRUMENTED = ["pacs_node", "ecg_ingest", "pynetdicom", "pydicom.charset", "pydicom.dataelem", "pydicom.values"]

if __name__ == "__main__":
    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    from pacs_node.dicom.stack import quiet

    quiet()
    target = TARGETS[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
