"""Pairing through the real receiver and a real database: the order in which things arrive must not matter."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacs_node.flow.pairing import contradictions, same_key
from pacs_node.flow.receive import SUCCESS, Incoming, Receipt
from storage.records import Disposition, Kind, Match, MatchState
from tests.unit.flow.conftest import Node
from tests.unit.flow.headers import NOON, at, encoded, identified, radiograph, waveform


def send_film(node: Node, uid: str, when: datetime = NOON, **elements: object) -> Receipt:
    parts = encoded(identified(radiograph(), uid, **{**at(when), **elements}))
    return node.receiver.receive(Incoming(parts=parts, calling_ae="MODALITY"))


def send_ecg(node: Node, uid: str, when: datetime = NOON, **elements: object) -> Receipt:
    parts = encoded(identified(waveform(seconds=5), uid, **{**at(when), **elements}))
    return node.receiver.receive(Incoming(parts=parts, calling_ae="CART"))


def the_match(node: Node) -> Match:
    (match,) = node.store.matches()
    return match


class TestOneRadiograph:
    def test_alone_it_waits(self, node: Node) -> None:
        send_film(node, "1.1")
        assert (the_match(node).state, the_match(node).ecg_uid) == (MatchState.WAITING, None)

    @pytest.mark.parametrize("first", ["film", "ecg"])
    def test_it_pairs_whichever_comes_first(self, node: Node, first: str) -> None:
        sends = {
            "film": lambda: send_film(node, "1.1"),
            "ecg": lambda: send_ecg(node, "1.2", NOON + timedelta(days=3)),
        }
        for name in sorted(sends, key=lambda name: name != first):
            assert sends[name]().status == SUCCESS
        match = the_match(node)
        assert (match.state, match.ecg_uid, match.gap_seconds) == (MatchState.PAIRED, "1.2", 3 * 86400.0)

    @pytest.mark.parametrize(("seconds", "state"), [(0, MatchState.PAIRED), (1, MatchState.WAITING)])
    @pytest.mark.parametrize("sign", [-1, 1])
    def test_the_edge_of_the_window_is_inside(self, node: Node, sign: int, seconds: int, state: MatchState) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + sign * timedelta(days=7, seconds=seconds))
        assert the_match(node).state is state

    def test_the_window_is_the_configured_one(self, make_node: Callable[..., Node]) -> None:
        node = make_node(pairing={"window_days": 1})
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=1, seconds=1))
        assert the_match(node).state is MatchState.WAITING

    def test_a_contradicting_ecg_is_held_and_a_consistent_one_settles_it(self, node: Node) -> None:
        send_film(node, "1.1")
        send_ecg(node, "1.2", PatientBirthDate="19500103")
        held = the_match(node)
        assert (held.state, held.ecg_uid) == (MatchState.HELD, "1.2")
        assert held.reason.startswith("identity_contradiction:")
        assert "birth date" in held.reason
        assert "1950" not in held.reason
        send_ecg(node, "1.3", NOON + timedelta(days=6))
        assert (the_match(node).state, the_match(node).ecg_uid) == (MatchState.PAIRED, "1.3")

    def test_a_settling_time_puts_the_estimate_off(self, make_node: Callable[..., Node]) -> None:
        node = make_node(pairing={"settle_seconds": 90})
        send_film(node, "1.1")
        send_ecg(node, "1.2")
        assert the_match(node).due_at == node.clock() + timedelta(seconds=90)
        assert node.store.claim_match([MatchState.PAIRED], "w", 60, node.clock() + timedelta(seconds=89)) is None
        assert node.store.claim_match([MatchState.PAIRED], "w", 60, node.clock() + timedelta(seconds=90)) is not None

    def test_a_default_issuer_makes_an_unnamed_one_the_sites(self, make_node: Callable[..., Node]) -> None:
        node = make_node(pairing={"default_issuer": "HOSP"})
        send_film(node, "1.1", IssuerOfPatientID="HOSP")
        send_ecg(node, "1.2")
        assert the_match(node).state is MatchState.PAIRED

    def test_a_date_without_a_time_pairs_from_noon_of_the_sites_day(self, node: Node) -> None:
        send_film(node, "1.1", AcquisitionDateTime=None, StudyDate="20240301")
        send_ecg(node, "1.2", AcquisitionDateTime="20240301090000+0900")
        assert the_match(node).gap_seconds == 3 * 3600.0
        film = node.store.instance(the_match(node).radiograph_id).instance
        assert film.acquired is not None
        assert film.acquired.date_only


@dataclass(frozen=True)
class Arrival:
    """One object on its way in, by the things that pairing looks at."""

    uid: str
    is_film: bool
    hours: int
    issuer: str
    patient_id: str
    birth_date: str
    sex: str

    def send(self, node: Node) -> None:
        send = send_film if self.is_film else send_ecg
        receipt = send(
            node,
            self.uid,
            NOON + timedelta(hours=self.hours),
            IssuerOfPatientID=self.issuer,
            PatientID=self.patient_id,
            PatientBirthDate=self.birth_date,
            PatientSex=self.sex,
        )
        assert receipt.status == SUCCESS


def differ(one: Arrival, other: Arrival) -> bool:
    """Whether both state a birth date or a sex, and another one."""
    return bool(one.birth_date and other.birth_date and one.birth_date != other.birth_date) or bool(
        one.sex and other.sex and one.sex != other.sex
    )


def oracle(arrivals: list[Arrival]) -> dict[str, tuple[str | None, MatchState]]:
    """The final pairs by the rule's words, knowing everything at once."""
    pairs: dict[str, tuple[str | None, MatchState]] = {}
    for film in arrivals:
        if not film.is_film or not film.patient_id:
            continue
        ranked = sorted(
            (abs(ecg.hours - film.hours), ecg.hours, ecg.uid, ecg)
            for ecg in arrivals
            if not ecg.is_film
            and (ecg.issuer, ecg.patient_id) == (film.issuer, film.patient_id)
            and abs(ecg.hours - film.hours) <= 7 * 24
        )
        agreeing = [row for row in ranked if not differ(row[3], film)]
        others = [row for row in ranked if differ(row[3], film)]
        sure = [row for row in agreeing if all(differ(row[3], other[3]) for other in others)]
        if any(differ(one[3], other[3]) for one in agreeing for other in agreeing):
            first = next(one for one in agreeing if any(differ(one[3], other[3]) for other in agreeing))
            pairs[film.uid] = (first[2], MatchState.HELD)
        elif sure:
            pairs[film.uid] = (sure[0][2], MatchState.PAIRED)
        elif others:
            pairs[film.uid] = (others[0][2], MatchState.HELD)
        else:
            pairs[film.uid] = (None, MatchState.WAITING)
    return pairs


