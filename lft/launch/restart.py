"""Whether a run that failed is started again, from where, and what to type where it is not. Pure decisions."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from lft.core.errors import FORCED, HANG, OUT_OF_MEMORY, RENDEZVOUS, TRAINING
from lft.core.order import WorkerReport
from lft.plan.launch_plan import LaunchPlan
from lft.plan.strategy import SmallerRun

MOST_ATTEMPTS_WITHOUT_A_STEP = 2


@dataclass(slots=True)
class Brake:
    """Counts attempts that got no further than an earlier one: a failure that comes back at the same step does not pass."""

    farthest: int = 0
    without_a_step: int = 0

    def note(self, steps: int) -> None:
        """An attempt has ended after `steps` steps, counted from the start of the run."""
        self.without_a_step = 0 if steps > self.farthest else self.without_a_step + 1
        self.farthest = max(self.farthest, steps)

    @property
    def holds(self) -> bool:
        """Whether another attempt would only repeat what has happened."""
        return self.without_a_step >= MOST_ATTEMPTS_WITHOUT_A_STEP


def may_pass(report: WorkerReport) -> bool:
    """Whether the same run may succeed when it is started again.

    Settings, hardware, data and memory stay what they are; a killed or hanging rank, a lost connection, and an error
    of training that the brake will tell from a lasting one, may not come back.
    """
    return report.exit_code in (TRAINING, HANG, RENDEZVOUS) or report.exit_code > FORCED


def next_step(report: WorkerReport, plan: LaunchPlan, checkpoint: Path | None, smaller: SmallerRun | None) -> str:
    """What to type after this failure; nothing where the error itself says it.

    `smaller` is the next plan that is predicted to fit, where the model is known.
    """
    if plan.topology.nodes > 1 and not plan.shares_folder:
        changes = f" with {smaller or _half(plan)}" if report.exit_code == OUT_OF_MEMORY else ""
        again = f"the same command on every node{changes}; it starts from the first step"
        return again if changes or may_pass(report) else ""
    resume = shlex.join(["lft", "resume", str(plan.settings.output_dir)])
    whence = f"from {checkpoint.name}" if checkpoint else "from the first step: there is no checkpoint yet"
    if report.exit_code == OUT_OF_MEMORY:
        return f"{resume} {smaller or _half(plan)}   {whence}"
    return f"{resume}   {whence}" if may_pass(report) else ""


def _half(plan: LaunchPlan) -> str:
    """Half the rows, or half the tokens, at a time; the global batch stays."""
    batch, data = plan.batch, plan.settings.data
    if batch.micro_batch == 1:
        return f"--set data.max_length={max(2, data.max_length // 2)}"
    return f"--set training.batch_size={batch.micro_batch // 2} --set training.global_batch_size={batch.global_batch}"
