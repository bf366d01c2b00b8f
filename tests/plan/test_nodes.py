"""Several nodes without a scheduler: where they meet is checked before anything starts."""

from pathlib import Path

import pytest

from lft.core.errors import SettingsError
from lft.plan.nodes import on_node
from tests.runs import new_attempt


@pytest.mark.parametrize("port", ["0", "65536", "99999", "123456"])
def test_a_port_that_no_host_has_is_refused_before_anything_starts(port: str, tmp_path: Path) -> None:
    plan = new_attempt(tmp_path)
    topology = plan.topology.model_copy(update={"nodes": 2})
    plan = plan.model_copy(update={"topology": topology})
    with pytest.raises(SettingsError, match=f"--rdzv  is foo:{port}; a port from 1 to 65535 is expected"):
        on_node(plan, 0, f"foo:{port}")
    assert on_node(plan, 0, "foo:65535").meeting_point == "foo:65535"
