"""All findings about a machine, in the order in which people read them. Pure."""

from lft.doctor.devices import judge_gpus, judge_precision, judge_torch
from lft.doctor.environment import judge_environment
from lft.doctor.facts import Facts
from lft.doctor.finding import Finding
from lft.doctor.packages import judge_packages
from lft.doctor.services import judge_deepspeed, judge_hub, judge_slurm
from lft.doctor.system import judge_folders, judge_limits, judge_memory, judge_python


def judge(facts: Facts) -> list[Finding]:
    """Software, devices, memory, folders, services, environment."""
    return [
        judge_python(facts),
        *judge_torch(facts),
        *judge_packages(facts),
        *judge_deepspeed(facts),
        *judge_gpus(facts),
        judge_precision(facts),
        *judge_memory(facts),
        *judge_limits(facts),
        *judge_folders(facts.folders),
        judge_hub(facts),
        judge_slurm(facts),
        *judge_environment(facts),
    ]
