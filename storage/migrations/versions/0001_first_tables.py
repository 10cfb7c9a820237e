"""The first tables: installation, instances, chest features, matches, reports, deliveries, silent destinations.

The types are frozen here, so nothing is imported from `storage.schema`, which goes on to change.
"""

from __future__ import annotations

import uuid
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, for either database."""
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Make them all, and give this database an identity of its own."""
    installation = op.create_table(
        "installation",
        sa.Column("installation_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("store_id", sa.String(32), nullable=False),
        sa.CheckConstraint("installation_id = 1", name=op.f("ck_installation_one_row")),
        sa.PrimaryKeyConstraint("installation_id", name=op.f("pk_installation")),
    )
    op.bulk_insert(installation, [{"installation_id": 1, "store_id": uuid.uuid4().hex}])
    op.create_table(
        "instances",
        sa.Column("instance_id", ROW_ID, nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("series_instance_uid", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("birth_date", sa.Text(), nullable=False),
        sa.Column("sex", sa.Text(), nullable=False),
        sa.Column("acquired_at", INSTANT, nullable=True),
        sa.Column("acquired_source", sa.Text(), nullable=False),
        sa.Column("acquired_timezone", sa.Text(), nullable=False),
        sa.Column("acquired_date_only", sa.Boolean(), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("calling_ae", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("disposition", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("purged_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("pk_instances")),
        sa.UniqueConstraint("sop_instance_uid", "sha256", name=op.f("uq_instances_sop_instance_uid_sha256")),
    )
    op.create_index(op.f("ix_instances_accession_number"), "instances", ["accession_number"], unique=False)
    op.create_index("ix_instances_counts", "instances", ["kind", "disposition"], unique=False)
    op.create_index(
        "ix_instances_patient",
        "instances",
        ["patient_id", "issuer", "kind", "disposition", "acquired_at"],
        unique=False,
    )
    op.create_index("ix_instances_retention", "instances", ["purged_at", "received_at"], unique=False)
    op.create_index(op.f("ix_instances_sha256"), "instances", ["sha256"], unique=False)
    op.create_index(op.f("ix_instances_study_instance_uid"), "instances", ["study_instance_uid"], unique=False)
    op.create_table(
        "chest_features",
        sa.Column("radiograph_id", ROW_ID, nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("display_sha256", sa.String(64), nullable=False),
        sa.Column("findings_json", sa.Text(), nullable=False),
        sa.Column("geometry_json", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["radiograph_id"], ["instances.instance_id"], name=op.f("fk_chest_features_radiograph_id")
        ),
        sa.PrimaryKeyConstraint("radiograph_id", "model_digest", name=op.f("pk_chest_features")),
    )
    op.create_index(op.f("ix_chest_features_display_sha256"), "chest_features", ["display_sha256"], unique=False)
    op.create_table(
        "matches",
        sa.Column("match_id", ROW_ID, nullable=False),
        sa.Column("radiograph_id", ROW_ID, nullable=False),
        sa.Column("ecg_id", ROW_ID, nullable=True),
        sa.Column("gap_seconds", sa.Double(), nullable=True),
        sa.Column("rule_version", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("supersedes", ROW_ID, nullable=True),
        sa.Column("superseded_by", ROW_ID, nullable=True),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("chest_digest", sa.String(64), nullable=False),
        sa.Column("run_digest", sa.String(64), nullable=False),
        sa.Column("prediction_json", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.CheckConstraint(
            "(state = 'SUPERSEDED') OR superseded_by IS NULL", name=op.f("ck_matches_superseded_says_so")
        ),
        sa.CheckConstraint(
            "state NOT IN ('PAIRED', 'PREDICTED') OR ecg_id IS NOT NULL", name=op.f("ck_matches_pair_has_ecg")
        ),
        sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name=op.f("ck_matches_lease_is_whole")),
        sa.ForeignKeyConstraint(["ecg_id"], ["instances.instance_id"], name=op.f("fk_matches_ecg_id")),
        sa.ForeignKeyConstraint(["radiograph_id"], ["instances.instance_id"], name=op.f("fk_matches_radiograph_id")),
        sa.ForeignKeyConstraint(["superseded_by"], ["matches.match_id"], name=op.f("fk_matches_superseded_by")),
        sa.ForeignKeyConstraint(["supersedes"], ["matches.match_id"], name=op.f("fk_matches_supersedes")),
        sa.PrimaryKeyConstraint("match_id", name=op.f("pk_matches")),
        sa.UniqueConstraint("radiograph_id", "revision", name=op.f("uq_matches_radiograph_id_revision")),
    )
    op.create_index("ix_matches_chest_due", "matches", ["state", "chest_digest", "due_at", "match_id"], unique=False)
    op.create_index("ix_matches_due", "matches", ["state", "due_at", "match_id"], unique=False)
    op.create_index(op.f("ix_matches_ecg_id"), "matches", ["ecg_id"], unique=False)
    op.create_index("ix_matches_leased", "matches", ["lease_until"], unique=False, **where("lease_until IS NOT NULL"))
    op.create_index("uq_matches_live", "matches", ["radiograph_id"], unique=True, **where("state <> 'SUPERSEDED'"))
    op.create_table(
        "reports",
        sa.Column("report_id", ROW_ID, nullable=False),
        sa.Column("match_id", ROW_ID, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sop_class_uid", sa.Text(), nullable=False),
        sa.Column("sop_instance_uid", sa.Text(), nullable=False),
        sa.Column("series_instance_uid", sa.Text(), nullable=False),
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.Column("transfer_syntax_uid", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["match_id"], ["matches.match_id"], name=op.f("fk_reports_match_id")),
        sa.PrimaryKeyConstraint("report_id", name=op.f("pk_reports")),
        sa.UniqueConstraint("match_id", "kind", name=op.f("uq_reports_match_id_kind")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_reports_sop_instance_uid")),
    )
    op.create_index(op.f("ix_reports_sha256"), "reports", ["sha256"], unique=False)
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", ROW_ID, nullable=False),
        sa.Column("report_id", ROW_ID, nullable=False),
        sa.Column("match_id", ROW_ID, nullable=False),
        sa.Column("radiograph_id", ROW_ID, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", INSTANT, nullable=True),
        sa.Column("first_tried_at", INSTANT, nullable=True),
        sa.Column("trying_since", INSTANT, nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.Column("delivered_at", INSTANT, nullable=True),
        sa.Column("committed_at", INSTANT, nullable=True),
        sa.CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name=op.f("ck_deliveries_lease_is_whole")),
        sa.ForeignKeyConstraint(["match_id"], ["matches.match_id"], name=op.f("fk_deliveries_match_id")),
        sa.ForeignKeyConstraint(["radiograph_id"], ["instances.instance_id"], name=op.f("fk_deliveries_radiograph_id")),
        sa.ForeignKeyConstraint(["report_id"], ["reports.report_id"], name=op.f("fk_deliveries_report_id")),
        sa.PrimaryKeyConstraint("delivery_id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("report_id", "destination", name=op.f("uq_deliveries_report_id_destination")),
    )
    op.create_index("ix_deliveries_due", "deliveries", ["destination", "state", "due_at", "delivery_id"], unique=False)
    op.create_index(
        "ix_deliveries_leased",
        "deliveries",
        ["lease_until"],
        unique=False,
        **where("lease_until IS NOT NULL"),
    )
    op.create_index(op.f("ix_deliveries_match_id"), "deliveries", ["match_id"], unique=False)
    op.create_index(
        "ix_deliveries_order", "deliveries", ["radiograph_id", "destination", "state", "delivery_id"], unique=False
    )
    op.create_table(
        "silent_destinations",
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("silent_since", INSTANT, nullable=False),
        sa.Column("silent_until", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("destination", name=op.f("pk_silent_destinations")),
    )
