"""Columns of a table that nothing reads: a slip of a known name is an error, anything else is told."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

ALIKE = 0.8
"""Ratio of `difflib` from which a name is taken for a slip of another: one letter in a name of four or more."""


def slips(columns: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Unknown columns that look like a known one the table lacks, each with that one.

    Capitals, blanks and hyphens are no difference.
    """
    absent = [name for name in known if name not in columns]
    found = {}
    for column in unknown(columns, known):
        plain = re.sub(r"[\s-]+", "_", column.strip().lower())
        if near := difflib.get_close_matches(plain, absent, n=1, cutoff=ALIKE):
            found[column] = near[0]
    return found


def unknown(columns: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The columns that are none of `known`, in their order."""
    return tuple(column for column in columns if column not in known)
