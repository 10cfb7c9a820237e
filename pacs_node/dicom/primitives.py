"""pynetdicom's events as our values: the one place that knows the shape of its primitives."""

from __future__ import annotations

from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from pacs_node.flow.part10 import DataSetBytes

VERIFICATION = "1.2.840.10008.1.1"
"""Verification SOP Class (PS3.4 A)."""


def store_request(event: Event) -> DataSetBytes:
    """The C-STORE request of an event: UIDs of the command, transfer syntax as negotiated, data set as it came."""
    request = event.request
    if not isinstance(request, C_STORE) or request.DataSet is None:
        raise TypeError("the event carries no C-STORE request with a data set")
    return DataSetBytes(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        data=request.DataSet.getvalue(),
    )
