"""Pressures that a right-heart catheter measured, brought in later to follow how well the estimates agree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, select

from storage.connections import Connections
from storage.records import Catheterisation
from storage.schema import catheterisations


class Catheters(Connections):
    """Catheter values by patient and day."""

    def add_catheterisations(
        self, given: Sequence[Catheterisation], now: datetime
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Keep new values, all at once.

        Returns
        -------
        tuple of int, tuple of int
            Places in `given` of those that were new, and of those that contradict what was kept before, which
            stays. The rest is known already.
        """
        table = catheterisations.c
        new: list[int] = []
        contradicting: list[int] = []
        with self.writing() as connection:
            for place, one in enumerate(given):
                known = connection.scalar(
                    select(table.mpap_mmhg).where(
                        table.issuer == one.issuer,
                        table.patient_id == one.patient_id,
                        table.measured_on == one.measured_on,
                    )
                )
                if known is None:
                    values = {name: getattr(one, name) for name in Catheterisation.__dataclass_fields__}
                    connection.execute(insert(catheterisations).values(**values, imported_at=now))
                    new.append(place)
                elif known != one.mpap_mmhg:
                    contradicting.append(place)
        return tuple(new), tuple(contradicting)

    def catheterisations(self) -> tuple[Catheterisation, ...]:
        """Every value, by patient and day."""
        table = catheterisations.c
        columns = [table[name] for name in Catheterisation.__dataclass_fields__]
        ordered = select(*columns).order_by(table.issuer, table.patient_id, table.measured_on)
        with self.reading() as connection:
            return tuple(Catheterisation(**row._mapping) for row in connection.execute(ordered))
