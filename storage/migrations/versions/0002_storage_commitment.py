"""Storage commitment: requests of peers, what destinations are asked to commit to, and every such question.

The types are frozen here, so nothing is imported from `storage.schema`, which goes on to change.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the three tables; what was delivered before is not asked about."""
    op.create_table(
        "commitment_requests",
        sa.Column("request_id", ROW_ID, nullable=False),
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=False),
        sa.Column("peer", sa.Text(), nullable=False),
        sa.Column("references_json", sa.Text(), nullable=False),
        sa.Column("duplicate", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("answered_at", INSTANT, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_commitment_requests")),
    )
    op.create_index("ix_commitment_requests_due", "commitment_requests", ["state", "due_at", "request_id"])
    op.create_index(op.f("ix_commitment_requests_transaction_uid"), "commitment_requests", ["transaction_uid"])
    op.create_index(op.f("ix_commitment_requests_received_at"), "commitment_requests", ["received_at"])
    op.create_table(
        "wanted_commitments",
        sa.Column("delivery_id", ROW_ID, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("transaction_uid", sa.String(64), nullable=True),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.delivery_id"], name=op.f("fk_wanted_commitments_delivery_id")
        ),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_wanted_commitments")),
    )
    op.create_index("ix_wanted_commitments_due", "wanted_commitments", ["destination", "due_at", "delivery_id"])
    op.create_index(op.f("ix_wanted_commitments_transaction_uid"), "wanted_commitments", ["transaction_uid"])
    op.create_table(
        "commitment_questions",
        sa.Column("transaction_uid", sa.String(64), nullable=False),
        sa.Column("delivery_id", ROW_ID, nullable=False),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("answered_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["deliveries.delivery_id"], name=op.f("fk_commitment_questions_delivery_id")
        ),
        sa.PrimaryKeyConstraint("transaction_uid", "delivery_id", name=op.f("pk_commitment_questions")),
    )
    op.create_index(op.f("ix_commitment_questions_asked_at"), "commitment_questions", ["asked_at"])
