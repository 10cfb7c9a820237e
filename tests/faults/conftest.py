"""The server of the unit tests, for tests of faults."""

from tests.unit.dicom.conftest import empty_database, listen

__all__ = ["empty_database", "listen"]
