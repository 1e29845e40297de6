"""Fixtures by cost. A test is marked by the folder that it lies in."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from lakehouse import contracts as contract_files
from lakehouse import layouts as layout_files
from lakehouse import settings as settings_files
from lakehouse.contracts import Contracts
from lakehouse.layouts import Layouts
from lakehouse.settings import MySQL, PostgreSQL, Settings
from tests import servers
from tests.servers import MariaDB

ORDER = ["unit", "spark", "integration", "faults", "e2e"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "long" not in config.option.markexpr.split():
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        item.add_marker(getattr(pytest.mark, item.path.parent.name))
    items.sort(key=lambda item: ORDER.index(item.path.parent.name))


@pytest.fixture(scope="session")
def contracts() -> Contracts:
    return contract_files.load(settings_files.default_contracts())


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_files.load("local", storage=str(tmp_path / "data"))


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The one session of all tests that call Spark themselves."""
    from lakehouse.session import spark as make_session

    data = tmp_path_factory.mktemp("spark")
    session = make_session(settings_files.load("local", storage=str(data)), "tests")
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`host:port` of a real broker that lives as long as the tests."""
    from headwater import broker

    data = tmp_path_factory.mktemp("broker")
    local = settings_files.load("local", storage=str(data))
    status = broker.start(local)
    assert status.bootstrap is not None
    yield status.bootstrap
    broker.stop(local)


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    """A real MariaDB server that lives as long as the tests."""
    server = servers.mariadb(tmp_path_factory.mktemp("db", numbered=True))
    yield server
    server.stop()


@pytest.fixture
def mysql(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> Iterator[MySQL]:
    """A database of the test's own, and a user that may do there what the docs ask for."""
    name, password = f"dw_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    mariadb.run(
        f"CREATE DATABASE {name}",
        f"CREATE OR REPLACE USER 'writer'@'%' IDENTIFIED BY '{password}'",
        f"GRANT CREATE, ALTER, DROP, SELECT, INSERT, UPDATE, DELETE ON {name}.* TO 'writer'@'%'",
    )
    monkeypatch.setenv("TEST_SECRET", password)
    yield MySQL(port=mariadb.port, database=name, user="writer", password="env:TEST_SECRET")
    mariadb.run(f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.PostgreSQL]:
    """A real PostgreSQL server that lives as long as the tests."""
    server = servers.postgresql(tmp_path_factory.mktemp("pg", numbered=True))
    yield server
    server.stop()


@pytest.fixture
def postgresql(
    postgres: servers.PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PostgreSQL]:
    """A database of the test's own, and a user that may do there what the docs ask for."""
    name, password = f"dw_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    postgres.run(
        f"CREATE USER {name} PASSWORD '{password}'",
        f"CREATE DATABASE {name}",
    )
    postgres.run(f"GRANT CREATE, USAGE ON SCHEMA public TO {name}", database=name)
    monkeypatch.setenv("TEST_SECRET_2", password)
    yield PostgreSQL(port=postgres.port, database=name, user=name, password="env:TEST_SECRET_2")
    postgres.run(f"DROP DATABASE {name} WITH (FORCE)", f"DROP USER {name}")


@pytest.fixture(scope="session")
def layouts(contracts: Contracts) -> Layouts:
    return layout_files.load(settings_files.default_contracts(), contracts)
