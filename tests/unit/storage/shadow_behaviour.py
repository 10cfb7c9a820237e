"""What a shadow and the catheter laboratory may rely on, whatever the database."""

from __future__ import annotations

from datetime import date

from storage.records import Catheterisation, MatchState
from storage.store import Store
from tests.unit.storage.storage_examples import NOW, add_match, seconds


def estimated(store: Store, number: int = 1, *, shadowed: bool = True) -> int:
    """A match with a served estimate."""
    match_id = add_match(store, number)
    assert store.claim_match([MatchState.PAIRED], "w", 60, NOW) is not None
    assert store.save_prediction(match_id, "w", '{"mpap_mmhg": 21.5}', "r" * 64, NOW, shadowed=shadowed)
    return match_id


def value(mpap_mmhg: float, *, patient_id: str = "P1", day: int = 1) -> Catheterisation:
    return Catheterisation(issuer="H", patient_id=patient_id, measured_on=date(2026, 3, day), mpap_mmhg=mpap_mmhg)


class ShadowBehaviour:
    def test_only_what_was_estimated_with_a_shadow_configured_becomes_due(self, store: Store) -> None:
        estimated(store, 1, shadowed=False)
        match_id = estimated(store, 2)
        claimed = store.claim_shadow("s", 60, NOW)
        assert claimed is not None
        assert (claimed.match_id, claimed.attempts) == (match_id, 1)
        assert store.claim_shadow("t", 60, NOW) is None
        assert store.save_shadow(match_id, "s", prediction_json="{}", reason="", now=NOW)
        assert store.claim_shadow("t", 60, NOW + seconds(3600)) is None
        assert store.count_shadows() == {"estimated": 1}

    def test_a_shadow_that_died_is_followed_by_another_and_its_late_answer_is_dropped(self, store: Store) -> None:
        match_id = estimated(store)
        store.claim_shadow("dead", 60, NOW)
        again = store.claim_shadow("s", 60, NOW + seconds(60))
        assert again is not None
        assert again.attempts == 2
        assert not store.save_shadow(match_id, "dead", prediction_json="{}", reason="", now=NOW)
        assert store.count_shadows() == {"due": 1}

    def test_whatever_the_shadow_does_no_match_changes(self, store: Store) -> None:
        match_id = estimated(store)
        before = store.match(match_id)
        store.claim_shadow("s", 60, NOW)
        assert store.retry_shadow(match_id, "s", "failed: ValueError", 60.0, NOW)
        assert store.claim_shadow("s", 60, NOW + seconds(59)) is None
        assert store.claim_shadow("s", 60, NOW + seconds(60)) is not None
        assert store.release_shadow(match_id, "s")
        assert store.claim_shadow("s", 60, NOW + seconds(61)) is not None
        assert store.save_shadow(match_id, "s", prediction_json="", reason="failed: ValueError", now=NOW)
        (row,) = store.shadows()
        assert (row.attempts, row.prediction_json, row.reason) == (2, "", "failed: ValueError")
        assert store.match(match_id) == before

    def test_a_match_estimated_anew_is_shadowed_anew(self, store: Store) -> None:
        """A nearer ECG came between estimate and reports: what the shadow said was of the former pair."""
        match_id = estimated(store)
        store.claim_shadow("s", 60, NOW)
        match = store.match(match_id)
        with store.transaction() as tx:
            tx.change_match(
                match_id,
                state=MatchState.PAIRED,
                reason="",
                ecg_id=match.ecg_id,
                gap_seconds=match.gap_seconds,
                rule_version=match.rule_version,
                due_at=NOW,
                now=NOW,
            )
        store.claim_match([MatchState.PAIRED], "w", 60, NOW)
        store.save_prediction(match_id, "w", "{}", "r" * 64, NOW, shadowed=True)
        assert not store.save_shadow(match_id, "s", prediction_json="{}", reason="", now=NOW)
        assert store.count_shadows() == {"due": 1}

    def test_catheter_values_are_kept_once_and_a_contradicting_one_changes_nothing(self, store: Store) -> None:
        first, second = value(31.0), value(40.0, day=9)
        assert store.add_catheterisations([first, second], NOW) == ((0, 1), ())
        assert store.add_catheterisations([second, value(44.0), value(22.0, patient_id="P2")], NOW) == ((2,), (1,))
        assert store.catheterisations() == (first, second, value(22.0, patient_id="P2"))
