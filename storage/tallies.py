"""Counts that no other row tells, kept across restarts and added up over processes and machines."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from storage.connections import Connections
from storage.schema import tallies


class Tallies(Connections):
    """How often a connection had an outcome for a reason. Both are words of a small closed set."""

    def add_tallies(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add to what was counted before, by (outcome, reason); at once for all of them."""
        if not counts:
            return
        insert = (sqlite.insert if self.is_sqlite else postgresql.insert)(tallies)
        statement = insert.on_conflict_do_update(
            index_elements=["outcome", "reason"], set_={"times": tallies.c.times + insert.excluded.times}
        )
        # In one order everywhere, so that two processes never wait for each other's rows.
        values = [
            {"outcome": outcome, "reason": reason, "times": times}
            for (outcome, reason), times in sorted(counts.items())
        ]
        with self.writing() as connection:
            connection.execute(statement, values)

    def tallies(self) -> dict[tuple[str, str], int]:
        """Everything counted so far, by (outcome, reason)."""
        with self.reading() as connection:
            return {(row.outcome, row.reason): row.times for row in connection.execute(select(tallies))}
