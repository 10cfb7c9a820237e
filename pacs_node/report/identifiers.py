"""UIDs that follow from what a report was made of, so that the same inputs always give the same ones."""

from __future__ import annotations

from uuid import UUID, uuid5

from pydicom.uid import UID

NAMESPACE = UUID("6f0c2f0e-5f7c-4d53-9d4b-0f5f6a3c7f21")
"""Ours alone, drawn once. Changing it changes every UID pulmolink has ever given."""

SR_DOCUMENT = "sr"
SR_SERIES = "sr-series"
OVERLAY_IMAGE = "overlay"
OVERLAY_SERIES = "overlay-series"
ESTIMATE_TRACKING = "estimate-tracking"


def patch_tracking(index: int) -> str:
    """The role of patch `index`'s tracking UID."""
    return f"patch-{index}-tracking"


def derived_uid(*parts: str) -> UID:
    """The UID that follows from `parts`: 2.25 and a version 5 UUID (PS3.5 B.2, RFC 4122)."""
    return UID(f"2.25.{uuid5(NAMESPACE, '/'.join(parts)).int}")


def report_uid(run_digest: str, revision: int, role: str) -> UID:
    """The UID of one object, series or tracked measurement of a run.

    Parameters
    ----------
    run_digest
        sha256 in hex over inputs, model and configuration.
    revision
        1 for a radiograph's first match, then counting up.
    role
        What is named, one of this module's constants.
    """
    return derived_uid("run", run_digest, str(revision), role)


def device_uid(ae_title: str) -> UID:
    """The UID under which a node observes, the same in all its reports."""
    return derived_uid("device", ae_title)


IMPLEMENTATION_CLASS_UID = derived_uid("implementation")
IMPLEMENTATION_VERSION_NAME = "PULMOLINK"
