"""One cluster for all tests of it, and the run that the others are compared with."""

from collections.abc import Iterator

import pytest

from tests.conftest import TinyModels
from tests.slurm_cluster.cluster import Kind
from tests.slurm_cluster.jobs import Site, Submitted, site_of


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_models: TinyModels) -> Iterator[Site]:
    """A cluster whose preempted jobs hear SIGTERM, and whose batch scripts have to requeue for themselves."""
    yield from site_of(Kind(), tmp_path_factory, tiny_models)


@pytest.fixture(scope="session")
def other_site(tmp_path_factory: pytest.TempPathFactory, tiny_models: TinyModels) -> Iterator[Site]:
    """A cluster whose preempted jobs hear their own signal, and where exit code 75 is enough to be requeued."""
    yield from site_of(Kind(user_signal=True, requeue_exit=True), tmp_path_factory, tiny_models)


@pytest.fixture(scope="session")
def undisturbed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """A run on two nodes that nothing happens to."""
    return site.submit(tmp_path_factory.mktemp("undisturbed")).done()
