"""Estimates of a shadow package, and catheter values that came later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the two tables; what was estimated before is not repeated by a shadow."""
    op.create_table(
        "shadow_estimates",
        sa.Column("match_id", ROW_ID, nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("prediction_json", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("done_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["match_id"], ["matches.match_id"], name=op.f("fk_shadow_estimates_match_id")),
        sa.PrimaryKeyConstraint("match_id", name=op.f("pk_shadow_estimates")),
        sa.CheckConstraint(
            "(lease_owner IS NULL) = (lease_until IS NULL)", name=op.f("ck_shadow_estimates_lease_is_whole")
        ),
    )
    op.create_index(
        "ix_shadow_estimates_due",
        "shadow_estimates",
        ["due_at", "match_id"],
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "catheterisations",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("measured_on", sa.Date(), nullable=False),
        sa.Column("mpap_mmhg", sa.Double(), nullable=False),
        sa.Column("imported_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("issuer", "patient_id", "measured_on", name=op.f("pk_catheterisations")),
    )
