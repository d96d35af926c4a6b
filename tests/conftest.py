"""What more than one folder of tests needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fakenvml.build import compile_fake
from fakenvml.node import FakeNode
from hosted import columns
from pluto_dist.server import LocalServer

# Without time limits: the first text that hypothesis makes takes seconds.
settings.register_profile("some", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=40)
settings.register_profile("many", settings.get_profile("some"), max_examples=600)


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("some" if config.option.markexpr == "not exhaustive" else "many")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    columns.parametrize(metafunc)


@pytest.fixture
def tracker_class() -> columns.TrackerClass:
    """The tracker to start; the mark both_trackers makes it two."""
    return LocalServer


@pytest.fixture(autouse=True, scope="session")
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where this test run, and the jobs that it starts, keep what no tracker took; not where the user's own is."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the compiled fake NVIDIA library; no compiler is a failure."""
    return compile_fake(tmp_path_factory.mktemp("fakenvml"))


@pytest.fixture(autouse=True, scope="session")
def quick_resolver() -> Iterator[None]:
    """torch 2.13's server asks for the name of each client; without a name server that takes 5 s now and then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
        yield


@pytest.fixture
def node(fake_library: Path, tmp_path: Path) -> FakeNode:
    """A machine with the fake driver."""
    return FakeNode(fake_library, tmp_path)


@pytest.fixture
def node_without(tmp_path: Path) -> Callable[..., FakeNode]:
    """Machines whose driver is too old to have the named functions."""
    return lambda *absent: FakeNode(compile_fake(tmp_path / "old", absent=absent), tmp_path)
