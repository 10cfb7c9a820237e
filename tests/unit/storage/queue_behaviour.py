"""What workers may rely on: claims, leases, results and deliveries, whatever the database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import update

from storage.errors import RowMissing, StorageConflict
from storage.queue import NOT_ACCEPTED
from storage.records import Delivery, DeliveryState, Disposition, MatchState, ReportKind
from storage.schema import deliveries
from storage.store import Store
from tests.unit.storage.storage_examples import (
    BOTH,
    MODEL,
    NOW,
    add_match,
    features,
    new_report,
    predict,
    report,
    seconds,
    supersede,
)

PAIRED = [MatchState.PAIRED]


def silence(store: Store, sent: Delivery, now: datetime, until: datetime) -> int:
    """No association came about for a claimed delivery; give up after 14 days."""
    return store.destination_silent(
        sent, "w", "connection refused", until=until, give_up_before=now - timedelta(days=14), now=now
    )


class QueueBehaviour:
    def test_the_match_due_longest_is_claimed_first_whatever_its_state(self, store: Store) -> None:
        late = add_match(store, 1, due_at=NOW - seconds(5))
        early = add_match(store, 2, due_at=NOW - seconds(60))
        store.claim_match(PAIRED, "w", 60, NOW)
        store.save_prediction(early, "w", "{}", "r", NOW - seconds(1))
        both = [MatchState.PREDICTED, MatchState.PAIRED]
        claimed = [store.claim_match(both, "w", 60, NOW) for _ in range(3)]
        assert [match and match.match_id for match in claimed] == [late, early, None]

    def test_what_is_not_due_is_not_claimed(self, store: Store) -> None:
        add_match(store, due_at=NOW + seconds(1))
        assert store.claim_match(PAIRED, "w", 60, NOW) is None
        assert store.claim_match(PAIRED, "w", 60, NOW + seconds(1)) is not None

    def test_a_claim_counts_the_attempt_and_an_ended_lease_can_be_claimed_again(self, store: Store) -> None:
        add_match(store)
        first = store.claim_match(PAIRED, "killed", 60, NOW)
        assert first is not None
        assert first.attempts == 1
        assert store.claim_match(PAIRED, "other", 60, NOW + seconds(59)) is None
        again = store.claim_match(PAIRED, "other", 60, NOW + seconds(60))
        assert again is not None
        assert again.attempts == 2

    @pytest.mark.parametrize("input_", ["radiograph_id", "ecg_id"])
    @pytest.mark.parametrize("disposition", [Disposition.HELD, Disposition.REFUSED])
    def test_no_estimate_is_kept_of_an_input_that_no_longer_counts(
        self, store: Store, input_: str, disposition: Disposition
    ) -> None:
        match_id = add_match(store)
        store.claim_match(PAIRED, "w", 60, NOW)
        with store.transaction() as tx:
            tx.set_disposition(getattr(tx.match(match_id), input_), disposition, "identity_disputed")
        assert not store.save_prediction(match_id, "w", "{}", "r", NOW)
        assert (store.match(match_id).state, store.match(match_id).reason) == (MatchState.HELD, NOT_ACCEPTED)
        assert store.match(match_id).prediction_json == ""

    @pytest.mark.parametrize("input_", ["radiograph_id", "ecg_id"])
    def test_no_report_is_kept_of_an_input_that_no_longer_counts(self, store: Store, input_: str) -> None:
        match_id = add_match(store)
        predict(store, match_id)
        store.claim_match([MatchState.PREDICTED], "w", 60, NOW)
        with store.transaction() as tx:
            tx.set_disposition(getattr(tx.match(match_id), input_), Disposition.HELD, "identity_disputed")
        assert not store.save_reports(match_id, "w", [new_report(match_id)], BOTH, NOW)
        assert (store.match(match_id).state, store.match(match_id).reason) == (MatchState.HELD, NOT_ACCEPTED)
        assert store.reports(match_id) == store.deliveries() == ()

    def test_a_result_of_someone_who_lost_the_lease_is_dropped(self, store: Store) -> None:
        match_id = add_match(store)
        store.claim_match(PAIRED, "slow", 60, NOW)
        store.claim_match(PAIRED, "quick", 60, NOW + seconds(61))
        assert not store.save_prediction(match_id, "slow", "{}", "slow", NOW)
        assert not store.retry_match(match_id, "slow", "", NOW, NOW)
        assert not store.fail_match(match_id, "slow", "", NOW)
        assert not store.hold_match(match_id, "slow", "", NOW)
        assert not store.release(match_id, "slow")
        assert not store.extend_lease(match_id, "slow", 60, NOW)
        assert store.save_prediction(match_id, "quick", "{}", "quick", NOW)
        assert store.match(match_id).run_digest == "quick"

    def test_a_lease_can_be_held_for_longer(self, store: Store) -> None:
        match_id = add_match(store)
        store.claim_match(PAIRED, "w", 60, NOW)
        assert store.extend_lease(match_id, "w", 60, NOW + seconds(50))
        assert store.claim_match(PAIRED, "x", 60, NOW + seconds(100)) is None

    def test_a_match_given_back_unworked_does_not_count_as_tried(self, store: Store) -> None:
        match_id = add_match(store)
        store.claim_match(PAIRED, "w", 60, NOW)
        assert store.release(match_id, "w")
        assert store.match(match_id).attempts == 0
        assert store.claim_match(PAIRED, "x", 60, NOW) is not None

    def test_a_failed_attempt_is_due_again_later_with_its_reason(self, store: Store) -> None:
        match_id = add_match(store)
        store.claim_match(PAIRED, "w", 60, NOW)
        assert store.retry_match(match_id, "w", "out of memory", NOW + seconds(30), NOW)
        assert store.claim_match(PAIRED, "w", 60, NOW + seconds(29)) is None
        match = store.claim_match(PAIRED, "w", 60, NOW + seconds(30))
        assert match is not None
        assert (match.attempts, match.reason) == (2, "out of memory")

    @pytest.mark.parametrize("state", [MatchState.FAILED, MatchState.HELD])
    def test_a_match_can_end_failed_or_held_and_leaves_the_queue(self, store: Store, state: MatchState) -> None:
        match_id = add_match(store)
        store.claim_match(PAIRED, "w", 60, NOW)
        end = store.fail_match if state == MatchState.FAILED else store.hold_match
        assert end(match_id, "w", "why", NOW)
        assert (store.match(match_id).state, store.match(match_id).reason) == (state, "why")
        assert store.claim_match(PAIRED, "w", 60, NOW + seconds(999)) is None

    def test_an_estimate_is_due_for_its_reports_at_once_with_fresh_attempts(self, store: Store) -> None:
        match_id = add_match(store)
        predict(store, match_id)
        match = store.match(match_id)
        assert (match.state, match.attempts) == (MatchState.PREDICTED, 0)
        assert match.prediction_json == '{"mpap_mmhg": 21.5}'
        assert store.claim_match([MatchState.PREDICTED], "w", 60, NOW) is not None

    def test_reports_and_deliveries_are_stored_with_the_transition(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id)
        assert store.match(match_id).state == MatchState.REPORTED
        assert [made.kind for made in store.reports(match_id)] == [ReportKind.SR, ReportKind.OVERLAY]
        pending = store.deliveries(match_id=match_id)
        assert [(sent.kind, sent.destination, sent.state) for sent in pending] == [
            (ReportKind.SR, "pacs", DeliveryState.PENDING),
            (ReportKind.OVERLAY, "pacs", DeliveryState.PENDING),
        ]
        assert pending[0].sha256 == new_report(match_id).sha256

    def test_reports_of_a_match_superseded_meanwhile_are_dropped(self, store: Store) -> None:
        match_id = add_match(store)
        predict(store, match_id)
        store.claim_match([MatchState.PREDICTED], "w", 60, NOW)
        supersede(store, match_id)
        assert not store.save_reports(match_id, "w", [new_report(match_id)], BOTH, NOW)
        assert store.reports(match_id) == ()

    def test_a_report_uid_in_use_leaves_the_match_as_it_was(self, store: Store) -> None:
        first, second = add_match(store, 1), add_match(store, 2)
        report(store, first)
        predict(store, second)
        store.claim_match([MatchState.PREDICTED], "w", 60, NOW)
        with pytest.raises(StorageConflict):
            store.save_reports(second, "w", [new_report(first)], BOTH, NOW)
        assert store.match(second).state == MatchState.PREDICTED
        assert store.reports(second) == ()

    def test_a_waiting_radiograph_is_claimed_until_it_has_features_of_the_model(self, store: Store) -> None:
        match_id = add_match(store, state=MatchState.WAITING)
        claimed = store.claim_chest(MODEL, "w", 60, NOW)
        assert claimed is not None
        assert claimed.state == MatchState.WAITING
        assert store.save_chest(features(claimed.radiograph_id), match_id, "w")
        assert store.claim_chest(MODEL, "w", 60, NOW + seconds(100)) is None
        assert store.match(match_id).attempts == 0
        assert store.chest_features(claimed.radiograph_id, MODEL) == features(claimed.radiograph_id)

    @pytest.mark.parametrize("other", ["0" * 64, "f" * 64])
    def test_another_model_asks_for_its_own_features(self, store: Store, other: str) -> None:
        match_id = add_match(store, state=MatchState.WAITING)
        claimed = store.claim_chest(MODEL, "w", 60, NOW)
        assert claimed is not None
        store.save_chest(features(claimed.radiograph_id), match_id, "w")
        assert store.claim_chest(other, "w", 60, NOW) is not None
        store.save_chest(features(claimed.radiograph_id, other), match_id, "w")
        # Two models side by side, as while a node is upgraded, leave each other's features in peace.
        assert store.claim_chest(MODEL, "w", 60, NOW) is None
        assert store.claim_chest(other, "w", 60, NOW) is None

    def test_features_are_kept_although_the_lease_was_lost(self, store: Store) -> None:
        match_id = add_match(store, state=MatchState.WAITING)
        claimed = store.claim_chest(MODEL, "slow", 60, NOW)
        assert claimed is not None
        store.claim_chest(MODEL, "quick", 60, NOW + seconds(61))
        assert not store.save_chest(features(claimed.radiograph_id), match_id, "slow")
        assert store.chest_features(claimed.radiograph_id, MODEL) is not None
        assert store.save_chest(features(claimed.radiograph_id), match_id, "quick")

    def test_features_of_a_pair_leave_its_lease_for_the_estimate(self, store: Store) -> None:
        match_id = add_match(store)
        claimed = store.claim_match(PAIRED, "w", 60, NOW)
        assert claimed is not None
        assert store.save_chest(features(claimed.radiograph_id), match_id, "w")
        assert store.save_prediction(match_id, "w", "{}", "r", NOW)

    def test_threads_claim_every_match_exactly_once(self, store: Store) -> None:
        wanted = sorted(add_match(store, number) for number in range(1, 31))
        start = threading.Barrier(6)

        def work(number: int) -> list[int]:
            start.wait()
            claimed = []
            while match := store.claim_match(PAIRED, f"w{number}", 600, NOW):
                claimed.append(match.match_id)
            return claimed

        with ThreadPoolExecutor(6) as threads:
            claims = [match_id for part in threads.map(work, range(6)) for match_id in part]
        # A worker may see None while the others hold the last ones, but nothing is lost or taken twice.
        while match := store.claim_match(PAIRED, "rest", 600, NOW):
            claims.append(match.match_id)
        assert sorted(claims) == wanted


class DeliveryBehaviour:
    def test_the_sr_goes_before_the_overlay(self, store: Store) -> None:
        report(store, add_match(store))
        sr = store.claim_delivery("pacs", "w", 60, NOW)
        assert sr is not None
        assert (sr.kind, sr.attempts, sr.first_tried_at, sr.trying_since) == (ReportKind.SR, 1, NOW, NOW)
        assert store.claim_delivery("pacs", "x", 60, NOW) is None
        store.retry_delivery(sr.delivery_id, "w", 0xA700, "full", NOW + seconds(9))
        assert store.claim_delivery("pacs", "x", 60, NOW) is None
        assert store.claim_delivery("pacs", "w", 60, NOW + seconds(9)) is not None
        store.delivered(sr.delivery_id, "w", 0, NOW)
        overlay = store.claim_delivery("pacs", "x", 60, NOW)
        assert overlay is not None
        assert overlay.kind == ReportKind.OVERLAY

    def test_a_revision_waits_for_what_it_replaces_and_for_nothing_else(self, store: Store) -> None:
        first = add_match(store)
        report(store, first)
        sent = store.claim_delivery("pacs", "w", 60, NOW)
        assert sent is not None
        store.retry_delivery(sent.delivery_id, "w", 0xA700, "full", NOW + seconds(1000))
        second = supersede(store, first)
        report(store, second)
        report(store, add_match(store, 2))
        other = store.claim_delivery("pacs", "w", 60, NOW)
        assert other is not None
        assert other.match_id not in {first, second}
        order = [(other.match_id, other.kind)]
        store.delivered(other.delivery_id, "w", 0, NOW)
        while sent := store.claim_delivery("pacs", "w", 60, NOW + seconds(1000)):
            order.append((sent.match_id, sent.kind))
            store.delivered(sent.delivery_id, "w", 0, NOW)
        assert [kind for match_id, kind in order if match_id == other.match_id] == list(ReportKind)
        assert [entry for entry in order if entry[0] != other.match_id] == [
            (match_id, kind) for match_id in (first, second) for kind in ReportKind
        ]

    def test_destinations_do_not_wait_for_each_other(self, store: Store) -> None:
        report(store, add_match(store), {ReportKind.SR: ["down", "up"]})
        down = store.claim_delivery("down", "w", 60, NOW)
        assert down is not None
        store.retry_delivery(down.delivery_id, "w", None, "no answer", NOW + seconds(3600))
        assert store.claim_delivery("up", "w", 60, NOW) is not None
        assert store.claim_delivery("down", "w", 60, NOW) is None

    def test_the_predecessor_named_is_the_nearest_that_may_have_reached_anyone(self, store: Store) -> None:
        """One destination got the first report, another is down; the second report never left."""
        first = add_match(store)
        report(store, first, {ReportKind.SR: ["up", "down"]})
        sent = store.claim_delivery("up", "w", 60, NOW)
        assert sent is not None
        store.delivered(sent.delivery_id, "w", 0, NOW)
        second = supersede(store, first)
        named = store.predecessor_report(second, ReportKind.SR)
        assert named is not None
        assert named.match_id == first
        report(store, second, {ReportKind.SR: ["up", "down"], ReportKind.OVERLAY: ["up"]})
        third = supersede(store, second)
        named = store.predecessor_report(third, ReportKind.SR)
        assert named is not None
        assert named.match_id == first
        states = {(made.match_id, made.destination): made.state for made in store.deliveries()}
        # What is named still goes to the destination that lacks it; what never left is not sent at all.
        assert states == {
            (first, "up"): DeliveryState.DELIVERED,
            (first, "down"): DeliveryState.PENDING,
            (second, "up"): DeliveryState.CANCELLED,
            (second, "down"): DeliveryState.CANCELLED,
        }
        assert store.predecessor_report(third, ReportKind.SR) == named

    def test_a_report_that_never_left_is_replaced_without_a_trace(self, store: Store) -> None:
        first = add_match(store)
        report(store, first)
        sent = store.claim_delivery("pacs", "w", 60, NOW)
        assert sent is not None
        silence(store, sent, NOW, NOW)
        second = supersede(store, first)
        assert store.predecessor_report(second, ReportKind.SR) is None
        assert {made.state for made in store.deliveries()} == {DeliveryState.CANCELLED}
        assert store.match(first).state == MatchState.SUPERSEDED
        report(store, second)
        sent = store.claim_delivery("pacs", "w", 60, NOW)
        assert sent is not None
        assert sent.match_id == second

    def test_a_report_that_is_being_sent_counts_as_sent(self, store: Store) -> None:
        first = add_match(store)
        report(store, first)
        assert store.claim_delivery("pacs", "w", 60, NOW) is not None
        named = store.predecessor_report(supersede(store, first), ReportKind.SR)
        assert named is not None
        assert {made.state for made in store.deliveries()} == {DeliveryState.PENDING}

    def test_a_match_is_delivered_with_its_last_delivery(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id)
        for expected in (MatchState.REPORTED, MatchState.DELIVERED):
            sent = store.claim_delivery("pacs", "w", 60, NOW)
            assert sent is not None
            assert store.delivered(sent.delivery_id, "w", 0xB000, NOW + seconds(1))
            assert store.match(match_id).state == expected
        settled = store.deliveries(match_id=match_id)[0]
        assert (settled.last_status, settled.delivered_at) == (0xB000, NOW + seconds(1))

    def test_a_match_with_a_failed_delivery_is_not_delivered_until_it_is_driven_again(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id)
        refused = store.claim_delivery("pacs", "w", 60, NOW)
        assert refused is not None
        assert store.fail_delivery(refused.delivery_id, "w", 0xA900, "refused: data set does not match")
        fine = store.claim_delivery("pacs", "w", 60, NOW)
        assert fine is not None
        assert store.delivered(fine.delivery_id, "w", 0, NOW)
        assert store.match(match_id).state == MatchState.REPORTED
        assert store.redrive(NOW, match_id=match_id + 1) == 0
        assert store.redrive(NOW, destination="elsewhere") == 0
        assert store.redrive(NOW, match_id=match_id, destination="pacs") == 1
        later = NOW + timedelta(days=30)
        again = store.claim_delivery("pacs", "w", 60, later)
        assert again is not None
        assert (again.attempts, again.last_status) == (1, 0xA900)
        # Its time is counted anew, and it is not forgotten that it was tried.
        assert (again.first_tried_at, again.trying_since) == (NOW, later)
        assert store.delivered(again.delivery_id, "w", 0, NOW)
        assert store.match(match_id).state == MatchState.DELIVERED

    def test_the_last_two_deliveries_at_once_still_finish_the_match(self, store: Store) -> None:
        for number in range(1, 9):
            match_id = add_match(store, number)
            report(store, match_id, {ReportKind.SR: ["here", "there"]})
            held = [store.claim_delivery(name, f"w{n}", 60, NOW) for n, name in enumerate(("here", "there"))]
            start = threading.Barrier(2)

            def settle(n: int, held: list = held, start: threading.Barrier = start) -> bool:  # type: ignore[type-arg]
                start.wait()
                return store.delivered(held[n].delivery_id, f"w{n}", 0, NOW)

            with ThreadPoolExecutor(2) as threads:
                assert all(threads.map(settle, range(2)))
            assert store.match(match_id).state == MatchState.DELIVERED

    def test_a_superseded_match_is_still_delivered_and_stays_superseded(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id)
        supersede(store, match_id)
        for _ in range(2):
            sent = store.claim_delivery("pacs", "w", 60, NOW)
            assert sent is not None
            assert store.delivered(sent.delivery_id, "w", 0, NOW)
        assert store.match(match_id).state == MatchState.SUPERSEDED

    def test_who_lost_a_delivery_cannot_settle_it(self, store: Store) -> None:
        report(store, add_match(store))
        sent = store.claim_delivery("pacs", "slow", 60, NOW)
        assert sent is not None
        again = store.claim_delivery("pacs", "quick", 60, NOW + seconds(60))
        assert again is not None
        assert again.delivery_id == sent.delivery_id
        assert not store.delivered(sent.delivery_id, "slow", 0, NOW)
        assert not store.retry_delivery(sent.delivery_id, "slow", 0, "", NOW)
        assert not store.fail_delivery(sent.delivery_id, "slow", 0, "")
        assert not store.extend_delivery_lease(sent.delivery_id, "slow", 60, NOW)
        assert store.extend_delivery_lease(sent.delivery_id, "quick", 60, NOW)
        assert store.deliveries()[0].attempts == 2
        with pytest.raises(RowMissing):
            store.delivered(999, "quick", 0, NOW)

    def test_a_silent_destination_is_left_alone_and_keeps_its_order(self, store: Store) -> None:
        for number in range(1, 4):
            report(store, add_match(store, number), {ReportKind.SR: ["pacs"]})
        made = [sent.delivery_id for sent in store.deliveries()]
        until = NOW + seconds(30)
        for start in (NOW, until):
            sent = store.claim_delivery("pacs", "w", 60, start)
            assert sent is not None
            assert silence(store, sent, start, start + seconds(30)) == 0
            assert store.claim_delivery("pacs", "w", 60, start + seconds(29)) is None
        waiting = store.deliveries()[0]
        # Nothing can have reached anyone, so it counts as never tried.
        assert (waiting.attempts, waiting.first_tried_at, waiting.last_error) == (0, None, "connection refused")
        report(store, add_match(store, 4), {ReportKind.SR: ["pacs"]})
        assert store.claim_delivery("pacs", "w", 60, until) is None
        assert store.destination_answered("pacs") == NOW
        assert store.destination_answered("pacs") is None
        order = [store.claim_delivery("pacs", "w", 60, until) for _ in range(4)]
        assert [sent and sent.delivery_id for sent in order][:3] == made

    def test_a_delivery_that_was_tried_before_the_silence_stays_tried(self, store: Store) -> None:
        """A worker killed while it sent may have sent all of it."""
        report(store, add_match(store), {ReportKind.SR: ["pacs"]})
        store.claim_delivery("pacs", "killed", 60, NOW)
        sent = store.claim_delivery("pacs", "w", 60, NOW + seconds(60))
        assert sent is not None
        silence(store, sent, NOW, NOW)
        assert (store.deliveries()[0].attempts, store.deliveries()[0].first_tried_at) == (1, NOW)

    def test_what_was_due_all_through_a_long_silence_is_given_up_and_can_be_driven_again(self, store: Store) -> None:
        report(store, add_match(store), {ReportKind.SR: ["pacs", "up"]})
        sent = store.claim_delivery("pacs", "w", 60, NOW)
        assert sent is not None
        silence(store, sent, NOW, NOW)
        later = NOW + timedelta(days=15)
        with_new = add_match(store, 2)
        report(store, with_new, {ReportKind.SR: ["pacs"]})
        store.hasten("pacs", later)
        with store.writing() as connection:  # made late in the silence
            connection.execute(update(deliveries).where(deliveries.c.match_id == with_new).values(due_at=later))
        sent = store.claim_delivery("pacs", "w", 60, later)
        assert sent is not None
        assert silence(store, sent, later, later) == 1
        states = [(made.destination, made.state) for made in store.deliveries()]
        assert states == [
            ("pacs", DeliveryState.FAILED),
            ("up", DeliveryState.PENDING),
            ("pacs", DeliveryState.PENDING),
        ]
        assert store.redrive(later) == 1
        again = store.claim_delivery("pacs", "w", 60, later)
        assert again is not None
        assert silence(store, again, later, later) == 0

    def test_hastening_makes_all_that_waits_due_even_where_silence_reigns(self, store: Store) -> None:
        for number in range(1, 4):
            report(store, add_match(store, number), {ReportKind.SR: ["pacs"]})
        for wait in (500, 100):
            sent = store.claim_delivery("pacs", "w", 60, NOW)
            assert sent is not None
            store.retry_delivery(sent.delivery_id, "w", None, "no answer", NOW + seconds(wait))
        sent = store.claim_delivery("pacs", "w", 60, NOW)
        assert sent is not None
        silence(store, sent, NOW, NOW + seconds(500))
        assert store.claim_delivery("pacs", "w", 60, NOW) is None
        assert store.hasten("elsewhere", NOW) == 0
        assert store.hasten("pacs", NOW) == 2
        order = [store.claim_delivery("pacs", "w", 60, NOW) for _ in range(3)]
        assert [sent and sent.delivery_id for sent in order] == sorted(sent.delivery_id for sent in store.deliveries())

    def test_deliveries_to_a_destination_that_is_gone_can_be_cancelled(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id, {ReportKind.SR: ["old", "pacs"], ReportKind.OVERLAY: ["old"]})
        kept = store.claim_delivery("pacs", "w", 60, NOW)
        assert kept is not None
        store.delivered(kept.delivery_id, "w", 0, NOW)
        refused = store.claim_delivery("old", "w", 60, NOW)
        assert refused is not None
        store.fail_delivery(refused.delivery_id, "w", 0xC000, "refused")
        assert store.match(match_id).state == MatchState.REPORTED
        assert store.cancel_deliveries("old", NOW) == 2
        assert store.cancel_deliveries("old", NOW) == 0
        assert store.match(match_id).state == MatchState.DELIVERED
        assert store.claim_delivery("old", "w", 60, NOW) is None
        assert store.add_deliveries(match_id, "old", [ReportKind.SR], NOW) == 1  # a person changed their mind

    def test_a_match_of_which_everything_was_cancelled_is_not_called_delivered(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id)
        assert store.cancel_deliveries("pacs", NOW) == 2
        assert store.match(match_id).state == MatchState.REPORTED

    def test_a_delivered_report_can_be_sent_again_and_to_others(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id, {ReportKind.SR: ["pacs"]})
        sent = store.claim_delivery("pacs", "w", 60, NOW)
        assert sent is not None
        store.delivered(sent.delivery_id, "w", 0, NOW)
        assert store.match(match_id).state == MatchState.DELIVERED
        assert store.add_deliveries(match_id, "pacs", [ReportKind.SR], NOW) == 1
        assert store.match(match_id).state == MatchState.REPORTED
        assert store.add_deliveries(match_id, "pacs", [ReportKind.SR], NOW) == 0  # on its way already
        assert store.add_deliveries(match_id, "archive", list(ReportKind), NOW) == 2
        assert store.count_deliveries() == {
            ("pacs", DeliveryState.PENDING): 1,
            ("archive", DeliveryState.PENDING): 2,
        }
        with pytest.raises(RowMissing):
            store.add_deliveries(999, "pacs", list(ReportKind), NOW)
