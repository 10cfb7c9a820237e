"""The sheet as a person sees it: the pixels that lead boxes are told in. Reads no lead and proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ecg_ingest.lead_images import EcgRefused, RefusalReason

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


MOST_PAGES_SHOWN = 4
_SIDE_OF_SEVERAL = 1800  # pixels, of each of several pages
_BETWEEN_PAGES = 24  # pixels
_TABLE = 70  # grey on which several pages lie


def sheet_picture(data: bytes, page: int | None = 0) -> NDArray[np.uint8] | None:
    """The picture in a file, or a page of its PDF drawn, [height, width, 3] RGB; None for signals without a sheet.

    Parameters
    ----------
    page : int or None
        Which page; None for all of them, the first `MOST_PAGES_SHOWN`, reduced and side by side or below one another.

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


def _shown(data: bytes, page: int | None) -> NDArray[np.uint8] | None:
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
        from ecg_ingest.page import draw_page, number_of_pages

        return draw_page(data, page) if page is not None else _all(number_of_pages(data), partial(draw_page, data))
    if data.startswith(PICTURES):
        from ecg_ingest.picture import count_pages, read_picture

        return read_picture(data, page) if page is not None else _all(count_pages(data), partial(read_picture, data))
    return None


def _all(count: int, page: Callable[[int], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """One page as it is; several together."""
    if count == 1:
        return page(0)
    import numpy as np
    from PIL import Image

    pages = []
    for number in range(min(count, MOST_PAGES_SHOWN)):
        image = Image.fromarray(page(number))
        image.thumbnail((_SIDE_OF_SEVERAL, _SIDE_OF_SEVERAL))
        pages.append(image)
    beside = sum(image.height > image.width for image in pages) > len(pages) / 2
    along = [image.width if beside else image.height for image in pages]
    across = max(image.height if beside else image.width for image in pages)
    length = sum(along) + _BETWEEN_PAGES * (len(pages) - 1)
    table = Image.new("RGB", (length, across) if beside else (across, length), (_TABLE,) * 3)
    at = 0
    for image, step in zip(pages, along, strict=True):
        table.paste(image, (at, 0) if beside else (0, at))
        at += step + _BETWEEN_PAGES
    return np.asarray(table)
