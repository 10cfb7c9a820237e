"""Which layout a sheet has, proved label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ecg_ingest.ink import Ink
from ecg_ingest.lead_images import EcgRefused, RefusalReason
from ecg_ingest.paper_scale import STANDARD_MM_PER_SECOND
from ecg_ingest.printed_labels import PrintedLabel
from ecg_ingest.raster_layout import LayoutFit, fit_layouts, settled
from ecg_ingest.second_look import NAME_REACH_MM, Box, SecondLook

_LEAST_FREE = 3  # labels that stand free, before a second look is worth it
_LAYOUTS_TRIED, _LAYOUT_MARGIN = 4, 4.0  # layouts that may turn out better than the first, by their free labels
_USUAL_SPEED = 2.0  # labels that a column of usual length is worth
_SURE, _SURE_LEAD = 8, 3
_LEAD = 2  # names by which the proved layout leads the next


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A proved layout."""

    fit: LayoutFit
    seconds_per_column: float
    read: frozenset[tuple[int, int]]  # cells whose name was read
    boxes: tuple[tuple[int, int, Box], ...]  # row, column and place of every name that was read
    letters: tuple[tuple[str, str, Box], ...]  # name, font and place of every name that was read


def place_labels(
    labels: Sequence[PrintedLabel],
    ink: Ink,
    legible: Ink,
    pixels_per_mm: float,
    column_seconds: Mapping[str, Sequence[float]],
    tolerance: float,
    *,
    last: bool = False,
) -> Placement:
    """The one layout that the labels prove; `legible` is the ink without bars.

    With `last`, a refusal gives the reason of the layout that most labels form, not of the likeliest: labels under
    traces were sought already, and fewer names in order are no better explanation than more with two exchanged.

    Raises
    ------
    EcgRefused
        LABELS_INSUFFICIENT, LABELS_CONTRADICT, LAYOUT_AMBIGUOUS or NON_STANDARD_SCALE.
    """
    fits = [fit for fit in fit_layouts(labels, pixels_per_mm) if _on_sheet(fit, ink, pixels_per_mm)]

    def promise(fit: LayoutFit) -> float:
        return fit.score + _USUAL_SPEED * (_seconds(fit, pixels_per_mm, column_seconds, tolerance) is not None)

    fits.sort(key=lambda fit: -promise(fit))
    proved: list[Placement] = []
    refusals: list[tuple[int, EcgRefused]] = []
    for fit in fits[:_LAYOUTS_TRIED]:
        if proved and _beyond_doubt(proved[0], fit):
            continue
        if len(fit.found) < _LEAST_FREE or promise(fit) < promise(fits[0]) - _LAYOUT_MARGIN:
            continue
        try:
            seconds = _seconds(fit, pixels_per_mm, column_seconds, tolerance)
            if seconds is None:
                raise _not_standard(fit, pixels_per_mm, column_seconds)
            proved.append(_proved(fit, ink, legible, pixels_per_mm, seconds, labels))
        except EcgRefused as refusal:
            refusals.append((len(fit.found), refusal))
    if not proved:
        if not refusals:
            raise _too_few(0 if not fits else len(fits[0].found))
        raise (max(refusals, key=lambda refused: refused[0]) if last else refusals[0])[1]
    proved.sort(key=lambda placement: -len(placement.read))
    if len(proved) > 1 and len(proved[0].read) - len(proved[1].read) < _LEAD:
        raise EcgRefused(
            RefusalReason.LAYOUT_AMBIGUOUS,
            f"the labels fit {proved[0].fit.layout.name} ({proved[0].fit.layout.order}) and "
            f"{proved[1].fit.layout.name} ({proved[1].fit.layout.order}) about as well",
            "scan the sheet so that every label can be read",
        )
    return proved[0]


def _on_sheet(fit: LayoutFit, ink: Ink, pixels_per_mm: float) -> bool:
    """Whether every name's place lies on the picture: where the sheet ends, no lead can be."""
    beyond = NAME_REACH_MM * pixels_per_mm
    height, width = ink.mask.shape
    return bool(
        fit.across.min() > -beyond
        and fit.down.min() > -beyond
        and fit.across.max() < width + beyond
        and fit.down.max() < height + beyond
    )


def _beyond_doubt(proved: Placement, other: LayoutFit) -> bool:
    """Whether so many names were read where one layout has them, that another need not be looked at."""
    return len(proved.read) >= _SURE and len(proved.fit.found) - len(other.found) >= _SURE_LEAD


def _too_few(count: int, exchangeable: tuple[str, str] | None = None) -> EcgRefused:
    told = ", but not whether {} and {} are the right way round".format(*exchangeable) if exchangeable else ""
    return EcgRefused(
        RefusalReason.LABELS_INSUFFICIENT,
        f"{count} lead names of a known layout can be read{told}",
        "scan the whole sheet sharply, names and all",
    )


def _seconds(
    fit: LayoutFit, pixels_per_mm: float, column_seconds: Mapping[str, Sequence[float]], tolerance: float
) -> float | None:
    """How long a column lasts at 25 mm/s, from how far apart its labels stand."""
    nominal = column_seconds[fit.layout.name]
    if fit.layout.columns == 1:
        return nominal[0]
    shown = fit.column_pixels / pixels_per_mm / STANDARD_MM_PER_SECOND
    return next((seconds for seconds in nominal if abs(shown / seconds - 1.0) <= tolerance), None)


def _not_standard(fit: LayoutFit, pixels_per_mm: float, column_seconds: Mapping[str, Sequence[float]]) -> EcgRefused:
    return EcgRefused(
        RefusalReason.NON_STANDARD_SCALE,
        f"columns stand {fit.column_pixels / pixels_per_mm:.0f} mm apart, not "
        + " or ".join(f"{seconds * STANDARD_MM_PER_SECOND:.0f}" for seconds in column_seconds[fit.layout.name]),
        "print the ECG at 25 mm/s",
    )


def _proved(
    fit: LayoutFit,
    ink: Ink,
    legible: Ink,
    pixels_per_mm: float,
    seconds: float,
    labels: Sequence[PrintedLabel],
    *,
    once_more: bool = True,
) -> Placement:
    """The layout if a second look at its places proves it."""
    second = SecondLook(fit, ink, legible, pixels_per_mm, labels)
    exchangeable = second.exchangeable()
    if exchangeable or not (second.proves or second.in_order()):
        if not once_more or not second.newly:
            raise _too_few(len(second.read), exchangeable)
        more = [*labels, *second.newly]  # they say better where the others must stand
        better = settled(fit, more, pixels_per_mm)
        return _proved(better, ink, legible, pixels_per_mm, seconds, more, once_more=False)
    return Placement(
        fit=fit,
        seconds_per_column=seconds,
        read=frozenset(second.read),
        boxes=tuple(second.boxes),
        letters=tuple(second.letters),
    )
