"""Which state may follow which, for matches, deliveries and commitment requests: data, with the reason for each step.

Pure: takes states, returns or raises. Every change of a stored state goes through `check_match` or
`check_delivery`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from storage.errors import IllegalTransition
from storage.records import DeliveryState, MatchState, RequestState

W, U, P = MatchState.WAITING, MatchState.UNPAIRED, MatchState.PAIRED
E, R, D, C = MatchState.PREDICTED, MatchState.REPORTED, MatchState.DELIVERED, MatchState.COMMITTED
H, F, S = MatchState.HELD, MatchState.FAILED, MatchState.SUPERSEDED

MATCH_TRANSITIONS: Final[Mapping[tuple[MatchState, MatchState], str]] = {
    (W, W): "still waiting, with another reason or due time",
    (W, U): "the window closed without an ECG",
    (W, P): "an ECG of the same person came inside the window",
    (W, H): "the only ECG in reach contradicts who the patient is",
    (W, F): "the radiograph could not be worked and its attempts are spent",
    (W, S): "the radiograph is run again",
    (U, U): "still without an ECG, with another reason",
    (U, W): "the window was made longer, or the radiograph is run again while it is open",
    (U, P): "an ECG came late",
    (U, H): "an ECG came late and contradicts who the patient is",
    (U, S): "the radiograph is run again",
    (P, P): "a nearer ECG came before the estimate, or a refused one was replaced",
    (P, W): "the ECG was refused and the window is still open",
    (P, U): "the ECG was refused and the window is closed",
    (P, E): "the estimate is stored",
    (P, H): "an input needs a person",
    (P, F): "attempts spent before the estimate",
    (P, S): "a later match stands in its place",
    (E, P): "a nearer ECG came after the estimate and before its reports",
    (E, W): "the ECG was withdrawn before the reports, the window is open",
    (E, U): "the ECG was withdrawn before the reports, the window is closed",
    (E, R): "the reports are stored, with their deliveries",
    (E, H): "the reports need a person",
    (E, F): "attempts spent before the reports",
    (E, S): "a later match stands in its place",
    (R, D): "every destination has every report it is sent",
    (R, S): "a later match stands in its place",
    (D, R): "a report is sent again",
    (D, C): "every destination committed",
    (D, S): "a later match stands in its place",
    (C, R): "a report is sent again",
    (C, S): "a later match stands in its place",
    (H, H): "held for another reason",
    (H, P): "the contradiction was settled, or an ECG without one came",
    (H, W): "the contradicting ECG was withdrawn, the window is open",
    (H, U): "the contradicting ECG was withdrawn, the window is closed",
    (H, S): "the radiograph is run again",
    (F, P): "driven again, or another ECG came",
    (F, W): "driven again while no ECG is there and the window is open",
    (F, U): "driven again while no ECG is there and the window is closed",
    (F, H): "an input needs a person",
    (F, S): "the radiograph is run again",
    (S, R): "the match in its place never reported, and would only repeat what this one did",
}
"""Every allowed step. None leads from a state with reports back before them."""

DELIVERY_TRANSITIONS: Final[Mapping[tuple[DeliveryState, DeliveryState], str]] = {
    (DeliveryState.PENDING, DeliveryState.PENDING): "tried without success, due again later",
    (DeliveryState.PENDING, DeliveryState.DELIVERED): "the destination answered success or a warning",
    (DeliveryState.PENDING, DeliveryState.FAILED): "refused, or attempts spent",
    (DeliveryState.DELIVERED, DeliveryState.COMMITTED): "the destination committed to keep it",
    (DeliveryState.DELIVERED, DeliveryState.PENDING): "sent again on request, or commitment was refused",
    (DeliveryState.DELIVERED, DeliveryState.FAILED): "commitment refused, or asked for without an answer, too often",
    (DeliveryState.COMMITTED, DeliveryState.PENDING): "sent again on request",
    (DeliveryState.FAILED, DeliveryState.PENDING): "driven again",
    (DeliveryState.PENDING, DeliveryState.CANCELLED): "never tried and replaced by a later report, or on request",
    (DeliveryState.FAILED, DeliveryState.CANCELLED): "given up on request",
    (DeliveryState.CANCELLED, DeliveryState.PENDING): "sent after all, on request",
}

REQUEST_TRANSITIONS: Final[Mapping[tuple[RequestState, RequestState], str]] = {
    (RequestState.PENDING, RequestState.PENDING): "tried without success, due again later; or asked once more",
    (RequestState.PENDING, RequestState.ANSWERED): "the peer confirmed the report",
    (RequestState.PENDING, RequestState.GIVEN_UP): "the peer refused the report, or nobody took it for too long",
    (RequestState.ANSWERED, RequestState.PENDING): "the peer asked the same once more",
    (RequestState.GIVEN_UP, RequestState.PENDING): "the peer asked the same once more",
}


def check_match(match_id: int, old: MatchState, new: MatchState) -> None:
    """Pass if match `match_id` may go from `old` to `new`; raise `IllegalTransition` otherwise."""
    if (old, new) not in MATCH_TRANSITIONS:
        raise IllegalTransition("match", match_id, old.value, new.value)


def check_delivery(delivery_id: int, old: DeliveryState, new: DeliveryState) -> None:
    """Pass if delivery `delivery_id` may go from `old` to `new`; raise `IllegalTransition` otherwise."""
    if (old, new) not in DELIVERY_TRANSITIONS:
        raise IllegalTransition("delivery", delivery_id, old.value, new.value)


def match_step(old: MatchState, new: MatchState) -> tuple[MatchState, MatchState]:
    """The step itself, if the table allows it (else `KeyError`): for statements that move many rows."""
    MATCH_TRANSITIONS[old, new]
    return old, new


def delivery_step(old: DeliveryState, new: DeliveryState) -> tuple[DeliveryState, DeliveryState]:
    """The step itself, if the table allows it (else `KeyError`): for statements that move many rows."""
    DELIVERY_TRANSITIONS[old, new]
    return old, new


def request_step(old: RequestState, new: RequestState) -> tuple[RequestState, RequestState]:
    """The step itself, if the table allows it (else `KeyError`): for statements that move many rows."""
    REQUEST_TRANSITIONS[old, new]
    return old, new
