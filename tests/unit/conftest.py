"""What opens files for tests, as it does for the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pacs_node.opening.opener import Opener
from pacs_node.settings import Limits


@pytest.fixture(scope="session")
def opener() -> Iterator[Opener]:
    """The real readers within the bounds of a service."""
    with Opener(Limits()) as running:
        yield running
