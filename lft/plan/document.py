"""A plan as one JSON text that holds everything, also what follows from it: for other programs, and for the curious."""

import json

from lft.plan.commands import command_line, other_launchers
from lft.plan.launch_plan import LaunchPlan


def plan_document(plan: LaunchPlan) -> str:
    """The fields of the plan, its files (path below output_dir -> text), and argv and environment of each rank.

    `LaunchPlan.model_validate_json` makes the same plan of it. The run directory keeps the fields alone (plan.json),
    whose size does not grow with the ranks.
    """
    local = plan.topology.ranks_per_node
    ranks = [
        {"rank": rank, "node": rank // local, "argv": plan.argv("train"), "environment": plan.environment(rank)}
        for rank in range(plan.topology.ranks)
    ]
    whole = plan.model_dump(mode="json") | {
        "files": plan.files(),
        "commands": [command_line(plan), *other_launchers(plan)],
        "ranks": ranks,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False)
