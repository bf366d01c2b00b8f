"""Whether a run that failed is started again, from where, and what to type where it is not. Pure decisions."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lft.core.errors import FORCED, HANG, OUT_OF_MEMORY, RENDEZVOUS, TRAINING
from lft.core.order import WorkerReport
from lft.core.settings import RunSettings
from lft.plan.launch_plan import LaunchPlan
from lft.plan.smaller import SmallerRun

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
    if report.exit_code == OUT_OF_MEMORY:
        return _again(plan, checkpoint, str(smaller or _half(plan)))
    return _again(plan, checkpoint) if may_pass(report) else ""


def benchmark_again(plan: LaunchPlan, report: WorkerReport | None = None, run: RunSettings | None = None) -> str:
    """What finishes a benchmark that failed or was stopped; with fewer prompts at a time where memory ran out.

    `run` are the settings of the training; what the benchmark was asked otherwise is named, since it else would begin anew.
    """
    output_dir, settings = plan.settings.output_dir, plan.settings
    words = ["lft", "benchmark", str(plan.adapter or output_dir)]
    if plan.adapter:
        words += ["--dataset", *settings.data.source_names[:1], "--model", settings.model.name]
        words += ["--output-dir", str(output_dir)]
    asked = _asked(plan, run)
    if report and report.exit_code == OUT_OF_MEMORY:
        asked["benchmark.batch_size"] = max(1, settings.benchmark.batch_size // 2)
    words += [word for name, value in asked.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    return shlex.join(words)


def _asked(plan: LaunchPlan, run: RunSettings | None) -> dict[str, Any]:
    """What was asked otherwise than in the run, or for an adapter from elsewhere, otherwise than by default."""
    usual = RunSettings.model_validate({"model": {"name": "-"}, "data": {"source": "-"}}) if plan.adapter else run
    if usual is None:
        return {}
    of = ("benchmark.", "data.") if plan.adapter else ("benchmark.",)
    named, before = ("data.source", "data.held_out", "data.chat_template"), usual.by_name()
    return {
        name: value
        for name, value in plan.settings.by_name().items()
        if name.startswith(of) and name not in named and value != before[name]
    }


def after_stop(plan: LaunchPlan, checkpoint: Path | None, *, is_trained: bool) -> str:
    """What to type after a stop that was asked for."""
    if is_trained:
        return f"{shlex.join(['lft', 'resume', str(plan.settings.output_dir)])}   does what is left after training"
    return _again(plan, checkpoint)


def _again(plan: LaunchPlan, checkpoint: Path | None, changes: str = "") -> str:
    """How to go on, and from where."""
    output_dir = plan.settings.output_dir
    whence = f"from {checkpoint.name}" if checkpoint else "from the first step: there is no checkpoint yet"
    if plan.topology.nodes == 1 or plan.shares_folder:
        same = "" if changes else ", or the same command"
        return f"{shlex.join(['lft', 'resume', str(output_dir)])} {changes}".rstrip() + f"{same}   {whence}"
    again = "the same command on every node" + (f" with {changes}" if changes else "")
    if plan.node > 0:
        return f"{again}; node 0 says from where"
    shared = f" if all of them see {output_dir}; if not, with --resume never" if checkpoint else ""
    return f"{again}   {whence}{shared}"


def _half(plan: LaunchPlan) -> str:
    """Half the rows, or half the tokens, at a time; the global batch stays."""
    batch, data = plan.batch, plan.settings.data
    if batch.micro_batch == 1:
        return f"--set data.max_length={max(2, data.max_length // 2)}"
    return f"--set training.batch_size={batch.micro_batch // 2} --set training.global_batch_size={batch.global_batch}"
