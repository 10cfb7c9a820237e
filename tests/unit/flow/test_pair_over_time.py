"""What becomes of a pair when something happens to it: a nearer ECG, a refused input, a person's second try."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pacs_node.flow.pair import DISPUTED, drive_again, lock_of, refuse_ecg, refuse_radiograph, run_again
from pacs_node.flow.upkeep import Upkeep
from storage.records import Disposition, Match, MatchState, NewReport, ReportKind
from tests.unit.flow.conftest import Node
from tests.unit.flow.headers import NOON
from tests.unit.flow.test_pair_by_arrival import send_ecg, send_film, the_match

OWNER = "worker-1"


def claim(node: Node, *states: MatchState) -> Match:
    match = node.store.claim_match(states, OWNER, 60, node.clock())
    assert match is not None
    return match


def predict(node: Node) -> Match:
    match = claim(node, MatchState.PAIRED)
    assert node.store.save_prediction(match.match_id, OWNER, "{}", "digest", node.clock())
    return node.store.match(match.match_id)


def report(node: Node) -> Match:
    """Take the due match to REPORTED, as a worker does."""
    predict(node)
    match = claim(node, MatchState.PREDICTED)
    made = NewReport(
        kind=ReportKind.SR,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
        sop_instance_uid=f"2.25.{match.match_id}",
        series_instance_uid="2.25.99",
        study_instance_uid=match.study_instance_uid,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=node.objects.put(b"report").sha256,
        size_bytes=6,
    )
    assert node.store.save_reports(match.match_id, OWNER, [made], {ReportKind.SR: ["pacs"]}, node.clock())
    return node.store.match(match.match_id)


def refuse(node: Node, reason: str = "flat_lead: V3", *, model: str = "digest") -> None:
    """As a worker does whose estimates have the run digest `model`."""
    match = claim(node, MatchState.PAIRED)
    with node.store.transaction(lock=lock_of(match.patient)) as tx:
        repeats = lambda earlier, *_: earlier.run_digest == model  # noqa: E731
        refuse_ecg(tx, match, OWNER, reason, node.rules, node.clock(), repeats=repeats)


def try_again(node: Node, match: Match) -> Match:
    with node.store.transaction(lock=lock_of(match.patient)) as tx:
        drive_again(tx, match, node.rules, node.clock())
    return node.store.match(match.match_id)


class TestANearerEcg:
    def test_before_the_estimate_it_takes_the_place_in_the_same_match(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        first = the_match(node)
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        again = the_match(node)
        assert (again.match_id, again.ecg_uid, again.revision) == (first.match_id, "1.3", 1)

    def test_while_a_worker_computes_its_result_is_dropped(self, node: Node) -> None:
        """Otherwise the estimate of one ECG would be reported as that of another."""
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        working = claim(node, MatchState.PAIRED)
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        assert not node.store.save_prediction(working.match_id, OWNER, "{}", "digest", node.clock())
        assert (the_match(node).state, the_match(node).ecg_uid) == (MatchState.PAIRED, "1.3")

    def test_between_estimate_and_report_the_estimate_is_void(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        predict(node)
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        match = the_match(node)
        assert (match.state, match.ecg_uid, match.prediction_json, match.run_digest) == (
            MatchState.PAIRED,
            "1.3",
            "",
            "",
        )

    def test_after_the_report_a_new_match_names_its_predecessor(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        old = report(node)
        assert node.store.claim_delivery("pacs", OWNER, 60, node.clock()) is not None
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        new = the_match(node)
        assert (new.state, new.ecg_uid, new.revision, new.supersedes) == (MatchState.PAIRED, "1.3", 2, old.match_id)
        old = node.store.match(old.match_id)
        assert (old.state, old.superseded_by) == (MatchState.SUPERSEDED, new.match_id)
        predecessor = node.store.predecessor_report(new.match_id, ReportKind.SR)
        assert predecessor is not None
        assert predecessor.match_id == old.match_id

    def test_a_farther_ecg_after_the_report_changes_nothing(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        old = report(node)
        send_ecg(node, "1.3", NOON - timedelta(days=4))
        assert the_match(node) == old

    def test_a_contradicting_ecg_after_the_report_changes_nothing(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        old = report(node)
        send_ecg(node, "1.3", PatientSex="M")
        assert the_match(node) == old


class TestARefusedEcg:
    def test_the_next_nearest_takes_its_place(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=1))
        send_ecg(node, "1.3", NOON + timedelta(days=2))
        refuse(node)
        assert (the_match(node).state, the_match(node).ecg_uid) == (MatchState.PAIRED, "1.3")
        (row,) = node.store.instances(sop_instance_uid="1.2")
        assert (row.instance.disposition, row.instance.reason) == (Disposition.REFUSED, "flat_lead: V3")

    def test_without_another_the_match_is_held_with_the_reason(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        refuse(node)
        match = the_match(node)
        assert (match.state, match.ecg_uid, match.reason) == (MatchState.HELD, "1.2", "ecg_refused: flat_lead: V3")

    def test_after_a_report_with_another_ecg_that_report_stands_again(self, node: Node) -> None:
        """No second report of the same two inputs, whose number is the same."""
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        old = report(node)
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        refuse(node)
        assert the_match(node) == old
        new = node.store.match(old.match_id + 1)
        assert new.state is MatchState.SUPERSEDED
        assert (new.supersedes, new.superseded_by) == (old.match_id, old.match_id)
        assert node.store.claim_match([MatchState.PAIRED], OWNER, 60, node.clock()) is None

    def test_a_report_that_arrived_meanwhile_stands_again_as_delivered(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        old = report(node)
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        sent = node.store.claim_delivery("pacs", OWNER, 60, node.clock())
        assert sent is not None
        assert node.store.delivered(sent.delivery_id, OWNER, 0, node.clock())
        refuse(node)
        assert (the_match(node).match_id, the_match(node).state) == (old.match_id, MatchState.DELIVERED)

    def test_after_it_the_next_nearer_ecg_names_the_report_that_stands(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        old = report(node)
        assert node.store.claim_delivery("pacs", OWNER, 60, node.clock()) is not None
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        refuse(node)
        send_ecg(node, "1.4", NOON + timedelta(days=2))
        new = the_match(node)
        assert (new.ecg_uid, new.supersedes, new.revision) == ("1.4", old.match_id, 3)
        predecessor = node.store.predecessor_report(new.match_id, ReportKind.SR)
        assert predecessor is not None
        assert predecessor.match_id == old.match_id

    def test_with_another_model_by_now_the_former_ecg_is_estimated_again(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=3))
        old = report(node)
        send_ecg(node, "1.3", NOON + timedelta(days=1))
        refuse(node, model="another")
        new = the_match(node)
        assert (new.state, new.ecg_uid, new.supersedes) == (MatchState.PAIRED, "1.2", old.match_id)

    def test_a_later_ecg_ends_the_hold(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        refuse(node)
        send_ecg(node, "1.3", NOON + timedelta(days=6))
        assert (the_match(node).state, the_match(node).ecg_uid) == (MatchState.PAIRED, "1.3")

    def test_every_radiograph_that_counted_on_it_is_told(self, node: Node) -> None:
        send_film(node, "1.1")
        send_film(node, "1.2", NOON + timedelta(hours=1))
        send_ecg(node, "1.3")
        refuse(node)
        assert [match.state for match in node.store.matches()] == [MatchState.HELD] * 2

    def test_a_report_that_was_made_from_it_stands(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.3")
        reported = report(node)
        send_film(node, "1.2", NOON + timedelta(hours=1))
        refuse(node)
        assert node.store.match(reported.match_id) == reported

    def test_a_worker_that_lost_its_lease_refuses_nothing(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        slow = claim(node, MatchState.PAIRED)
        node.clock.now += timedelta(seconds=61)
        assert node.store.claim_match([MatchState.PAIRED], "worker-2", 60, node.clock()) is not None
        with node.store.transaction(lock=lock_of(slow.patient)) as tx:
            refuse_ecg(tx, slow, OWNER, "flat_lead: V3", node.rules, node.clock(), repeats=lambda *_: False)
        assert the_match(node).state is MatchState.PAIRED
        assert node.store.instances(dispositions={Disposition.REFUSED}) == ()

    def test_sent_again_corrected_it_is_taken(self, node: Node) -> None:
        """Same UID, other bytes: what was found unusable does not block its correction."""
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        refuse(node)
        send_ecg(node, "1.2", InstitutionName="corrected")
        assert (the_match(node).state, the_match(node).ecg_uid) == (MatchState.PAIRED, "1.2")
        (ecg_id,) = {match.ecg_id for match in node.store.matches()}
        assert ecg_id is not None
        assert node.store.instance(ecg_id).instance.disposition is Disposition.ACCEPTED


class TestADisputedRadiograph:
    def test_no_second_try_pairs_it_before_a_person_accepts_one_copy(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        send_film(node, "1.1", PatientID="somebody else")
        held = the_match(node)
        assert (held.state, held.reason) == (MatchState.HELD, DISPUTED)
        assert try_again(node, held) == held

    def test_a_further_copy_does_not_count_either(self, node: Node) -> None:
        """Whose the film is has not become clearer by a third copy, whoever that one names."""
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        send_film(node, "1.1", PatientID="somebody else")
        send_film(node, "1.1", PatientID="a third person")
        films = [row.instance for row in node.store.instances() if row.instance.sop_instance_uid == "1.1"]
        assert [film.disposition for film in films] == [Disposition.HELD] * 3
        assert the_match(node).state is MatchState.HELD


class TestARefusedRadiograph:
    def test_its_match_is_held_with_the_reason(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        match = claim(node, MatchState.PAIRED)
        with node.store.transaction(lock=lock_of(match.patient)) as tx:
            refuse_radiograph(tx, match, OWNER, "no_pixels: the object has no pixel data", node.clock())
        assert (the_match(node).state, the_match(node).reason) == (
            MatchState.HELD,
            "radiograph_refused: no_pixels: the object has no pixel data",
        )

    def test_a_new_ecg_does_not_wake_it(self, node: Node) -> None:
        self.test_its_match_is_held_with_the_reason(node)
        held = the_match(node)
        send_ecg(node, "1.3", NOON + timedelta(minutes=1))
        assert the_match(node) == held

    def test_a_person_may_try_again(self, node: Node) -> None:
        self.test_its_match_is_held_with_the_reason(node)
        assert try_again(node, the_match(node)).state is MatchState.PAIRED
        assert node.store.instances(dispositions={Disposition.REFUSED}) == ()

    def test_its_corrected_copy_takes_the_place_of_the_held_match(self, node: Node) -> None:
        """Two live matches of one film would make two reports, or a hold that nobody can end."""
        self.test_its_match_is_held_with_the_reason(node)
        held = the_match(node)
        send_film(node, "1.1", InstitutionName="corrected")
        assert (the_match(node).state, the_match(node).supersedes) == (MatchState.PAIRED, held.match_id)
        assert try_again(node, held).state is MatchState.SUPERSEDED
        assert len(node.store.matches()) == 1


class TestASecondTry:
    def test_a_refused_ecg_counts_again(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        refuse(node)
        assert try_again(node, the_match(node)).state is MatchState.PAIRED

    def test_a_refused_ecg_counts_again_for_every_radiograph_it_held(self, node: Node) -> None:
        send_film(node, "1.1")
        send_film(node, "1.2", NOON + timedelta(hours=1))
        send_ecg(node, "1.3")
        refuse(node)
        try_again(node, node.store.matches()[0])
        assert [match.state for match in node.store.matches()] == [MatchState.PAIRED] * 2

    def test_a_failed_match_starts_its_attempts_anew(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        match = claim(node, MatchState.PAIRED)
        assert node.store.fail_match(match.match_id, OWNER, "attempts_spent: x", node.clock())
        again = try_again(node, the_match(node))
        assert (again.state, again.attempts, again.reason) == (MatchState.PAIRED, 0, "")

    def test_an_identity_contradiction_stays_held(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", PatientSex="M")
        again = try_again(node, the_match(node))
        assert again.state is MatchState.HELD
        assert again.reason.startswith("identity_contradiction")

    def test_a_reported_pair_runs_again_as_a_new_revision(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        old = report(node)
        with node.store.transaction(lock=lock_of(old.patient)) as tx:
            number = run_again(tx, old, node.clock())
        new = the_match(node)
        assert (new.match_id, new.state, new.ecg_uid, new.revision, new.supersedes) == (
            number,
            MatchState.PAIRED,
            "1.2",
            2,
            old.match_id,
        )


class TestTime:
    def test_a_window_that_passed_says_so_and_a_late_ecg_still_pairs(self, node: Node) -> None:
        send_film(node, "1.1")
        node.clock.now = NOON + timedelta(days=7)
        upkeep = Upkeep(node.store, node.objects, node.settings, node.clock)
        assert upkeep.close_windows() == 0
        node.clock.now += timedelta(seconds=1)
        assert upkeep.close_windows() == 1
        assert (the_match(node).state, the_match(node).reason[:13]) == (MatchState.UNPAIRED, "window_closed")
        send_ecg(node, "1.2", NOON + timedelta(days=7))
        assert (the_match(node).state, the_match(node).reason) == (MatchState.PAIRED, "")

    def test_an_ecg_that_retention_removed_pairs_when_it_is_sent_again(self, node: Node) -> None:
        send_ecg(node, "1.2")
        self._retention(node)
        send_film(node, "1.1")
        assert the_match(node).state is MatchState.WAITING
        assert send_ecg(node, "1.2").duplicate
        assert (the_match(node).state, the_match(node).ecg_uid) == (MatchState.PAIRED, "1.2")
        self._readable(node)

    def test_a_radiograph_that_retention_removed_asks_to_be_sent_again(self, node: Node) -> None:
        """Pairing it would spend every attempt on bytes that are not there."""
        send_film(node, "1.1")
        Upkeep(node.store, node.objects, node.settings, node.clock).close_windows()
        self._retention(node)
        send_ecg(node, "1.2")
        send_ecg(node, "1.3", NOON + timedelta(hours=1))
        assert the_match(node).state is MatchState.UNPAIRED
        assert the_match(node).reason.startswith("radiograph_removed:")
        send_film(node, "1.1")
        assert (the_match(node).state, the_match(node).ecg_uid, the_match(node).reason) == (
            MatchState.PAIRED,
            "1.2",
            "",
        )
        self._readable(node)

    @pytest.mark.parametrize("days", [29, 0])
    def test_retention_keeps_what_is_young_and_where_zero_days_everything(self, node: Node, days: int) -> None:
        send_ecg(node, "1.2")
        storage = node.settings.storage.model_copy(update={"retain_unpaired_days": 30 if days else 0})
        settings = node.settings.model_copy(update={"storage": storage})
        node.clock.now += timedelta(days=days or 4000)
        assert Upkeep(node.store, node.objects, settings, node.clock).purge_unpaired() == 0

    @staticmethod
    def _retention(node: Node) -> None:
        """Thirty days later the bytes go; the clock comes back, so that nothing else has changed."""
        node.clock.now += timedelta(days=31)
        assert Upkeep(node.store, node.objects, node.settings, node.clock).purge_unpaired() == 1
        assert node.store.sweep_orphans(node.objects, 0) == 1
        node.clock.now -= timedelta(days=31)

    @staticmethod
    def _readable(node: Node) -> None:
        for stored in node.store.instances():
            assert stored.purged_at is None
            assert node.objects.get(stored.instance.sha256)
