"""The table of transitions says what the design says, and no sequence of calls leaves it."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storage.database import upgrade
from storage.errors import IllegalTransition
from storage.records import DeliveryState, MatchState, ReportKind, RequestState, SopReference
from storage.store import Store
from storage.transitions import (
    DELIVERY_TRANSITIONS,
    MATCH_TRANSITIONS,
    REQUEST_TRANSITIONS,
    check_delivery,
    check_match,
    match_step,
    request_step,
)
from tests.unit.storage.storage_examples import BOTH, NOW, RULE, add, add_match, instance, new_report, seconds

HAS_REPORTS = {MatchState.REPORTED, MatchState.DELIVERED, MatchState.COMMITTED}


def test_every_state_can_be_reached_and_what_was_superseded_only_stands_again() -> None:
    reached = {MatchState.WAITING}
    while True:
        further = {new for old, new in MATCH_TRANSITIONS if old in reached} - reached
        if not further:
            break
        reached |= further
    assert reached == set(MatchState)
    assert {old for old, _ in MATCH_TRANSITIONS} == set(MatchState)
    assert {new for old, new in MATCH_TRANSITIONS if old is MatchState.SUPERSEDED} == {MatchState.REPORTED}
    assert {old for old, _ in DELIVERY_TRANSITIONS} == set(DeliveryState)


def test_a_match_with_reports_never_goes_back_before_them() -> None:
    """A new report that did not name its predecessor would leave two that contradict each other."""
    for old, new in MATCH_TRANSITIONS:
        if old in HAS_REPORTS:
            assert new in HAS_REPORTS | {MatchState.SUPERSEDED}


def test_every_step_says_why() -> None:
    tables = (MATCH_TRANSITIONS, DELIVERY_TRANSITIONS, REQUEST_TRANSITIONS)
    for reason in itertools.chain.from_iterable(table.values() for table in tables):
        assert len(reason) > 10


@pytest.mark.parametrize(("old", "new"), list(itertools.product(MatchState, MatchState)))
def test_what_the_table_lacks_is_illegal(old: MatchState, new: MatchState) -> None:
    if (old, new) in MATCH_TRANSITIONS:
        check_match(1, old, new)
        assert match_step(old, new) == (old, new)
    else:
        with pytest.raises(IllegalTransition) as caught:
            check_match(1, old, new)
        assert (caught.value.old, caught.value.new) == (old.value, new.value)
        with pytest.raises(KeyError):
            match_step(old, new)


def test_a_delivery_is_not_committed_before_it_is_delivered() -> None:
    with pytest.raises(IllegalTransition):
        check_delivery(1, DeliveryState.PENDING, DeliveryState.COMMITTED)


def test_a_settled_request_changes_only_when_it_is_asked_again() -> None:
    for old in (RequestState.ANSWERED, RequestState.GIVEN_UP):
        assert {new for before, new in REQUEST_TRANSITIONS if before is old} == {RequestState.PENDING}
        with pytest.raises(KeyError):
            request_step(old, old)


OWNERS = st.sampled_from(["worker-1", "worker-2"])


class Workers(RuleBasedStateMachine):
    """Two workers, a pairing thread, a sender and a scheduler do whatever they may, in any order."""

    template: Path

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp()
        file = shutil.copy(self.template, f"{self.folder}/rows.db")
        self.store = Store.open(f"sqlite:///{file}")
        self.now = NOW
        self.seen = {add_match(self.store, 1): MatchState.PAIRED}
        self.ecgs = [add(self.store, instance(f"1.5.{number}")) for number in range(3)]
        self.reports_made = 0
        self.questions: list[tuple[str, tuple[SopReference, ...]]] = []

    @property
    def live(self) -> int:
        (match,) = self.store.matches()
        return match.match_id

    @rule(owner=OWNERS, state=st.sampled_from([MatchState.PAIRED, MatchState.PREDICTED]))
    def claim(self, owner: str, state: MatchState) -> None:
        self.store.claim_match([state], owner, 10, self.now)

    @rule(wait=st.sampled_from([1, 11]))
    def pass_time(self, wait: int) -> None:
        self.now += seconds(wait)

    @rule(owner=OWNERS)
    def predict(self, owner: str) -> None:
        with suppress(IllegalTransition):
            self.store.save_prediction(self.live, owner, "{}", "run", self.now)

    @rule(owner=OWNERS)
    def make_reports(self, owner: str) -> None:
        live = self.live
        with suppress(IllegalTransition):
            self.reports_made += self.store.save_reports(live, owner, [new_report(live)], BOTH, self.now)

    @rule(owner=OWNERS, end=st.sampled_from(["fail", "hold", "retry", "release"]))
    def give_up(self, owner: str, end: str) -> None:
        with suppress(IllegalTransition):
            match end:
                case "fail":
                    self.store.fail_match(self.live, owner, "spent", self.now)
                case "hold":
                    self.store.hold_match(self.live, owner, "look", self.now)
                case "retry":
                    self.store.retry_match(self.live, owner, "again", self.now, self.now)
                case _:
                    self.store.release(self.live, owner)

    @rule(which=st.integers(0, 2), state=st.sampled_from([MatchState.PAIRED, MatchState.WAITING, MatchState.HELD]))
    def pair_again(self, which: int, state: MatchState) -> None:
        with suppress(IllegalTransition), self.store.transaction() as tx:
            tx.change_match(
                self.live,
                state=state,
                reason="",
                ecg_id=self.ecgs[which] if state != MatchState.WAITING else None,
                gap_seconds=None,
                rule_version=RULE,
                due_at=self.now,
                now=self.now,
            )

    @rule()
    def rerun(self) -> None:
        old = self.store.match(self.live)
        with self.store.transaction() as tx:
            tx.add_match(
                radiograph_id=old.radiograph_id,
                ecg_id=old.ecg_id or self.ecgs[0],
                gap_seconds=None,
                rule_version=RULE,
                state=MatchState.PAIRED,
                reason="",
                due_at=self.now,
                supersedes=old.match_id,
                now=self.now,
            )

    @rule(owner=OWNERS, outcome=st.sampled_from(["delivered", "delivered", "wanted", "retry", "fail", "killed"]))
    def send(self, owner: str, outcome: str) -> None:
        sent = self.store.claim_delivery("pacs", owner, 10, self.now)
        if sent is None:
            return
        match outcome:
            case "delivered" | "wanted":
                wanted = outcome == "wanted"
                assert self.store.delivered(sent.delivery_id, owner, 0, self.now, wants_commitment=wanted)
            case "retry":
                assert self.store.retry_delivery(sent.delivery_id, owner, None, "", self.now + seconds(5))
            case "fail":
                assert self.store.fail_delivery(sent.delivery_id, owner, 0xA900, "refused")

    @rule()
    def ask(self) -> None:
        transaction = f"2.25.{len(self.questions)}"
        asked = self.store.ask("pacs", transaction, attempts=2, ask_again=lambda _: seconds(10), limit=2, now=self.now)
        self.questions.append((transaction, asked))

    @rule(which=st.integers(0, 5), commits=st.booleans())
    def report(self, which: int, commits: bool) -> None:
        """To any question, the last or an older one, again and again."""
        if not self.questions:
            return
        transaction, asked = self.questions[-1 - which % len(self.questions)]
        failed = {} if commits else dict.fromkeys(asked, 0x0112)
        self.store.take_report(
            transaction, frozenset(asked if commits else ()), failed, attempts=2, resend_at=self.now, now=self.now
        )

    @rule()
    def send_again(self) -> None:
        self.store.add_deliveries(self.live, "pacs", [ReportKind.SR], self.now)
        self.store.redrive(self.now)

    @rule()
    def tidy(self) -> None:
        self.store.clear_ended_leases(self.now)
        self.store.close_windows(self.now, seconds(0))

    @invariant()
    def every_change_is_in_the_table(self) -> None:
        if not hasattr(self, "store"):
            return
        matches = {match.match_id: match for match in self.store.matches(include_superseded=True)}
        for match_id, match in matches.items():
            before = self.seen.get(match_id, MatchState.PAIRED)
            assert match.state == before or (before, match.state) in MATCH_TRANSITIONS
        self.seen = {match_id: match.state for match_id, match in matches.items()}
        assert sum(match.state != MatchState.SUPERSEDED for match in matches.values()) == 1
        assert sorted(match.revision for match in matches.values()) == list(range(1, len(matches) + 1))

    @invariant()
    def reports_are_where_the_state_says_and_never_made_twice(self) -> None:
        if not hasattr(self, "store"):
            return
        made = 0
        for match in self.store.matches(include_superseded=True):
            stored = self.store.reports(match.match_id)
            made += len(stored)
            if match.state in HAS_REPORTS:
                assert len(stored) == 1
            elif match.state != MatchState.SUPERSEDED:
                assert stored == ()
            if match.state == MatchState.DELIVERED:
                states = {sent.state for sent in self.store.deliveries(match_id=match.match_id)}
                assert states == {DeliveryState.DELIVERED}
            if match.state == MatchState.COMMITTED:
                states = {sent.state for sent in self.store.deliveries(match_id=match.match_id)}
                assert states == {DeliveryState.COMMITTED}
        assert made == self.reports_made

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.folder)


def test_no_order_of_events_leaves_the_table(tmp_path: Path) -> None:
    Workers.template = tmp_path / "rows.db"
    upgrade(f"sqlite:///{Workers.template}")
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Workers,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