@st.composite
def arrival_sets(draw: st.DrawFn) -> list[Arrival]:
    """A few films and ECGs of a few people whose keys nearly collide, at times that often tie."""
    count = draw(st.integers(2, 7))
    return [
        Arrival(
            uid=f"1.2.{index}",
            is_film=draw(st.booleans()),
            hours=draw(st.sampled_from([-192, -168, -24, -1, 0, 1, 24, 168, 169])),
            issuer=draw(st.sampled_from(["", "A"])),
            patient_id=draw(st.sampled_from(["1", "1", "1", "2", ""])),
            birth_date=draw(st.sampled_from(["19500102", "19500102", "19500103", ""])),
            sex=draw(st.sampled_from(["F", "F", "M", ""])),
        )
        for index in range(count)
    ]


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrivals=arrival_sets(), seed=st.integers(0, 999))
def test_every_order_of_arrival_ends_in_the_oracles_pairs(
    make_node: Callable[..., Node], arrivals: list[Arrival], seed: int
) -> None:
    orders = [arrivals, arrivals[::-1], random.Random(seed).sample(arrivals, len(arrivals))]
    for order in orders:
        node = make_node()
        for arrival in order:
            arrival.send(node)
        matches = node.store.matches()
        assert {match.radiograph_uid: (match.ecg_uid, match.state) for match in matches} == oracle(arrivals)
        for match in matches:
            if match.state is MatchState.PAIRED and match.ecg_id is not None:
                ecg = node.store.instance(match.ecg_id).instance.patient
                assert same_key(match.patient, ecg)
                assert contradictions(match.patient, ecg) == ()
        blank = {arrival.uid for arrival in arrivals if not arrival.patient_id}
        held = node.store.instances(dispositions={Disposition.HELD})
        assert {row.instance.sop_instance_uid for row in held} == blank


def test_resending_everything_changes_nothing(node: Node) -> None:
    for _ in range(2):
        send_film(node, "1.1")
        send_ecg(node, "1.2", NOON + timedelta(days=2))
        send_ecg(node, "1.3", NOON + timedelta(days=1))
    assert len(node.store.instances()) == 3
    assert the_match(node).ecg_uid == "1.3"
    assert the_match(node).revision == 1
    assert node.store.count_instances() == {
        (Kind.RADIOGRAPH, Disposition.ACCEPTED): 1,
        (Kind.ECG, Disposition.ACCEPTED): 2,
    }


def test_four_senders_at_once_end_in_the_oracles_pairs(node: Node) -> None:
    """Seeded. Threads share one store and one commit, as the associations of a receiver do."""
    chance = random.Random(20240301)
    arrivals = [
        Arrival(
            uid=f"1.2.{index}",
            is_film=index % 3 == 0,
            hours=chance.choice([-168, -30, -1, 0, 1, 30, 168]),
            issuer="A",
            patient_id=chance.choice(["1", "2", "3"]),
            birth_date=chance.choice(["19500102", "19500102", "19500103"]),
            sex="F",
        )
        for index in range(40)
    ]
    with ThreadPoolExecutor(4) as senders:
        list(senders.map(lambda arrival: arrival.send(node), arrivals))
    matches = node.store.matches()
    assert {match.radiograph_uid: (match.ecg_uid, match.state) for match in matches} == oracle(arrivals)
