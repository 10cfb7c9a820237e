"""The sheet as a person sees it: the pixels that lead boxes are told in. Reads no lead and proves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecg_ingest.lead_images import EcgRefused, RefusalReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def sheet_picture(data: bytes, page: int = 0) -> NDArray[np.uint8] | None:
    """The picture in a file, or page `page` of its PDF drawn, [height, width, 3] RGB; None for signals without a sheet.

    Raises
    ------
    EcgRefused
        DAMAGED, TOO_LARGE, ... where the pixels cannot be shown, whatever the file says it is.
    """
    from ecg_ingest.channels import PARSER_FAULTS

    try:
        return _shown(data, page)
    except PARSER_FAULTS as error:
        raise EcgRefused(
            RefusalReason.DAMAGED, f"the sheet cannot be drawn ({type(error).__name__})", "export it again"
        ) from error


def _shown(data: bytes, page: int) -> NDArray[np.uint8] | None:
    from ecg_ingest.read import PICTURES, is_pdf

    if data[128:132] == b"DICM":
        from ecg_ingest.dicom_file import open_dicom

        opened = open_dicom(data)
        if opened.is_picture:
            from ecg_ingest.picture import read_dicom_picture

            return read_dicom_picture(opened.dataset)
        if opened.document is None:
            return None
        data = opened.document
    if is_pdf(data):
        from ecg_ingest.page import draw_page

        return draw_page(data, page)
    if data.startswith(PICTURES):
        from ecg_ingest.picture import read_picture

        return read_picture(data)
    return None
