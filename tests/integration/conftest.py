"""Servers that integration tests alone need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import secured as secured_servers
from tests.secured import Secured


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with TLS and logins, and who gives the tokens, for as long as the tests live."""
    with secured_servers.running(tmp_path_factory.mktemp("secured")) as running:
        yield running
