"""The tables, as SQLAlchemy Core knows them. `migrations/` makes them; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeDecorator

from storage.records import DeliveryState, Disposition, Kind, MatchState, ReportKind, RequestState

REVISION = "0004"
"""The newest revision in `migrations/versions`: what a database must be at."""

Word = TypeVar("Word", bound=StrEnum)


class UtcDateTime(TypeDecorator[datetime]):
    """An instant: aware going in, UTC with microseconds in the database, aware coming out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC. `ValueError` for a naive datetime, whose instant nobody can know."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime without a time zone cannot be stored")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the instant back in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class OneOf(TypeDecorator[Word]):
    """A member of a closed set, stored as its value."""

    impl = String(16)
    cache_ok = True

    def __init__(self, words: type[Word]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: Word | None, dialect: Dialect) -> str | None:
        """The member's value."""
        return None if value is None else self.words(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> Word | None:
        """The member. `ValueError` for a word that a later version wrote."""
        return None if value is None else self.words(value)


class ForeignText(TypeDecorator[str]):
    """Text that came over the network. Nothing in it may make a row impossible to store.

    NUL (PostgreSQL takes none) and lone surrogates (no UTF-8 has any) are written as `\\x00` and `\\udc80`. A
    backslash separates values in DICOM and so cannot be in one: two different texts stay different.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """The text, escaped where it must be."""
        if value is None or (value.isascii() and "\0" not in value):
            return value
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


ROW_ID = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only under INTEGER


def where(condition: str) -> dict[str, Any]:
    """The condition of a partial index, for either database."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

installation = Table(
    "installation",
    metadata,
    Column("installation_id", Integer, primary_key=True, autoincrement=False),
    Column("store_id", String(32), nullable=False),  # the object folder has the same: `identity.py`
    CheckConstraint("installation_id = 1", name="one_row"),
)

instances = Table(
    "instances",
    metadata,
    Column("instance_id", ROW_ID, primary_key=True),
    Column("sop_instance_uid", ForeignText, nullable=False),
    Column("series_instance_uid", ForeignText, nullable=False),
    Column("study_instance_uid", ForeignText, nullable=False),
    Column("sop_class_uid", ForeignText, nullable=False),
    Column("transfer_syntax_uid", ForeignText, nullable=False),
    Column("accession_number", ForeignText, nullable=False),
    Column("issuer", ForeignText, nullable=False),
    Column("patient_id", ForeignText, nullable=False),
    Column("patient_name", ForeignText, nullable=False),
    Column("birth_date", ForeignText, nullable=False),
    Column("sex", ForeignText, nullable=False),
    Column("acquired_at", UtcDateTime),
    Column("acquired_source", Text, nullable=False),
    Column("acquired_timezone", Text, nullable=False),
    Column("acquired_date_only", Boolean, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("calling_ae", ForeignText, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("kind", OneOf(Kind), nullable=False),
    Column("disposition", OneOf(Disposition), nullable=False),
    Column("reason", ForeignText, nullable=False),
    Column("purged_at", UtcDateTime),
    UniqueConstraint("sop_instance_uid", "sha256"),
    # Pairing: the accepted instances of one patient, by time. Listing by patient alone starts at patient_id.
    Index("ix_instances_patient", "patient_id", "issuer", "kind", "disposition", "acquired_at"),
    Index("ix_instances_counts", "kind", "disposition"),
    Index(None, "study_instance_uid"),
    Index(None, "accession_number"),
    Index(None, "sha256"),
    Index("ix_instances_retention", "purged_at", "received_at"),
)

matches = Table(
    "matches",
    metadata,
    Column("match_id", ROW_ID, primary_key=True),
    Column("radiograph_id", ROW_ID, ForeignKey("instances.instance_id"), nullable=False),
    Column("ecg_id", ROW_ID, ForeignKey("instances.instance_id")),
    Column("gap_seconds", Double),
    Column("rule_version", Text, nullable=False),
    Column("state", OneOf(MatchState), nullable=False),
    Column("reason", ForeignText, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("supersedes", ROW_ID, ForeignKey("matches.match_id")),
    Column("superseded_by", ROW_ID, ForeignKey("matches.match_id")),
    Column("due_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    # The model whose chest features this radiograph has, "" for none: finds the waiting ones that lack them.
    Column("chest_digest", String(64), nullable=False),
    Column("run_digest", String(64), nullable=False),
    Column("prediction_json", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("radiograph_id", "revision"),
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_is_whole"),
    CheckConstraint("state NOT IN ('PAIRED', 'PREDICTED') OR ecg_id IS NOT NULL", name="pair_has_ecg"),
    CheckConstraint("(state = 'SUPERSEDED') OR superseded_by IS NULL", name="superseded_says_so"),
    # Claiming: each state's rows in the order in which they are due.
    Index("ix_matches_due", "state", "due_at", "match_id"),
    Index("ix_matches_chest_due", "state", "chest_digest", "due_at", "match_id"),
    Index(None, "ecg_id"),
    Index("ix_matches_leased", "lease_until", **where("lease_until IS NOT NULL")),
    Index("uq_matches_live", "radiograph_id", unique=True, **where("state <> 'SUPERSEDED'")),
)

reports = Table(
    "reports",
    metadata,
    Column("report_id", ROW_ID, primary_key=True),
    Column("match_id", ROW_ID, ForeignKey("matches.match_id"), nullable=False),
    Column("kind", OneOf(ReportKind), nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False),
    Column("series_instance_uid", Text, nullable=False),
    Column("study_instance_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("match_id", "kind"),
    UniqueConstraint("sop_instance_uid"),
    Index(None, "sha256"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery_id", ROW_ID, primary_key=True),
    Column("report_id", ROW_ID, ForeignKey("reports.report_id"), nullable=False),
    Column("match_id", ROW_ID, ForeignKey("matches.match_id"), nullable=False),
    Column("radiograph_id", ROW_ID, ForeignKey("instances.instance_id"), nullable=False),  # of the match
    Column("destination", Text, nullable=False),
    Column("state", OneOf(DeliveryState), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", UtcDateTime, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("first_tried_at", UtcDateTime),
    Column("trying_since", UtcDateTime),
    Column("last_status", Integer),
    Column("last_error", ForeignText, nullable=False),
    Column("delivered_at", UtcDateTime),
    Column("committed_at", UtcDateTime),
    UniqueConstraint("report_id", "destination"),
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_is_whole"),
    Index("ix_deliveries_due", "destination", "state", "due_at", "delivery_id"),
    # Reports of one radiograph keep their order: is an earlier one still on its way?
    Index("ix_deliveries_order", "radiograph_id", "destination", "state", "delivery_id"),
    Index(None, "match_id"),
    Index("ix_deliveries_leased", "lease_until", **where("lease_until IS NOT NULL")),
)

silent_destinations = Table(
    "silent_destinations",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("silent_since", UtcDateTime, nullable=False),
    Column("silent_until", UtcDateTime, nullable=False),  # nothing is sent there before
)

commitment_requests = Table(  # of peers, to us
    "commitment_requests",
    metadata,
    Column("request_id", ROW_ID, primary_key=True),
    Column("transaction_uid", ForeignText, nullable=False),
    Column("calling_ae", ForeignText, nullable=False),
    Column("peer", Text, nullable=False),
    Column("references_json", ForeignText, nullable=False),
    Column("duplicate", Boolean, nullable=False),
    Column("state", OneOf(RequestState), nullable=False),
    Column("attempts", Integer, nullable=False),
    # Whoever claims a request moves this on: another one may take it then, if the first one died.
    Column("due_at", UtcDateTime, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
    Column("failures", Integer),
    Column("last_error", ForeignText, nullable=False),
    Index("ix_commitment_requests_due", "state", "due_at", "request_id"),
    Index(None, "transaction_uid"),
    Index(None, "received_at"),
)

wanted_commitments = Table(  # of destinations, to us
    "wanted_commitments",
    metadata,
    Column("delivery_id", ROW_ID, ForeignKey("deliveries.delivery_id"), primary_key=True),
    Column("destination", Text, nullable=False),
    Column("transaction_uid", String(64)),
    Column("due_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", ForeignText, nullable=False),
    Index("ix_wanted_commitments_due", "destination", "due_at", "delivery_id"),
    Index(None, "transaction_uid"),
)

commitment_questions = Table(  # every question, so that an answer is known however late it comes
    "commitment_questions",
    metadata,
    Column("transaction_uid", String(64), primary_key=True),
    Column("delivery_id", ROW_ID, ForeignKey("deliveries.delivery_id"), primary_key=True),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("answered_at", UtcDateTime),
    Index(None, "asked_at"),
)

chest_features = Table(
    "chest_features",
    metadata,
    Column("radiograph_id", ROW_ID, ForeignKey("instances.instance_id"), primary_key=True),
    Column("model_digest", String(64), primary_key=True),
    Column("embedding", LargeBinary, nullable=False),
    Column("display_sha256", String(64), nullable=False),
    Column("findings_json", Text, nullable=False),
    Column("geometry_json", Text, nullable=False),
    Index(None, "display_sha256"),
)

tallies = Table(
    "tallies",
    metadata,
    Column("outcome", String(16), primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("times", BigInteger, nullable=False),
)

shadow_estimates = Table(  # a queue of matches that a second package estimates too, and what it said
    "shadow_estimates",
    metadata,
    Column("match_id", ROW_ID, ForeignKey("matches.match_id"), primary_key=True),
    Column("due_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_owner", Text),
    Column("lease_until", UtcDateTime),
    Column("prediction_json", Text, nullable=False),
    Column("reason", ForeignText, nullable=False),
    Column("done_at", UtcDateTime),
    CheckConstraint("(lease_owner IS NULL) = (lease_until IS NULL)", name="lease_is_whole"),
    Index("ix_shadow_estimates_due", "due_at", "match_id", **where("done_at IS NULL")),
)

catheterisations = Table(
    "catheterisations",
    metadata,
    Column("issuer", ForeignText, primary_key=True),
    Column("patient_id", ForeignText, primary_key=True),
    Column("measured_on", Date, primary_key=True),
    Column("mpap_mmhg", Double, nullable=False),
    Column("imported_at", UtcDateTime, nullable=False),
)
