"""The elements of a data set that the receiver asks for, found in one bounded pass over its bytes.

Comes in: an encoded data set as a buffer, whole or its beginning. Goes out: a `HeaderIndex`, which answers `get` with
what pydicom would have found. Nothing is copied but the values asked for; sequences are entered only when asked for;
what is not asked for is stepped over. Pixel data ends the pass.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import TEXT_VR_DELIMS

from pacs_node.flow.part10 import HeaderUnreadable

KEYWORDS: Final = (
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "PresentationIntentType"),
    *("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "TimezoneOffsetFromUTC"),
    *("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime", "AccessionNumber", "Manufacturer"),
    *("StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "DocumentTitle"),
    *("AcquisitionDeviceProcessingDescription", "PerformedProcedureStepDescription", "BodyPartExamined"),
    *("AnatomicRegionSequence", "ViewCodeSequence", "ConceptNameCodeSequence"),
    *("CodeValue", "CodingSchemeDesignator", "CodeMeaning"),
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "SeriesInstanceUID", "ViewPosition", "PatientOrientation", "NumberOfFrames"),
    *("QualityControlImage", "WaveformSequence", "WaveformOriginality", "NumberOfWaveformSamples"),
    *("SamplingFrequency", "MultiplexGroupLabel", "ChannelDefinitionSequence", "ChannelLabel"),
    *("ChannelSourceSequence", "TransactionUID", "ReferencedSOPSequence", "FailedSOPSequence", "FailureReason"),
    *("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
)
"""What classification, time, person, pairing and commitment read. `get` of anything else is a mistake of ours."""

Buffer = bytes | bytearray | memoryview

_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""Explicit VRs with a length of 32 bits (PS3.5 table 7.1-1)."""
_NUMBERS: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i"}
_PLAIN_VRS: Final = frozenset({"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "SH", "TM", "UC", "UI"})
"""Text that may have several values."""
_NOT_ONE_PLAIN_NAME: Final = re.compile(rb"[\\=\x1b]")
_WHOLE_VRS: Final = frozenset({"LT", "ST", "UR", "UT"})
"""Text that is one value, whatever it contains."""
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_CHARACTER_SET: Final = 0x00080005


FINGERPRINT_BYTES: Final = 32768
"""An element longer than this has no fingerprint: others keep them."""


class BeyondBuffer(Exception):
    """The buffer holds only the data set's beginning, and the header goes on behind it."""


class NotIndexed(Exception):
    """Our code asked for an element that `KEYWORDS` does not name."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much of a header is looked at; beyond: `HeaderUnreadable`."""

    depth: int  # sequences within sequences
    elements: int  # elements and items, those stepped over one by one included
    value_bytes: int  # of one value that is asked for; what is stepped over may be longer


def read_index(
    data: Buffer, transfer_syntax_uid: str, bounds: Bounds, *, total_bytes: int | None = None
) -> HeaderIndex:
    """Index a data set that is not deflated.

    Parameters
    ----------
    data
        The data set, or its beginning.
    total_bytes
        Length of the whole data set; None: `data` is the whole.

    Raises
    ------
    HeaderUnreadable
        It is cut short, malformed, empty or beyond `bounds`. The message names no content.
    BeyondBuffer
        Only if `total_bytes` is larger than `data`.
    """
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        raise ValueError("inflate a deflated data set first")
    size = len(data) if total_bytes is None else total_bytes
    walk = _Walk(data, size, bounds, big_endian=transfer_syntax_uid == ExplicitVRBigEndian)
    implicit = walk.looks_implicit(0, assumed=transfer_syntax_uid == ImplicitVRLittleEndian)
    index = HeaderIndex(walk, walk.elements(0, size, implicit=implicit, depth=0), 0, ())
    if walk.counted == 0:
        raise HeaderUnreadable("the data set is empty")
    return index


class HeaderIndex:
    """Elements by keyword, as `pydicom.Dataset.get` gives them to a reader of texts, numbers and sequences.

    Texts are str (several values: a list of str), numbers of binary VRs int or float, sequences lists of
    `HeaderIndex`, absent elements None.
    """

    def __init__(self, walk: _Walk, found: dict[int, _Found], depth: int, encodings: tuple[str, ...]) -> None:
        self._walk = walk
        self._found = found
        self._depth = depth
        self._inherited = encodings
        self._own: tuple[str, ...] | None = None
        self._sequences: dict[int, list[HeaderIndex]] = {}

    def get(self, keyword: str) -> Any:
        """The value of an element; None if it is absent.

        Raises
        ------
        NotIndexed
            `KEYWORDS` does not name it.
        HeaderUnreadable
            A sequence that is malformed or beyond the bounds, or a value beyond them.
        ValueError, TypeError and others of `PARSER_FAULTS`
            A value that contradicts its VR, or a sequence where the dictionary has none, or the reverse.
        """
        tag = _TAGS.get(keyword)
        if tag is None:
            raise NotIndexed(keyword)
        found = self._found.get(tag)
        if found is None:
            return None
        if _misplaced(tag, found):
            raise ValueError(f"{keyword} is a sequence where a value belongs, or a value where a sequence does")
        if found.vr == "SQ":
            return self._items(tag, found)
        raw = self._walk.value(found)
        if found.vr in _PLAIN_VRS and raw.isascii() and b"\x1b" not in raw:
            value = raw.decode("ascii")
            if found.vr == "IS" and not value.strip(" \0").isdigit():
                return self._by_pydicom(tag, found, raw)  # empty, several, signed, or no number at all
            return value if "\\" not in value else value.split("\\")
        if found.vr in _WHOLE_VRS and raw.isascii() and b"\x1b" not in raw:
            return raw.decode("ascii")
        if (form := _NUMBERS.get(found.vr)) and len(raw) == struct.calcsize(form):
            return int(struct.unpack(self._walk.order + form, raw)[0])
        if found.vr == "PN":
            return self._name(raw)
        return self._by_pydicom(tag, found, raw)

    def fingerprint(self, keyword: str) -> Hashable:
        """The same for two elements that read alike because they are encoded alike; None if absent or long."""
        tag = _TAGS[keyword]
        found = self._found.get(tag)
        if found is None or found.end - found.start > FINGERPRINT_BYTES or _misplaced(tag, found):
            return None
        return self._walk.held(found), found.implicit, self._walk.order, self._encodings()

    def _items(self, tag: int, found: _Found) -> list[HeaderIndex]:
        if tag not in self._sequences:
            inner = self._depth + 1
            encodings = self._encodings()
            self._sequences[tag] = [
                HeaderIndex(self._walk, elements, inner, encodings) for elements in self._walk.items(found, inner)
            ]
        return self._sequences[tag]

    def _name(self, raw: bytes) -> str | list[str]:
        """A name as text; pydicom's own class decodes it three times, which is most of what a header costs."""
        if raw.isascii() and not _NOT_ONE_PLAIN_NAME.search(raw):
            return raw.decode("ascii")
        encodings = self._encodings() or (default_encoding,)
        names = decode_bytes(raw.rstrip(b"\0 "), encodings, TEXT_VR_DELIMS).split("\\")
        names = [name.rstrip("=") for name in names]
        return names[0] if len(names) == 1 else names

    def _by_pydicom(self, tag: int, found: _Found, raw: bytes) -> Any:
        """Other character sets, binary values."""
        element = RawDataElement(Tag(tag), found.vr, len(raw), raw, 0, found.implicit, not self._walk.big_endian, True)
        return convert_raw_data_element(element, encoding=list(self._encodings()) or None).value

    def _encodings(self) -> tuple[str, ...]:
        """Python's names of the character sets in force here (PS3.5 6.1.2.4)."""
        if self._own is None:
            found = self._found.get(_CHARACTER_SET)
            if found is None:
                self._own = self._inherited
            else:
                names = self._walk.value(found).decode("ascii", "replace").strip(" \0").split("\\")
                self._own = tuple(convert_encodings([name.strip(" \0") for name in names]))
        return self._own


class _Found(NamedTuple):
    """Where an element's value lies. A tuple: hundreds are made for each object."""

    vr: str
    start: int
    end: int
    implicit: bool  # how the elements within it are encoded, if it is a sequence


class _Walk:
    """A pass over a buffer, counting what it looks at."""

    def __init__(self, data: Buffer, size: int, bounds: Bounds, *, big_endian: bool) -> None:
        self.big_endian = big_endian
        self.counted = 0
        self._data = data
        self._held = len(data)
        self._size = size
        self._bounds = bounds
        self.order = order = ">" if big_endian else "<"
        self._explicit = struct.Struct(f"{order}HH2sH").unpack_from
        self._implicit = struct.Struct(f"{order}HHI").unpack_from
        self._length = struct.Struct(f"{order}I").unpack_from
        # Ends of what has no length, found once: position behind its header -> position behind it.
        self._ends: dict[int, int] = {}

    def looks_implicit(self, start: int, *, assumed: bool) -> bool:
        """How the element at `start` is encoded; devices contradict their transfer syntax."""
        vr = bytes(self._data[start + 4 : start + 6])
        if len(vr) < 2:
            return assumed
        # The lower half of a length that looks like two capitals is not worth fearing: a first value of over 16 kB.
        return not (0x40 < vr[0] < 0x5B and 0x40 < vr[1] < 0x5B)

    def elements(self, start: int, end: int, *, implicit: bool, depth: int) -> dict[int, _Found]:
        """The elements between two positions that `KEYWORDS` names."""
        found: dict[int, _Found] = {}
        position, wanted, vrs = start, _WANTED, _VRS
        limit = min(end, self._held) - 8
        counted, most = self.counted, self._bounds.elements
        while position <= limit:
            if implicit:
                group, element, length = self._implicit(self._data, position)
                vr, value = b"", position + 8
            else:
                group, element, vr, length = self._explicit(self._data, position)
                value = position + 8
                if vr in _LONG_VRS:
                    length, value = self._long(position, end), position + 12
            tag = group << 16 | element
            if depth == 0 and tag in _PIXELS:
                self.counted = counted + 1
                return found
            if tag == _ITEM_END:
                break
            counted += 1
            if counted > most:
                raise HeaderUnreadable("more elements than limits.header_elements")
            if length == _UNDEFINED:
                # Within UN of unknown length everything is implicit little endian (PS3.5 6.2.2).
                within = implicit or vr == b"UN"
                self.counted = counted
                position = self._end_of(value, within, depth + 1)
                counted = self.counted
                if tag in wanted:
                    found[tag] = _Found("SQ", value, position, within)
                continue
            position = value + length
            if position > end:
                raise HeaderUnreadable("an element is longer than what holds it; the data set is cut short or damaged")
            if tag in wanted:
                known = vrs[tag] if implicit or vr == b"UN" else vr.decode("ascii", "replace")
                found[tag] = _Found(known, value, position, implicit or vr == b"UN")
        self.counted = counted
        if end > self._held and position + 8 > self._held and position < end:
            raise BeyondBuffer
        return found

    def items(self, sequence: _Found, depth: int) -> list[dict[int, _Found]]:
        """The elements of each item of a sequence."""
        if depth > self._bounds.depth:
            raise HeaderUnreadable("sequences deeper than limits.header_depth")
        items = []
        position, end = sequence.start, sequence.end
        while end - position >= 8:
            group, element, length = self._item(position)
            if (group << 16 | element) != _ITEM:
                break  # the delimiter, or what pydicom would not take for an item either
            start = position + 8
            position = self._end_of_item(start, sequence.implicit, depth) if length == _UNDEFINED else start + length
            if position > end:
                raise HeaderUnreadable("an item is longer than its sequence")
            self._count()
            implicit = sequence.implicit or self.looks_implicit(start, assumed=False)
            items.append(self.elements(start, position, implicit=implicit, depth=depth))
        return items

    def value(self, found: _Found) -> bytes:
        """The bytes of a value that is no sequence."""
        if found.end - found.start > self._bounds.value_bytes:
            raise HeaderUnreadable("a value is longer than limits.header_value_bytes")
        return self.held(found)

    def held(self, found: _Found) -> bytes:
        """The bytes of an element, sequence or not."""
        if found.end > self._held:
            raise BeyondBuffer
        return bytes(self._data[found.start : found.end])

    def _end_of(self, start: int, implicit: bool, depth: int) -> int:
        """Behind a sequence, or encapsulated pixels, of undefined length whose first item is at `start`."""
        known = self._ends.get(start)
        return known if known is not None else self._step_over(start, implicit, depth, in_item=False)

    def _end_of_item(self, start: int, implicit: bool, depth: int) -> int:
        """Behind an item of undefined length whose first element is at `start`."""
        known = self._ends.get(start)
        return known if known is not None else self._step_over(start, implicit, depth, in_item=True)

    def _step_over(  # noqa: PLR0912, PLR0915 - one loop on purpose
        self, start: int, implicit: bool, depth: int, *, in_item: bool
    ) -> int:
        """Follow everything of undefined length from `start` to its delimiter, noting where each part of it ends.

        One loop and no recursion: most of what a receiver reads of an ECG passes here.
        """
        data, ends, most, deepest = self._data, self._ends, self._bounds.elements, self._bounds.depth
        explicit, plain, long_length = self._explicit, self._implicit, self._length
        counted, position = self.counted, start
        if in_item:
            implicit = implicit or self.looks_implicit(start, assumed=False)
        # What was entered: where it began, how its surroundings are encoded.
        opened: list[tuple[int, bool]] = [(start, implicit)]
        try:
            while True:
                counted += 1
                if counted > most:
                    raise HeaderUnreadable("more elements than limits.header_elements")
                if in_item:
                    if implicit:
                        group, element, length = plain(data, position)
                        value, within = position + 8, True
                    else:
                        group, element, vr, length = explicit(data, position)
                        value, within = position + 8, False
                        if vr in _LONG_VRS:
                            length, value, within = long_length(data, position + 8)[0], position + 12, vr == b"UN"
                    if group == 0xFFFE:
                        if element != _ITEM_END & 0xFFFF:
                            raise HeaderUnreadable("an item without its delimiter")
                        ends[opened[-1][0]] = position = position + 8
                        _, implicit = opened.pop()
                        in_item = False
                        if not opened:
                            break
                    elif length == _UNDEFINED:
                        opened.append((value, implicit))
                        if depth + len(opened) // 2 > deepest:
                            raise HeaderUnreadable("sequences deeper than limits.header_depth")
                        position, implicit, in_item = value, within, False
                    else:
                        position = value + length
                else:
                    group, element, length = plain(data, position)
                    position += 8
                    if element == _SEQUENCE_END & 0xFFFF and group == 0xFFFE:
                        ends[opened[-1][0]] = position
                        _, implicit = opened.pop()
                        in_item = True
                        if not opened:
                            break
                    elif element != _ITEM & 0xFFFF or group != 0xFFFE:
                        raise HeaderUnreadable("a sequence without its delimiter")
                    elif length == _UNDEFINED:
                        opened.append((position, implicit))
                        implicit = implicit or self.looks_implicit(position, assumed=False)
                        in_item = True
                    else:
                        position += length
        except struct.error:
            self._missing(position + 12)
        self.counted = counted
        return position

    def _item(self, position: int) -> tuple[int, int, int]:
        if position + 8 > self._held:
            self._missing(position + 8)
        group, element, length = self._implicit(self._data, position)
        return group, element, length

    def _long(self, position: int, end: int) -> int:
        if position + 12 > min(end, self._held):
            self._missing(position + 12)
        return int(self._length(self._data, position + 8)[0])

    def _missing(self, wanted: int) -> None:
        """Say why the bytes up to `wanted` are not here."""
        if self._held < self._size and wanted > self._held:
            raise BeyondBuffer
        raise HeaderUnreadable("the data set is cut short")

    def _count(self) -> None:
        self.counted += 1
        if self.counted > self._bounds.elements:
            raise HeaderUnreadable("more elements than limits.header_elements")


def _misplaced(tag: int, found: _Found) -> bool:
    """Whether a sequence stands where a value belongs, or the reverse: then it says nothing, least of all of whom."""
    return (found.vr == "SQ") != (_VRS[tag] == "SQ")


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is no keyword of the dictionary")
    return int(tag)


_TAGS: Final = {keyword: _tag(keyword) for keyword in KEYWORDS}
_WANTED: Final = frozenset(_TAGS.values())
_VRS: Final = {tag: dictionary_VR(tag) for tag in _WANTED}
