"""An ECG in any form to twelve lead images, or a refusal with a reason.

`read` is the one entry. Importing this package loads neither numpy nor a PDF or DICOM library.
"""

from ecg_ingest.lead_images import (
    LEADS,
    EcgRefused,
    EcgSource,
    LeadBox,
    LeadImages,
    QualityFinding,
    RefusalReason,
    RenderStyle,
)
from ecg_ingest.read import read

__all__ = [
    "LEADS",
    "EcgRefused",
    "EcgSource",
    "LeadBox",
    "LeadImages",
    "QualityFinding",
    "RefusalReason",
    "RenderStyle",
    "read",
]
