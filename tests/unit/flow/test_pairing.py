"""Which ECG goes with which radiograph, as a function of values, against an oracle that tries everything."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pacs_node.flow.pairing import Candidate, Chosen, Contradicted, Nothing, choose, contradictions, same_key
from storage.records import Patient

WINDOW = timedelta(days=7)
T0 = datetime(2024, 3, 10, 12, tzinfo=UTC)


def patient(issuer: str = "HOSP", patient_id: str = "P1", birth_date: str = "19500102", sex: str = "F") -> Patient:
    return Patient(issuer=issuer, patient_id=patient_id, name="", birth_date=birth_date, sex=sex)


def candidate(uid: str, hours: float = 0, who: Patient | None = None) -> Candidate:
    return Candidate(sop_instance_uid=uid, acquired_at=T0 + timedelta(hours=hours), patient=who or patient())


FILM = candidate("film")


def chosen_uid(*ecgs: Candidate, film: Candidate = FILM) -> str | None:
    choice = choose(film, ecgs, WINDOW)
    return choice.ecg.sop_instance_uid if isinstance(choice, Chosen) else None


@pytest.mark.parametrize("sign", [-1, 1])
def test_seven_days_to_the_second_are_inside(sign: int) -> None:
    assert chosen_uid(candidate("e", sign * 7 * 24)) == "e"
    assert chosen_uid(candidate("e", sign * (7 * 24 + 1 / 3600))) is None


def test_the_nearest_wins_in_either_direction() -> None:
    assert chosen_uid(candidate("before", -30), candidate("after", 29), candidate("far", -100)) == "after"


def test_a_tie_goes_to_the_earlier_and_then_to_the_smaller_uid() -> None:
    assert chosen_uid(candidate("1.9", 5), candidate("1.1", -5)) == "1.1"
    assert chosen_uid(candidate("1.1", 5), candidate("1.9", -5)) == "1.9"
    assert chosen_uid(candidate("1.9", 5), candidate("1.10", 5)) == "1.10"


def test_the_gap_is_the_distance_in_seconds() -> None:
    choice = choose(FILM, [candidate("e", -2.5)], WINDOW)
    assert isinstance(choice, Chosen)
    assert choice.gap_seconds == 9000.0


@pytest.mark.parametrize(
    "other", [patient(issuer="OTHER"), patient(issuer=""), patient(patient_id="P2"), patient(patient_id="")]
)
def test_another_issuer_or_another_id_is_another_person(other: Patient) -> None:
    assert chosen_uid(candidate("e", 1, other)) is None


def test_blank_ids_never_pair_even_with_each_other() -> None:
    nobody = patient(patient_id="")
    assert choose(candidate("film", 0, nobody), [candidate("e", 0, nobody)], WINDOW) == Nothing()


@pytest.mark.parametrize(
    ("other", "fields"),
    [
        (patient(birth_date="19500103"), ("birth date",)),
        (patient(sex="M"), ("sex",)),
        (patient(birth_date="19710101", sex="O"), ("birth date", "sex")),
    ],
)
def test_an_ecg_of_somebody_else_under_the_same_id_is_named_and_never_chosen(
    other: Patient, fields: tuple[str, ...]
) -> None:
    choice = choose(FILM, [candidate("e", 1, other)], WINDOW)
    assert isinstance(choice, Contradicted)
    assert (choice.ecg.sop_instance_uid, choice.fields) == ("e", fields)


def test_a_consistent_ecg_farther_away_goes_before_a_contradicting_one() -> None:
    assert chosen_uid(candidate("other", 1, patient(sex="M")), candidate("e", 100)) == "e"


@pytest.mark.parametrize("other", [patient(birth_date=""), patient(sex=""), patient(birth_date="", sex="")])
def test_what_is_not_said_contradicts_nothing(other: Patient) -> None:
    assert chosen_uid(candidate("e", 1, other)) == "e"


PATIENTS = st.builds(
    patient,
    issuer=st.sampled_from(["", "A", "B"]),
    patient_id=st.sampled_from(["", "1", "2"]),
    birth_date=st.sampled_from(["", "19500102", "19500103"]),
    sex=st.sampled_from(["", "F", "M"]),
)
HOURS = st.one_of(st.sampled_from([-168, -24, -1, 0, 1, 24, 168]), st.integers(-200, 200))


@st.composite
def ecg_lists(draw: st.DrawFn) -> list[Candidate]:
    uids = draw(st.lists(st.integers(1, 40), unique=True, max_size=8))
    return [candidate(f"1.{uid}", draw(HOURS), draw(PATIENTS)) for uid in uids]


def oracle(film: Candidate, ecgs: Sequence[Candidate]) -> str | None:
    """The answer by comparing every ECG with every other, in the words of the rule."""

    def differ(one: Patient, other: Patient) -> bool:
        return bool(one.birth_date and other.birth_date and one.birth_date != other.birth_date) or bool(
            one.sex and other.sex and one.sex != other.sex
        )

    def in_reach(ecg: Candidate) -> bool:
        mine, theirs = film.patient, ecg.patient
        return (
            mine.patient_id != ""
            and mine.patient_id == theirs.patient_id
            and mine.issuer == theirs.issuer
            and abs((ecg.acquired_at - film.acquired_at).total_seconds()) <= 7 * 24 * 3600
        )

    def beats(one: Candidate, other: Candidate) -> bool:
        near, far = (abs(ecg.acquired_at - film.acquired_at) for ecg in (one, other))
        if near != far:
            return near < far
        if one.acquired_at != other.acquired_at:
            return one.acquired_at < other.acquired_at
        return one.sop_instance_uid < other.sop_instance_uid

    reach = [ecg for ecg in ecgs if in_reach(ecg)]
    agreeing = [ecg for ecg in reach if not differ(film.patient, ecg.patient)]
    others = [ecg for ecg in reach if differ(film.patient, ecg.patient)]
    if any(differ(one.patient, other.patient) for one, other in itertools.combinations(agreeing, 2)):
        return None  # the film may be of either
    pool = [ecg for ecg in agreeing if not any(not differ(ecg.patient, other.patient) for other in others)]
    best = [one for one in pool if all(one is other or beats(one, other) for other in pool)]
    return best[0].sop_instance_uid if best else None


@settings(max_examples=300, deadline=None, derandomize=True)
@given(who=PATIENTS, ecgs=ecg_lists())
def test_the_choice_is_the_oracles(who: Patient, ecgs: list[Candidate]) -> None:
    film = candidate("film", 0, who)
    assert chosen_uid(*ecgs, film=film) == oracle(film, ecgs)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(who=PATIENTS, ecgs=ecg_lists().filter(lambda ecgs: len(ecgs) <= 4))
def test_the_order_of_the_candidates_never_matters(who: Patient, ecgs: list[Candidate]) -> None:
    film = candidate("film", 0, who)
    assert len({choose(film, order, WINDOW) for order in itertools.permutations(ecgs)}) == 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(who=PATIENTS, ecgs=ecg_lists())
def test_no_choice_crosses_issuer_id_birth_date_or_sex(who: Patient, ecgs: list[Candidate]) -> None:
    choice = choose(candidate("film", 0, who), ecgs, WINDOW)
    if isinstance(choice, Chosen):
        assert same_key(who, choice.ecg.patient)
        assert contradictions(who, choice.ecg.patient) == ()
    elif isinstance(choice, Contradicted):
        assert choice.fields
        assert same_key(who, choice.ecg.patient)


def test_an_ecg_that_states_nothing_does_not_lift_a_contradiction() -> None:
    film = candidate("film", 0, patient(sex="F", birth_date="19500102"))
    somebody_else = candidate("1.1", 1, patient(sex="M", birth_date="19800102"))
    anybody = candidate("1.2", 100, patient(sex="", birth_date=""))
    surely_hers = candidate("1.3", 120, patient(sex="F", birth_date=""))
    assert isinstance(choose(film, [somebody_else, anybody], WINDOW), Contradicted)
    assert chosen_uid(somebody_else, anybody, surely_hers, film=film) == "1.3"


def test_a_radiograph_that_states_nothing_is_not_given_to_one_of_two_people() -> None:
    film = candidate("film", 0, patient(sex="", birth_date=""))
    one, other = candidate("1.1", 0, patient(sex="M")), candidate("1.2", 100, patient(sex="F"))
    assert isinstance(choose(film, [one, other], WINDOW), Contradicted)
    assert chosen_uid(one, film=film) == "1.1"
