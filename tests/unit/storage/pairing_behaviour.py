"""What receiving and pairing may rely on, whatever the database. Run on SQLite and on PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from storage.errors import IllegalTransition, RowMissing, StorageConflict
from storage.records import Disposition, Kind, MatchState, ReportKind
from storage.store import Store
from storage.transaction import PatientLock
from tests.unit.storage.storage_examples import (
    NOW,
    RULE,
    add,
    add_match,
    features,
    instance,
    new_report,
    report,
    supersede,
)


class PairingBehaviour:
    def test_an_instance_comes_back_as_it_was_stored(self, store: Store) -> None:
        stored = instance(name="Wang^XiaoDong=王^小東=")
        instance_id = add(store, stored)
        found = store.instance(instance_id)
        assert found.instance == stored
        assert found.purged_at is None

    def test_an_instance_without_a_date_comes_back_without_one(self, store: Store) -> None:
        instance_id = add(store, instance(acquired_at=None))
        assert store.instance(instance_id).instance.acquired is None

    def test_instants_come_back_in_utc_with_microseconds(self, store: Store) -> None:
        tokyo = timezone(timedelta(hours=9))
        at = datetime(2026, 1, 1, 8, 0, 0, 1, tzinfo=tokyo)
        acquired = store.instance(add(store, instance(acquired_at=at))).instance.acquired
        assert acquired is not None
        assert acquired.at == at
        assert acquired.at.isoformat() == "2025-12-31T23:00:00.000001+00:00"

    def test_a_naive_instant_is_refused(self, store: Store) -> None:
        with pytest.raises(ValueError, match="time zone"):
            add(store, instance(acquired_at=datetime(2026, 1, 1)))  # noqa: DTZ001

    @pytest.mark.parametrize(("sent", "kept"), [("A\0B", "A\\x00B"), ("A\udc80B", "A\\udc80B"), ("é\0", "é\\x00")])
    def test_text_no_database_can_hold_is_kept_escaped(self, store: Store, sent: str, kept: str) -> None:
        add(store, instance(name=sent, patient_id=sent))
        with store.transaction(PatientLock(issuer="HOSPITAL", patient_id=sent)) as tx:
            (found,) = tx.accepted("HOSPITAL", sent, Kind.RADIOGRAPH)
        assert found.instance.patient.name == kept
        assert found.instance.patient.patient_id == kept

    def test_the_same_instance_twice_is_a_conflict(self, store: Store) -> None:
        add(store, instance())
        with pytest.raises(StorageConflict) as caught:
            add(store, instance())
        assert "P1" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_the_same_uid_with_other_bytes_is_a_second_row_beside_the_first(self, store: Store) -> None:
        first = add(store, instance("1.2", content="one"))
        second = add(store, instance("1.2", content="two"))
        with store.transaction() as tx:
            found = tx.instances_with_uid("1.2")
        assert [row.instance_id for row in found] == [first, second]

    def test_accepted_instances_are_of_one_issuer_id_and_kind(self, store: Store) -> None:
        wanted = add(store, instance("1.1"))
        add(store, instance("1.2", Kind.ECG))
        add(store, instance("1.3", issuer="OTHER"))
        add(store, instance("1.4", patient_id="P2"))
        add(store, instance("1.5", disposition=Disposition.HELD))
        with store.transaction() as tx:
            found = tx.accepted("HOSPITAL", "P1", Kind.RADIOGRAPH)
        assert [row.instance_id for row in found] == [wanted]

    def test_accepted_instances_can_be_asked_for_by_time_with_both_ends_included(self, store: Store) -> None:
        for day in range(1, 6):
            add(store, instance(f"1.{day}", acquired_at=datetime(2026, 1, day, tzinfo=UTC)))
        add(store, instance("1.9", acquired_at=None))
        with store.transaction() as tx:
            between = tx.accepted(
                "HOSPITAL",
                "P1",
                Kind.RADIOGRAPH,
                acquired_from=datetime(2026, 1, 2, tzinfo=UTC),
                acquired_to=datetime(2026, 1, 4, tzinfo=UTC),
            )
            open_ended = tx.accepted("HOSPITAL", "P1", Kind.RADIOGRAPH, acquired_from=datetime(2026, 1, 4, tzinfo=UTC))
            everything = tx.accepted("HOSPITAL", "P1", Kind.RADIOGRAPH)
        assert [row.instance.sop_instance_uid for row in between] == ["1.2", "1.3", "1.4"]
        assert [row.instance.sop_instance_uid for row in open_ended] == ["1.4", "1.5"]
        assert len(everything) == 6

    def test_a_transaction_that_raises_leaves_nothing(self, store: Store) -> None:
        with pytest.raises(ZeroDivisionError), store.transaction() as tx:
            _ = tx.add_instance(instance()) / 0
        assert store.instances() == ()

    def test_a_disposition_can_change_with_its_reason(self, store: Store) -> None:
        instance_id = add(store, instance(kind=Kind.ECG))
        with store.transaction() as tx:
            tx.set_disposition(instance_id, Disposition.REFUSED, "flat_lead: V3 is flat")
        found = store.instance(instance_id).instance
        assert (found.disposition, found.reason) == (Disposition.REFUSED, "flat_lead: V3 is flat")

    def test_a_row_that_is_not_there_is_named(self, store: Store) -> None:
        with pytest.raises(RowMissing, match="instance 99"):
            store.instance(99)
        with pytest.raises(RowMissing, match="match 99"):
            store.match(99)
        with pytest.raises(RowMissing, match="instance 99"), store.transaction() as tx:
            tx.set_disposition(99, Disposition.HELD, "")

    def test_a_match_tells_of_its_radiograph_and_its_ecg(self, store: Store) -> None:
        match = store.match(add_match(store, 7, study="1.9.7", accession="ACC7"))
        assert (match.radiograph_uid, match.ecg_uid) == ("1.2.7.1", "1.2.7.2")
        assert (match.study_instance_uid, match.accession_number) == ("1.9.7", "ACC7")
        assert match.patient == instance().patient
        assert match.radiograph_at == match.ecg_at == NOW - timedelta(days=1)
        assert (match.gap_seconds, match.revision, match.attempts) == (3600.0, 1, 0)
        assert match.created_at == match.updated_at == match.due_at == NOW

    def test_a_radiograph_has_one_match_that_stands(self, store: Store) -> None:
        radiograph_id = store.match(add_match(store)).radiograph_id
        with pytest.raises(StorageConflict), store.transaction() as tx:
            _waiting(tx, radiograph_id)

    def test_a_superseding_match_counts_on_and_names_what_it_replaces(self, store: Store) -> None:
        first = add_match(store)
        second = supersede(store, first)
        third = supersede(store, second)
        assert [store.match(match_id).revision for match_id in (first, second, third)] == [1, 2, 3]
        assert store.match(first).state == MatchState.SUPERSEDED
        assert store.match(first).superseded_by == second
        assert store.match(third).supersedes == second
        with store.transaction() as tx:
            current = tx.current_match(store.match(third).radiograph_id)
        assert current == store.match(third)

    def test_what_is_superseded_cannot_be_superseded_again(self, store: Store) -> None:
        first = add_match(store)
        supersede(store, first)
        with pytest.raises(IllegalTransition):
            supersede(store, first)
        assert len(store.matches(include_superseded=True)) == 2

    def test_superseding_ends_the_lease(self, store: Store) -> None:
        first = add_match(store)
        assert store.claim_match([MatchState.PAIRED], "worker", 60, NOW)
        supersede(store, first)
        assert not store.save_prediction(first, "worker", "{}", "r", NOW)

    def test_another_ecg_before_any_report_voids_lease_attempts_and_estimate(self, store: Store) -> None:
        match_id = add_match(store)
        nearer = add(store, instance("1.7", Kind.ECG))
        assert store.claim_match([MatchState.PAIRED], "worker", 60, NOW)
        assert store.save_prediction(match_id, "worker", "{}", "r", NOW)
        assert store.claim_match([MatchState.PREDICTED], "worker", 60, NOW)
        with store.transaction() as tx:
            tx.change_match(
                match_id,
                state=MatchState.PAIRED,
                reason="a nearer ECG came",
                ecg_id=nearer,
                gap_seconds=60.0,
                rule_version="rule-2",
                due_at=NOW,
                now=NOW,
            )
            assert not tx.holds_lease(match_id, "worker")
        match = store.match(match_id)
        assert (match.state, match.ecg_uid, match.gap_seconds) == (MatchState.PAIRED, "1.7", 60.0)
        assert (match.prediction_json, match.run_digest, match.attempts) == ("", "", 0)
        assert (match.rule_version, match.revision) == ("rule-2", 1)

    def test_a_match_with_reports_cannot_change_and_must_be_superseded(self, store: Store) -> None:
        match_id = add_match(store)
        report(store, match_id)
        before = store.match(match_id)
        with pytest.raises(IllegalTransition), store.transaction() as tx:
            tx.change_match(
                match_id,
                state=MatchState.PAIRED,
                reason="",
                ecg_id=before.ecg_id,
                gap_seconds=1.0,
                rule_version=RULE,
                due_at=NOW,
                now=NOW,
            )
        assert store.match(match_id) == before

    def test_a_pair_without_an_ecg_cannot_be_stored(self, store: Store) -> None:
        match_id = add_match(store, state=MatchState.WAITING)
        with pytest.raises(StorageConflict), store.transaction() as tx:
            tx.change_match(
                match_id,
                state=MatchState.PAIRED,
                reason="",
                ecg_id=None,
                gap_seconds=None,
                rule_version=RULE,
                due_at=NOW,
                now=NOW,
            )

    def test_a_held_match_may_name_the_ecg_that_contradicts(self, store: Store) -> None:
        match = store.match(add_match(store, state=MatchState.HELD))
        assert match.ecg_uid == "1.2.1.2"

    def test_a_report_of_ours_that_comes_back_is_known(self, store: Store) -> None:
        """An archive that routes everything back must not start a loop."""
        match_id = add_match(store)
        report(store, match_id)
        with store.transaction() as tx:
            assert tx.is_own_report(new_report(match_id).sop_instance_uid)
            assert not tx.is_own_report("1.2.1.1")

    def test_the_predecessor_is_the_nearest_ancestor_with_a_report(self, store: Store) -> None:
        first = add_match(store)
        report(store, first, {})  # nobody is sent it, so anybody may have it
        second = supersede(store, first)  # superseded before it had a report
        third = supersede(store, second)
        found = store.predecessor_report(third, ReportKind.SR)
        assert found is not None
        assert found.match_id == first
        assert store.predecessor_report(first, ReportKind.SR) is None

    def test_a_rerun_knows_that_its_radiograph_has_features(self, store: Store) -> None:
        first = add_match(store, state=MatchState.WAITING)
        claimed = store.claim_chest("a" * 64, "worker", 60, NOW)
        assert claimed is not None
        store.save_chest(features(claimed.radiograph_id), first, "worker")
        with store.transaction() as tx:
            _waiting(tx, claimed.radiograph_id, supersedes=first)
        assert store.claim_chest("a" * 64, "worker", 60, NOW) is None


def _waiting(tx: object, radiograph_id: int, supersedes: int | None = None) -> None:
    tx.add_match(  # type: ignore[attr-defined]
        radiograph_id=radiograph_id,
        ecg_id=None,
        gap_seconds=None,
        rule_version=RULE,
        state=MatchState.WAITING,
        reason="",
        due_at=NOW,
        supersedes=supersedes,
        now=NOW,
    )
