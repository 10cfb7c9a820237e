"""What commands, metrics and the scheduler may rely on, whatever the database."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.errors import StoreMismatch, SweepRefused
from storage.identity import bind
from storage.objects import ObjectStore
from storage.records import DeliveryState, Disposition, Kind, MatchState, ReportKind
from storage.store import Store
from storage.upkeep import MOST_ORPHANS
from tests.unit.storage.storage_examples import (
    MODEL,
    NOW,
    add,
    add_match,
    digest,
    features,
    instance,
    new_report,
    predict,
    report,
    seconds,
    supersede,
)

WEEK = timedelta(days=7)
OLD = NOW - timedelta(days=100)


class ReadingBehaviour:
    def test_matches_are_found_by_each_key_and_page_by_page(self, store: Store) -> None:
        first = add_match(store, 1, patient_id="P1", study="1.9.1", accession="A1")
        second = add_match(store, 2, patient_id="P2", study="1.9.2", accession="A2")
        third = add_match(store, 3, state=MatchState.WAITING, patient_id="P2", study="1.9.3")

        def found(**conditions: object) -> list[int]:
            return [match.match_id for match in store.matches(**conditions)]  # type: ignore[arg-type]

        assert found() == [first, second, third]
        assert found(patient_id="P2") == [second, third]
        assert found(patient_id="P2", issuer="OTHER") == []
        assert found(study_uid="1.9.2") == [second]
        assert found(accession="A1") == [first]
        assert found(radiograph_uid="1.2.3.1") == [third]
        assert found(states=[MatchState.WAITING]) == [third]
        assert found(states=[]) == []
        assert found(limit=2) == [first, second]
        assert found(after_id=second) == [third]
        newer = supersede(store, first)
        assert found() == [second, third, newer]
        assert found(include_superseded=True) == [first, second, third, newer]

    def test_instances_are_found_by_disposition_and_kind(self, store: Store) -> None:
        held = add(store, instance("1.1", disposition=Disposition.HELD))
        ecg = add(store, instance("1.2", Kind.ECG))
        other = add(store, instance("1.3", Kind.OTHER, disposition=Disposition.IGNORED, patient_id="P9"))

        def found(**conditions: object) -> list[int]:
            return [row.instance_id for row in store.instances(**conditions)]  # type: ignore[arg-type]

        assert found() == [held, ecg, other]
        assert found(dispositions=[Disposition.HELD, Disposition.IGNORED]) == [held, other]
        assert found(kind=Kind.ECG) == [ecg]
        assert found(patient_id="P9") == [other]
        assert found(sop_instance_uid="1.2") == [ecg]
        assert found(study_uid="1.9.1", after_id=held, limit=1) == [ecg]

    def test_counts_are_by_state(self, store: Store) -> None:
        add_match(store, 1)
        add_match(store, 2)
        add_match(store, 3, state=MatchState.WAITING)
        assert store.count_matches() == {MatchState.PAIRED: 2, MatchState.WAITING: 1}
        assert store.count_instances() == {
            (Kind.RADIOGRAPH, Disposition.ACCEPTED): 3,
            (Kind.ECG, Disposition.ACCEPTED): 2,
        }
        assert store.count_deliveries() == {}

    def test_the_age_of_the_queue_is_that_of_the_oldest_claimable_work(self, store: Store) -> None:
        assert store.oldest_due(NOW) == 0.0
        waiting = add_match(store, 1, state=MatchState.WAITING, due_at=NOW - seconds(90))
        assert store.oldest_due(NOW) == 90.0
        claimed = store.claim_chest(MODEL, "w", 60, NOW)
        assert claimed is not None
        store.save_chest(features(claimed.radiograph_id), waiting, "w")
        assert store.oldest_due(NOW) == 0.0  # a radiograph that merely waits is no work
        paired = add_match(store, 2, due_at=NOW - seconds(30))
        assert store.oldest_due(NOW) == 30.0
        report(store, paired)
        assert store.oldest_due(NOW + seconds(7)) == 7.0  # its deliveries


class UpkeepBehaviour:
    def test_windows_close_after_and_not_at_seven_days(self, store: Store) -> None:
        edge = add_match(store, 1, state=MatchState.WAITING, acquired_at=NOW - WEEK)
        past = add_match(store, 2, state=MatchState.WAITING, acquired_at=NOW - WEEK - seconds(0.000001))
        paired = add_match(store, 3, acquired_at=NOW - WEEK * 2)
        store.claim_chest(MODEL, "w", 60, NOW)
        assert store.close_windows(NOW, WEEK) == 1
        assert store.match(edge).state == MatchState.WAITING
        assert store.match(past).state == MatchState.UNPAIRED
        assert store.match(past).reason.startswith("window_closed: ")
        assert store.match(paired).state == MatchState.PAIRED
        assert store.close_windows(NOW, WEEK) == 0

    def test_ended_leases_are_forgotten_and_others_kept(self, store: Store) -> None:
        report(store, add_match(store, 1))
        ended, lasting = add_match(store, 2), add_match(store, 3)
        assert store.claim_match([MatchState.PAIRED], "short", 10, NOW)
        assert store.claim_match([MatchState.PAIRED], "long", 100, NOW)
        assert store.claim_delivery("pacs", "short", 10, NOW)
        assert store.clear_ended_leases(NOW + seconds(10)) == 2
        assert not store.save_prediction(ended, "short", "{}", "r", NOW)
        assert store.save_prediction(lasting, "long", "{}", "r", NOW)

    def test_only_inputs_that_nobody_pairs_are_given_up(self, store: Store) -> None:
        ignored = add(store, instance("1.1", disposition=Disposition.IGNORED, received_at=OLD))
        lone_ecg = add(store, instance("1.2", Kind.ECG, received_at=OLD))
        refused = add(store, instance("1.3", Kind.ECG, received_at=OLD, disposition=Disposition.REFUSED))
        add(store, instance("1.4", received_at=OLD, disposition=Disposition.HELD))
        add(store, instance("1.5", Kind.ECG, received_at=NOW))
        with_old_inputs = {"received_at": OLD}
        add_match(store, 1, **with_old_inputs)  # type: ignore[arg-type]
        add_match(store, 2, state=MatchState.HELD, **with_old_inputs)  # type: ignore[arg-type]
        add_match(store, 3, state=MatchState.WAITING, **with_old_inputs)  # type: ignore[arg-type]
        unpaired = add_match(store, 4, state=MatchState.UNPAIRED, **with_old_inputs)  # type: ignore[arg-type]
        superseded = add_match(store, 5, **with_old_inputs)  # type: ignore[arg-type]
        supersede(store, superseded)
        wanted = [ignored, lone_ecg, refused, store.match(unpaired).radiograph_id]
        found = store.unpaired_inputs(NOW - timedelta(days=30), 100)
        assert [row.instance_id for row in found] == wanted
        assert len(store.unpaired_inputs(NOW - timedelta(days=30), 2)) == 2

    def test_bytes_that_a_kept_row_shares_are_not_given_up(self, store: Store) -> None:
        add(store, instance("1.1", Kind.ECG, content="same", received_at=OLD))
        add(store, instance("1.2", content="same", received_at=OLD, disposition=Disposition.HELD))
        add(store, instance("1.3", Kind.ECG, content="twice", received_at=OLD))
        add(store, instance("1.4", Kind.ECG, content="twice", received_at=OLD))
        found = store.unpaired_inputs(NOW, 100)
        assert [row.instance.sop_instance_uid for row in found] == ["1.3", "1.4"]

    def test_an_input_that_was_paired_since_it_was_listed_is_not_given_up(self, store: Store) -> None:
        match_id = add_match(store, state=MatchState.UNPAIRED)
        radiograph_id = store.match(match_id).radiograph_id
        ecg_id = add(store, instance("1.9", Kind.ECG))
        with store.transaction() as tx:
            tx.change_match(
                match_id,
                state=MatchState.PAIRED,
                reason="",
                ecg_id=ecg_id,
                gap_seconds=0.0,
                rule_version="r",
                due_at=NOW,
                now=NOW,
            )
        assert not store.mark_purged(radiograph_id, NOW)
        assert not store.mark_purged(ecg_id, NOW)

    def test_a_given_up_input_keeps_its_row_loses_its_features_and_can_come_back(self, store: Store) -> None:
        match_id = add_match(store, state=MatchState.WAITING, acquired_at=OLD)
        claimed = store.claim_chest(MODEL, "w", 60, NOW)
        assert claimed is not None
        store.save_chest(features(claimed.radiograph_id), match_id, "w")
        store.close_windows(NOW, WEEK)
        named = (store.instance(claimed.radiograph_id).instance.sha256, digest(f"display {claimed.radiograph_id}"))
        assert store.mark_purged(claimed.radiograph_id, NOW) == named
        assert not store.mark_purged(claimed.radiograph_id, NOW)
        assert store.instance(claimed.radiograph_id).purged_at == NOW
        assert store.referenced_digests() == set()
        assert store.chest_features(claimed.radiograph_id, MODEL) is None
        with store.transaction() as tx:
            tx.restore_purged(claimed.radiograph_id)
        assert store.instance(claimed.radiograph_id).purged_at is None

    def test_digests_of_inputs_reports_and_displays_are_referenced(self, store: Store) -> None:
        match_id = add_match(store)
        predict(store, match_id)
        store.claim_match([MatchState.PREDICTED], "w", 60, NOW)
        radiograph_id = store.match(match_id).radiograph_id
        store.save_chest(features(radiograph_id), match_id, "w")
        store.save_reports(match_id, "w", [new_report(match_id)], {}, NOW)
        named = {
            digest("1.2.1.1"),
            digest("1.2.1.2"),
            new_report(match_id, ReportKind.SR).sha256,
            features(radiograph_id).display_sha256,
        }
        assert store.referenced_digests() == named
        assert store.referenced_digests([digest("1.2.1.1"), digest("nobody's")]) == {digest("1.2.1.1")}
        assert store.deliveries(states=[DeliveryState.PENDING]) == ()

    def test_orphans_are_set_aside_when_old_and_what_rows_name_stays(self, store: Store, objects: ObjectStore) -> None:
        bind(store, objects)
        kept = objects.put(b"1.2.3")
        add(store, instance("1.2.3"))
        orphan = objects.put(b"left by a killed sender")
        assert store.sweep_orphans(objects, unused_for_seconds=3600) == 0
        assert store.sweep_orphans(objects, unused_for_seconds=0) == 1
        assert objects.exists(kept.sha256)
        assert not objects.exists(orphan.sha256)
        aside = objects.root / "orphaned" / orphan.sha256
        assert aside.read_bytes() == b"left by a killed sender"
        assert objects.count_set_aside() == 1
        assert objects.remove_set_aside(older_than_seconds=3600) == 0
        assert objects.remove_set_aside(older_than_seconds=0) == 1
        assert not aside.exists()

    def test_so_many_orphans_that_rows_must_be_missing_are_left_alone(self, store: Store, objects: ObjectStore) -> None:
        """An older backup of the rows must not cost the objects that came after it."""
        bind(store, objects)
        for number in range(1, 6):
            objects.put(f"1.{number}".encode())
            add(store, instance(f"1.{number}"))
        orphans = [objects.put(f"orphan {number}".encode()).sha256 for number in range(MOST_ORPHANS + 1)]
        with pytest.raises(SweepRefused) as caught:
            store.sweep_orphans(objects, unused_for_seconds=0)
        assert (caught.value.orphans, caught.value.objects) == (101, 106)
        assert all(map(objects.exists, orphans))
        assert store.sweep_orphans(objects, unused_for_seconds=0, however_many=True) == 101

    def test_a_folder_of_another_database_is_never_swept(self, store: Store, objects: ObjectStore) -> None:
        with pytest.raises(StoreMismatch):
            store.sweep_orphans(objects, unused_for_seconds=0)
        objects.claim("another")
        orphan = objects.put(b"another's")
        with pytest.raises(StoreMismatch):
            store.sweep_orphans(objects, unused_for_seconds=0)
        assert objects.exists(orphan.sha256)

    def test_features_of_a_former_model_go_once_the_new_ones_are_there(self, store: Store) -> None:
        former, present = "a" * 64, "b" * 64
        waiting = add_match(store, 1, state=MatchState.WAITING)
        predicted = add_match(store, 2)
        radiographs = [store.match(match_id).radiograph_id for match_id in (waiting, predicted)]
        for match_id, radiograph_id in zip((waiting, predicted), radiographs, strict=True):
            store.save_chest(features(radiograph_id, former), match_id, "w")
        assert store.remove_former_features(10) == ()
        for match_id, radiograph_id in zip((waiting, predicted), radiographs, strict=True):
            store.save_chest(features(radiograph_id, present), match_id, "w")
        assert store.remove_former_features(10) == (digest(f"display {radiographs[0]}"),)
        assert store.chest_features(radiographs[0], former) is None
        assert store.chest_features(radiographs[0], present) is not None
        # An estimate under way may have begun with them.
        assert store.chest_features(radiographs[1], former) is not None
        report(store, predicted)
        assert len(store.remove_former_features(10)) == 1

    def test_tallies_add_up(self, store: Store) -> None:
        store.add_tallies({})
        assert store.tallies() == {}
        store.add_tallies({("rejected", "sources"): 2, ("accepted", ""): 1})
        store.add_tallies({("rejected", "sources"): 3})
        assert store.tallies() == {("rejected", "sources"): 5, ("accepted", ""): 1}
