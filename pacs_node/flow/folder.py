"""Take a folder of DICOM files in, one file after the other, through `receive`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pacs_node.flow.part10 import HeaderUnreadable, from_part10
from pacs_node.flow.receive import SUCCESS, Incoming, Receipt, Receiver

CALLING_AE = "import"
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
"""A file so named and without a DICM prefix is damaged; any other such file is something else (a list, a note)."""


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What became of one file."""

    path: Path
    receipt: Receipt | None  # None: it was not received
    reason: str  # "" if it takes part
    foreign: bool = False  # it does not claim to be a DICOM file

    @property
    def kept(self) -> bool:
        """Whether its bytes and a row are stored."""
        return self.receipt is not None and self.receipt.disposition is not None

    @property
    def faulty(self) -> bool:
        """Whether a person should look: it was not kept, or kept and found unreadable."""
        return not self.foreign and (self.receipt is None or self.receipt.status != SUCCESS)


def files_under(folder: Path) -> list[Path]:
    """Every regular file under `folder`, in a fixed order. Links are not followed."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def receive_files(paths: list[Path], receiver: Receiver, object_bytes: int) -> Iterator[FileResult]:
    """Receive each file; one that cannot be read is reported and the next one follows.

    Parameters
    ----------
    object_bytes
        Larger files are not opened.
    """
    for path in paths:
        try:
            size = path.stat().st_size
            if size > object_bytes:
                reason = f"larger than limits.object_bytes ({size} bytes)"
                yield FileResult(path=path, receipt=None, reason=reason)
                continue
            content = path.read_bytes()
            if content[128:132] != b"DICM" and path.suffix.lower() not in DICOM_SUFFIXES:
                yield FileResult(path=path, receipt=None, reason="not a DICOM file", foreign=True)
                continue
            parts = from_part10(content)
        except HeaderUnreadable as error:
            yield FileResult(path=path, receipt=None, reason=str(error))
            continue
        except OSError as error:
            yield FileResult(path=path, receipt=None, reason=f"cannot be read: {error.strerror}")
            continue
        receipt = receiver.receive(Incoming(parts=parts, calling_ae=CALLING_AE))
        yield FileResult(path=path, receipt=receipt, reason=receipt.reason or receipt.comment)
