"""What a process inside a SLURM job knows of it; a batch shell is not mistaken for a rank."""

import pytest

from lft.core.allocation import SlurmAllocation, node_names, slurm_allocation

BATCH = {
    "SLURM_JOB_ID": "48213",
    "SLURM_JOB_NODELIST": "gpu-a[2-3]",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_CPUS_ON_NODE": "64",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
STEP = BATCH | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "gpu-a3",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_STEP_NUM_TASKS": "4",
}


def test_outside_a_job_there_is_no_allocation() -> None:
    assert slurm_allocation({}) is None
    assert slurm_allocation({"SLURM_CONF": "/etc/slurm.conf", "SLURM_JOB_ID": ""}) is None


@pytest.mark.parametrize(
    "variables",
    [BATCH, BATCH | {"SLURM_STEP_ID": "4294967290"}, {**BATCH, "SLURM_JOBID": "48213", "SLURM_JOB_ID": ""}],
    ids=["batch", "interactive", "old name"],
)
def test_a_batch_shell_has_the_jobs_nodes_and_no_number_of_its_own(variables: dict[str, str]) -> None:
    assert slurm_allocation(variables) == SlurmAllocation(
        job_id="48213", node_list="gpu-a[2-3]", nodes=2, in_step=False, cpus_on_node=64, gpus_on_node=8
    )


def test_a_task_of_a_step_has_the_steps_nodes_and_its_own_place() -> None:
    found = slurm_allocation(STEP)
    assert found is not None
    assert (found.in_step, found.node_list, found.nodes, found.tasks, found.node_index) == (True, "gpu-a3", 1, 4, 0)
    assert found.describe() == "SLURM job 48213, in a step, on gpu-a3"


@pytest.mark.parametrize(
    ("node_list", "first"),
    [
        ("gpu-a2", "gpu-a2"),
        ("gpu-a[2-3]", "gpu-a2"),
        ("node[007,009-012],other3", "node007"),
        ("n1,n[2-4]", "n1"),
        ("rack[1-2]n[1,3]", "rack1n1"),
        ("rack[3-4]-n[08-09].site", "rack3-n08.site"),
        ("", ""),
    ],
)
def test_the_first_node_of_a_list_is_found_without_asking_slurm(node_list: str, first: str) -> None:
    assert SlurmAllocation(job_id="1", node_list=node_list, nodes=2, in_step=False).first_node == first


@pytest.mark.parametrize(
    ("node_list", "names"),
    [
        ("gpu-a[2-3]", ["gpu-a2", "gpu-a3"]),
        ("node[007,009-011],other3", ["node007", "node009", "node010", "node011", "other3"]),
        ("rack[1-2]n[1,3]", ["rack1n1", "rack1n3", "rack2n1", "rack2n3"]),
        ("n[08-10].site", ["n08.site", "n09.site", "n10.site"]),
        ("", []),
    ],
)
def test_a_list_of_nodes_is_read_as_slurm_writes_it(node_list: str, names: list[str]) -> None:
    assert node_names(node_list) == names


def test_an_element_of_an_array_is_not_called_by_the_id_of_the_whole_array() -> None:
    found = slurm_allocation(
        STEP | {"SLURM_ARRAY_JOB_ID": "48213", "SLURM_ARRAY_TASK_ID": "7", "SLURM_RESTART_COUNT": "2"}
    )
    assert found is not None
    assert (found.job_id, found.life) == ("48213_7", "48213_7.2")
