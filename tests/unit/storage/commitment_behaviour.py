"""Commitments asked of us and by us, as rows: what every database must do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from storage.records import CommitmentRequest, DeliveryState, MatchState, ReportKind, RequestState, SopReference
from storage.store import Store
from tests.unit.storage.storage_examples import NOW, add, add_match, instance, report, seconds

ODD = "1.2.\0\udc80"
"""What no UID is: nothing that comes over the network may make a row impossible to store."""


def asked(store: Store, transaction: str = "2.25.1", *uids: str, ae: str = "MODALITY") -> CommitmentRequest:
    references = [SopReference("1.2", uid) for uid in uids or ("1.2.3",)]
    return store.add_request(transaction, ae, "192.0.2.1", references, due_at=NOW + seconds(10), now=NOW)


def deliver_all(store: Store, match_id: int) -> None:
    """Every delivery of a match is taken, and commitment wanted."""
    report(store, match_id)
    while (claimed := store.claim_delivery("pacs", "w", 60, NOW)) is not None:
        assert store.delivered(claimed.delivery_id, "w", 0, NOW, wants_commitment=True)


def ask(store: Store, transaction: str, *, attempts: int = 3, now: datetime = NOW) -> tuple[SopReference, ...]:
    return store.ask("pacs", transaction, attempts=attempts, ask_again=lambda n: seconds(100 * n), limit=10, now=now)


class RequestBehaviour:
    def test_a_request_is_due_for_others_only_when_its_time_has_come(self, store: Store) -> None:
        request = asked(store)
        assert request.state is RequestState.PENDING
        assert store.claim_request(NOW + seconds(9), NOW + seconds(60)) is None
        claimed = store.claim_request(NOW + seconds(10), NOW + seconds(60))
        assert claimed is not None
        assert (claimed.request_id, claimed.attempts, claimed.references) == (request.request_id, 1, request.references)
        assert store.claim_request(NOW + seconds(59), NOW + seconds(90)) is None
        assert store.claim_request(NOW + seconds(60), NOW + seconds(90)) is not None

    def test_no_two_claim_the_same(self, store: Store) -> None:
        numbers = {asked(store, f"2.25.{number}").request_id for number in range(20)}
        with ThreadPoolExecutor(4) as threads:
            claims = list(
                threads.map(lambda _: store.claim_request(NOW + seconds(10), NOW + timedelta(days=1)), range(40))
            )
        got = [claim.request_id for claim in claims if claim is not None]
        assert len(got) == len(set(got))
        while (claim := store.claim_request(NOW + seconds(10), NOW + timedelta(days=1))) is not None:
            got.append(claim.request_id)
        assert set(got) == numbers
        assert len(got) == 20

    def test_the_same_asked_again_is_one_request_and_other_objects_are_a_duplicate(self, store: Store) -> None:
        first = asked(store, "2.25.1", "1.1", "1.2")
        store.request_answered(first.request_id, 1, NOW)
        again = asked(store, "2.25.1", "1.1", "1.2")
        assert (again.request_id, again.state, again.duplicate) == (first.request_id, RequestState.PENDING, False)
        assert asked(store, "2.25.1", "1.3").duplicate
        assert not asked(store, "2.25.1", "1.3", ae="ANOTHER").duplicate

    def test_what_is_settled_stays_settled(self, store: Store) -> None:
        """Two may have reported: the second to note it changes nothing."""
        request = asked(store)
        store.request_answered(request.request_id, 0, NOW)
        store.give_up_request(request.request_id, "no answer")
        store.put_off_request(request.request_id, NOW)
        assert store.count_requests() == {RequestState.ANSWERED: 1}
        assert store.claim_request(NOW + timedelta(days=9), NOW + timedelta(days=10)) is None

    def test_a_peer_that_is_away_holds_back_its_own_only(self, store: Store) -> None:
        request = asked(store)
        asked(store, "2.25.2")
        other = asked(store, "2.25.3", ae="ANOTHER")
        store.put_off_peer(request, NOW + seconds(100), "no answer")
        claimed = store.claim_request(NOW + seconds(10), NOW + seconds(200))
        assert claimed is not None
        assert claimed.request_id == other.request_id
        assert store.claim_request(NOW + seconds(10), NOW + seconds(200)) is None
        assert [waiting.last_error for waiting in store.unanswered_requests(3)] == ["", "no answer", "no answer"]

    def test_odd_names_are_stored(self, store: Store) -> None:
        request = store.add_request(ODD, ODD, "::1", [SopReference(ODD, ODD)], due_at=NOW, now=NOW)
        assert store.request(request.request_id).references == (SopReference(ODD, ODD),)

    def test_the_rows_of_many_names_are_found(self, store: Store) -> None:
        for number in range(3):
            add(store, instance(f"1.2.{number}"))
        add(store, instance("1.2.0", content="other bytes"))
        found = store.instances_named([f"1.2.{number}" for number in range(1200)])
        assert {uid: len(rows) for uid, rows in found.items()} == {"1.2.0": 2, "1.2.1": 1, "1.2.2": 1}

    def test_settled_requests_are_forgotten_in_time_and_others_not(self, store: Store) -> None:
        store.request_answered(asked(store, "2.25.1").request_id, 0, NOW)
        store.give_up_request(asked(store, "2.25.2").request_id, "no answer")
        asked(store, "2.25.3")
        assert store.forget_requests(NOW) == 0
        assert store.forget_requests(NOW + seconds(1)) == 2
        assert store.count_requests() == {RequestState.PENDING: 1}


class CommitmentBehaviour:
    def test_a_question_is_about_everything_due_and_is_asked_again_only_in_time(self, store: Store) -> None:
        match_id = add_match(store)
        deliver_all(store, match_id)
        assert store.question_due("pacs", NOW)
        assert not store.question_due("other", NOW)
        assert {reference.sop_instance_uid for reference in ask(store, "2.25.1")} == {
            f"2.25.{match_id}.0",
            f"2.25.{match_id}.1",
        }
        assert not store.question_due("pacs", NOW + seconds(99))
        assert ask(store, "2.25.2") == ()
        assert len(ask(store, "2.25.2", now=NOW + seconds(100))) == 2
        assert not store.question_due("pacs", NOW + seconds(299))

    def test_a_match_is_committed_with_its_last_awaited_delivery(self, store: Store) -> None:
        match_id = add_match(store)
        deliver_all(store, match_id)
        first, second = ask(store, "2.25.1")

        def take(*committed: SopReference) -> int:
            return store.take_report(
                "2.25.1", frozenset(committed), {}, attempts=3, resend_at=NOW, now=NOW + seconds(1)
            ).committed

        assert take(first) == 1
        assert store.match(match_id).state is MatchState.DELIVERED
        assert store.count_wanted() == {"pacs": 1}
        assert take(first, second) == 1
        assert store.match(match_id).state is MatchState.COMMITTED
        assert {made.committed_at for made in store.deliveries()} == {NOW + seconds(1)}

    def test_a_destination_that_is_not_asked_holds_no_match_back(self, store: Store) -> None:
        match_id = add_match(store)
        kinds = {kind: ["pacs", "viewer"] for kind in ReportKind}
        report(store, match_id, kinds)
        for name in ("pacs", "viewer"):
            while (claimed := store.claim_delivery(name, "w", 60, NOW)) is not None:
                store.delivered(claimed.delivery_id, "w", 0, NOW, wants_commitment=name == "pacs")
            if name == "pacs":
                references = ask(store, "2.25.1")
                store.take_report("2.25.1", frozenset(references), {}, attempts=3, resend_at=NOW, now=NOW)
                assert store.match(match_id).state is MatchState.REPORTED
        assert store.match(match_id).state is MatchState.COMMITTED

    def test_a_refused_object_is_pending_again_and_keeps_its_count_of_questions(self, store: Store) -> None:
        match_id = add_match(store)
        deliver_all(store, match_id)
        for number in (1, 2):
            references = ask(store, f"2.25.{number}")
            assert len(references) == 2
            taken = store.take_report(
                f"2.25.{number}",
                frozenset(),
                dict.fromkeys(references, 0x0112),
                attempts=2,
                resend_at=NOW,
                now=NOW,
            )
            assert (taken.refused, taken.failed) == ((2, 0), (0, 2))[number - 1]
            assert store.match(match_id).state is MatchState.REPORTED
            while (claimed := store.claim_delivery("pacs", "w", 60, NOW)) is not None:
                store.delivered(claimed.delivery_id, "w", 0, NOW, wants_commitment=True)
        assert {made.state for made in store.deliveries()} == {DeliveryState.FAILED}
        assert store.wanted_commitments(match_id) == ()

    def test_an_old_refusal_does_not_undo_a_newer_question(self, store: Store) -> None:
        deliver_all(store, add_match(store))
        references = ask(store, "2.25.1")
        ask(store, "2.25.2", now=NOW + seconds(100))
        refusal = dict.fromkeys(references, 0x0112)
        taken = store.take_report("2.25.1", frozenset(), refusal, attempts=3, resend_at=NOW, now=NOW)
        assert (taken.known, taken.refused) == (True, 0)
        assert {made.state for made in store.deliveries()} == {DeliveryState.DELIVERED}

    def test_a_transaction_that_nobody_began_is_unknown(self, store: Store) -> None:
        taken = store.take_report("2.25.7", frozenset(), {}, attempts=3, resend_at=NOW, now=NOW)
        assert not taken.known

    def test_asking_too_often_fails_the_delivery_and_sending_again_starts_anew(self, store: Store) -> None:
        match_id = add_match(store)
        deliver_all(store, match_id)
        ask(store, "2.25.1", attempts=1)
        store.not_asked("2.25.1", "status 0x0110")
        assert ask(store, "2.25.2", attempts=1, now=NOW + seconds(100)) == ()
        failed = store.deliveries(states={DeliveryState.FAILED})
        assert [made.last_error for made in failed] == ["no commitment after 1 questions: status 0x0110"] * 2
        assert store.redrive(NOW) == 2
        while (claimed := store.claim_delivery("pacs", "w", 60, NOW)) is not None:
            store.delivered(claimed.delivery_id, "w", 0, NOW, wants_commitment=True)
        assert [wanted.attempts for wanted in store.wanted_commitments(match_id)] == [0, 0]

    def test_nothing_is_asked_while_a_destination_is_put_off(self, store: Store) -> None:
        deliver_all(store, add_match(store))
        store.put_off_questions("pacs", NOW, NOW + seconds(50), "nobody listens")
        assert not store.question_due("pacs", NOW + seconds(49))
        assert store.question_due("pacs", NOW + seconds(50))
        assert {wanted.attempts for wanted in store.wanted_commitments(1)} == {0}
