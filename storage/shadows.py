"""Estimates of a second package on live traffic: a queue of their own, that nothing which reports ever reads.

A match is put here in the transaction that stores the served estimate, and by nothing else. Whatever happens to a row
here changes no match.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from storage.claims import Claim
from storage.connections import Connections
from storage.records import ShadowEstimate
from storage.schema import shadow_estimates


class Shadows(Connections):
    """Claims and results of the shadow."""

    def claim_shadow(self, owner: str, lease_seconds: float, now: datetime) -> ShadowEstimate | None:
        """Lease the match whose second estimate has been due longest, and count the attempt; None: nothing is due."""
        row = _CLAIM.run(self, _SELECT, owner=owner, lease_seconds=lease_seconds, now=now)
        return None if row is None else ShadowEstimate(**row._mapping)

    def save_shadow(self, match_id: int, owner: str, *, prediction_json: str, reason: str, now: datetime) -> bool:
        """End with an estimate, or without one for a `reason`. False: the match was estimated anew meanwhile."""
        return self._write_shadow(
            match_id,
            owner,
            lease_owner=None,
            lease_until=None,
            prediction_json=prediction_json,
            reason=reason,
            done_at=now,
        )

    def retry_shadow(self, match_id: int, owner: str, reason: str, wait_seconds: float, now: datetime) -> bool:
        """Give back after a failed attempt, due again later."""
        due_at = now + timedelta(seconds=wait_seconds)
        return self._write_shadow(match_id, owner, lease_owner=None, lease_until=None, reason=reason, due_at=due_at)

    def release_shadow(self, match_id: int, owner: str) -> bool:
        """Give back unworked; the attempt does not count."""
        return self._write_shadow(
            match_id, owner, lease_owner=None, lease_until=None, attempts=shadow_estimates.c.attempts - 1
        )

    def shadows(self) -> tuple[ShadowEstimate, ...]:
        """Every row, by the number of its match."""
        with self.reading() as connection:
            found = connection.execute(_SELECT.order_by(shadow_estimates.c.match_id)).all()
        return tuple(ShadowEstimate(**row._mapping) for row in found)

    def count_shadows(self) -> dict[str, int]:
        """How many are "due", "estimated" and "without" an estimate. Empty if there never was a shadow."""
        done = shadow_estimates.c.done_at.is_not(None)
        some = shadow_estimates.c.prediction_json != ""
        of = {"due": ~done, "estimated": done & some, "without": done & ~some}
        counts = select(*(func.count().filter(condition).label(name) for name, condition in of.items()))
        with self.reading() as connection:
            row = connection.execute(counts.select_from(shadow_estimates)).one()
        return {name: number for name, number in row._mapping.items() if number}

    def _write_shadow(self, match_id: int, owner: str, **values: object) -> bool:
        with self.writing() as connection:
            changed = connection.execute(
                update(shadow_estimates)
                .where(shadow_estimates.c.match_id == match_id, shadow_estimates.c.lease_owner == owner)
                .values(**values)
            )
        return changed.rowcount == 1


def renew_shadow(connection: Connection, match_id: int, now: datetime, *, wanted: bool) -> None:
    """Make a second estimate of a match due if it is `wanted`; one that was made of other inputs goes either way."""
    if not wanted:
        connection.execute(delete(shadow_estimates).where(shadow_estimates.c.match_id == match_id))
        return
    values = {
        "due_at": now,
        "attempts": 0,
        "lease_owner": None,
        "lease_until": None,
        "prediction_json": "",
        "reason": "",
        "done_at": None,
    }
    insert = (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(shadow_estimates)
    connection.execute(
        insert.values(match_id=match_id, **values).on_conflict_do_update(index_elements=["match_id"], set_=values)
    )


_CLAIM = Claim(shadow_estimates, shadow_estimates.c.match_id, [shadow_estimates.c.done_at.is_(None)])
_SELECT = select(*(shadow_estimates.c[name] for name in ShadowEstimate.__dataclass_fields__))
