"""What workers may rely on: claims, leases, results and deliveries, whatever the database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.errors import RowMissing, StorageConflict
from storage.records import DeliveryState, MatchState, ReportKind
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
        claimed = [store.claim_delivery("pacs", "w", 60, NOW) for _ in range(3)]
        assert [sent and sent.kind for sent in claimed] == [ReportKind.SR, ReportKind.OVERLAY, None]
        assert claimed[0] is not None
        assert (claimed[0].attempts, claimed[0].first_tried_at) == (1, NOW)

    def test_destinations_do_not_wait_for_each_other(self, store: Store) -> None:
        report(store, add_match(store), {ReportKind.SR: ["down", "up"]})
        down = store.claim_delivery("down", "w", 60, NOW)
        assert down is not None
        store.retry_delivery(down.delivery_id, "w", None, "no answer", NOW + seconds(3600))
        assert store.claim_delivery("up", "w", 60, NOW) is not None
        assert store.claim_delivery("down", "w", 60, NOW) is None

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
        refused, fine = (store.claim_delivery("pacs", "w", 60, NOW) for _ in range(2))
        assert refused is not None
        assert fine is not None
        assert store.fail_delivery(refused.delivery_id, "w", 0xA900, "refused: data set does not match")
        assert store.delivered(fine.delivery_id, "w", 0, NOW)
        assert store.match(match_id).state == MatchState.REPORTED
        assert store.redrive(NOW, match_id=match_id + 1) == 0
        assert store.redrive(NOW, destination="elsewhere") == 0
        assert store.redrive(NOW, match_id=match_id, destination="pacs") == 1
        again = store.claim_delivery("pacs", "w", 60, NOW)
        assert again is not None
        assert (again.attempts, again.last_status) == (1, 0xA900)
        assert store.delivered(again.delivery_id, "w", 0, NOW)
        assert store.match(match_id).state == MatchState.DELIVERED

    def test_the_last_two_deliveries_at_once_still_finish_the_match(self, store: Store) -> None:
        for number in range(1, 9):
            match_id = add_match(store, number)
            report(store, match_id)
            held = [store.claim_delivery("pacs", f"w{n}", 60, NOW) for n in range(2)]
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
        # The overlay, due as long as the SR and never tried, has no precedence.
        assert again is not None
        assert again.delivery_id == sent.delivery_id
        assert not store.delivered(sent.delivery_id, "slow", 0, NOW)
        assert not store.retry_delivery(sent.delivery_id, "slow", 0, "", NOW)
        assert not store.fail_delivery(sent.delivery_id, "slow", 0, "")
        assert not store.release_delivery(sent.delivery_id, "slow")
        assert not store.extend_delivery_lease(sent.delivery_id, "slow", 60, NOW)
        assert store.extend_delivery_lease(sent.delivery_id, "quick", 60, NOW)
        assert store.release_delivery(sent.delivery_id, "quick")
        assert store.deliveries()[0].attempts == 1
        with pytest.raises(RowMissing):
            store.delivered(999, "quick", 0, NOW)

    def test_a_delivery_that_nobody_answered_does_not_count_as_tried(self, store: Store) -> None:
        report(store, add_match(store), {ReportKind.SR: ["pacs"]})
        sent = store.claim_delivery("pacs", "w", 60, NOW)
        assert sent is not None
        assert store.postpone_delivery(sent.delivery_id, "w", "connection refused", NOW + seconds(30))
        assert store.claim_delivery("pacs", "w", 60, NOW + seconds(29)) is None
        again = store.claim_delivery("pacs", "w", 60, NOW + seconds(30))
        assert again is not None
        assert (again.attempts, again.last_status, again.last_error) == (1, None, "connection refused")
        assert again.first_tried_at == NOW
        assert not store.postpone_delivery(sent.delivery_id, "x", "", NOW)

    def test_a_destination_that_answers_again_gets_everything_in_the_order_it_was_made(self, store: Store) -> None:
        for number in range(1, 4):
            report(store, add_match(store, number))
        waits = [500, 100, 400, 200, 600, 300]
        for wait in waits:
            sent = store.claim_delivery("pacs", "w", 60, NOW)
            assert sent is not None
            store.retry_delivery(sent.delivery_id, "w", None, "no answer", NOW + seconds(wait))
        assert store.claim_delivery("pacs", "w", 60, NOW) is None
        assert store.hasten("elsewhere", NOW) == 0
        assert store.hasten("pacs", NOW) == 6
        order = [store.claim_delivery("pacs", "w", 60, NOW) for _ in waits]
        assert [sent and sent.delivery_id for sent in order] == sorted(sent.delivery_id for sent in store.deliveries())

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
