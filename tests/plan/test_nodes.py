"""Several nodes without a scheduler: where they meet is checked before anything starts."""

from pathlib import Path

import pytest

from lft.core.errors import SettingsError
from lft.core.settings import RunSettings
from lft.plan.launch_plan import make_plan
from lft.plan.nodes import on_node
from tests.runs import MACHINE, new_attempt


@pytest.mark.parametrize("port", ["0", "65536", "99999", "123456"])
def test_a_port_that_no_host_has_is_refused_before_anything_starts(port: str, tmp_path: Path) -> None:
    plan = new_attempt(tmp_path)
    topology = plan.topology.model_copy(update={"nodes": 2})
    plan = plan.model_copy(update={"topology": topology})
    with pytest.raises(SettingsError, match=f"--rdzv  is foo:{port}; a port from 1 to 65535 is expected"):
        on_node(plan, 0, f"foo:{port}")
    assert on_node(plan, 0, "foo:65535").meeting_point == "foo:65535"


def test_nodes_must_be_told_the_same_training_and_may_keep_their_files_where_they_like() -> None:
    def terms(home: str, **training: int) -> dict[str, object]:
        settings = {
            "model": {"name": f"{home}/models/tiny"},
            "data": {"source": f"{home}/rows.jsonl"},
            "training": training,
            "launch": {"grace_seconds": len(home)},
            "output_dir": f"{home}/out",
        }
        return make_plan(RunSettings.model_validate(settings), MACHINE).order("train").terms()

    assert terms("/home/a", max_steps=30) == terms("/scratch/b", max_steps=30)
    one, other = terms("/a", max_steps=30, seed=1), terms("/a", max_steps=20, seed=2)
    assert {name for name in one if one[name] != other[name]} == {"training.max_steps", "training.seed"}
