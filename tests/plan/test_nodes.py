"""Several nodes without a scheduler: where they meet is checked before anything starts."""

from pathlib import Path

import pytest

from lft.core.allocation import SlurmAllocation
from lft.core.errors import LftError, PreflightError, RendezvousError, SettingsError
from lft.core.gpus import Gpu
from lft.core.settings import RunSettings
from lft.plan.launch_plan import make_plan
from lft.plan.nodes import as_node, in_step, on_node, refuse_wrong_step
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


def test_another_node_of_a_job_uses_its_own_names_of_gpus_and_says_when_it_has_fewer() -> None:
    def gpu(token: str) -> Gpu:
        return Gpu(token=token, name="A", memory_bytes=2**34, computes_bf16=True)

    values = {"model": {"name": "a/b"}, "data": {"source": "c/d"}, "launch": {"nodes": 2, "gpus": 2}}
    machine = MACHINE.model_copy(update={"gpus": (gpu("GPU-a0"), gpu("GPU-a1"))})
    plan = in_step(make_plan(RunSettings.model_validate(values), machine), "10.0.0.1")
    other = as_node(plan, 1, (gpu("GPU-b0"), gpu("GPU-b1"), gpu("GPU-b2")))
    assert plan.environment(0)["CUDA_VISIBLE_DEVICES"] == "GPU-a0,GPU-a1"
    assert other.environment(2)["CUDA_VISIBLE_DEVICES"] == "GPU-b0,GPU-b1"
    assert (list(other.local_ranks), other.environment(3)["LOCAL_RANK"]) == ([2, 3], "1")
    assert (other.environment(3)["MASTER_ADDR"], other.environment(3)["MASTER_PORT"]) == ("10.0.0.1", "0")
    with pytest.raises(PreflightError, match="node 1 has 1 GPU, and the first one uses 2"):
        as_node(plan, 1, (gpu("GPU-b0"),))


@pytest.mark.parametrize(
    ("nodes", "tasks", "error", "words"),
    [
        (2, 4, SettingsError, "SLURM started 4 tasks on 2 nodes"),
        (3, 2, RendezvousError, "the plan is for 3 nodes, and 1 are missing: this step has a1, a2"),
        (1, 2, SettingsError, "launch.nodes  is 1, and this step has 2: a1, a2"),
    ],
)
def test_a_step_with_other_tasks_or_nodes_than_planned_is_refused(
    nodes: int, tasks: int, error: type[LftError], words: str
) -> None:
    step = SlurmAllocation(job_id="7", node_list="a[1-2]", nodes=2, in_step=True, tasks=tasks, node_index=0)
    with pytest.raises(error, match=words):
        refuse_wrong_step(nodes, step)
