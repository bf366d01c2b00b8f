"""From facts to what people see: the plan, the live progress, the end of a run. The only module that uses Rich."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from lft.core.errors import DONE, OUT_OF_MEMORY
from lft.core.events import Event
from lft.core.words import counted
from lft.plan.commands import command_line, other_launchers
from lft.plan.launch_plan import LaunchPlan

if TYPE_CHECKING:  # `lft plan` shows no outcome, and what makes one imports the Hub's client, which takes 0.1 s
    from lft.launch.agent import Outcome
    from lft.launch.triage import Failure

SECONDS_BETWEEN_PLAIN_LINES = 10.0
METRICS = {"loss": "held-out loss", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}


def show_plan(plan: LaunchPlan) -> None:
    """One line a choice, its reason beside it."""
    console = Console(highlight=False, emoji=False)
    _line(console, f"Plan for {plan.settings.output_dir}, attempt {plan.attempt}: {plan.settings.model.name}")
    for choice in plan.choices:
        reason = f"   [dim]{escape(choice.reason)}[/dim]" if choice.reason else ""
        console.print(f"  [bold]{choice.name:<10}[/bold] {escape(choice.value)}{reason}", soft_wrap=True)
    for notice in plan.notices:
        _line(console, f"  note       {notice}")


def show_commands(plan: LaunchPlan) -> None:
    """How to start the ranks by hand, each command on one line, to be copied."""
    console = Console(highlight=False, emoji=False)
    others = other_launchers(plan)
    _line(console, f"  command    {command_line(plan)}")
    for command in others:
        _line(console, f"  or         {command}")
    if others:
        directory = plan.settings.output_dir
        _line(console, f"  note       these need the files of the plan: lft plan ... --write {directory}")


class RunDisplay:
    """The live progress of a run: one moving line on a terminal, plain lines anywhere else."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, emoji=False)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._facts: dict[str, Any] = {}
        self._stage = ""
        self._stage_started = self._said = time.monotonic()

    def __enter__(self) -> "RunDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def observe(self, event: Event) -> None:
        """Show one event of rank 0; other ranks only speak when they fail."""
        show: dict[str, Callable[[dict[str, Any]], None]] = {
            "stage": self._show_stage,
            "notice": lambda data: _line(self.console, f"  {data['line']}"),
            "total": self._facts.update,
            "log": self._facts.update,
            "step": self._show_step,
            "saved": lambda data: _line(self.console, f"  saved      checkpoint-{data['step']}"),
        }
        if event.writer == "rank-0" and event.kind in show:
            show[event.kind](event.data)

    def _show_stage(self, data: dict[str, Any]) -> None:
        self._end_bar()
        self._stage, self._stage_started = data["name"], time.monotonic()
        self._facts = {}
        _line(self.console, f"  stage      {data['name']}")

    def _show_step(self, data: dict[str, Any]) -> None:
        step, total = data["step"], data["total"]
        line = f"{self._stage} step {step}/{total}"
        facts = self._describe(step, total)
        if self.console.is_terminal:
            if self._task is None:
                self._task = self._progress.add_task(line, total=total, facts=facts)
            self._progress.update(self._task, completed=step, description=line, facts=facts)
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_PLAIN_LINES or step == total:
            self._said = time.monotonic()
            _line(self.console, f"  {line}  {facts}")

    def _describe(self, step: int, total: int) -> str:
        """Loss, speed and time left, as far as they are known."""
        seconds = max(time.monotonic() - self._stage_started, 1e-9)
        parts = []
        if "loss" in self._facts:
            parts.append(f"loss {self._facts['loss']:.3f}")
        if "tokens_per_step" in self._facts:
            parts.append(f"{self._facts['tokens_per_step'] * step / seconds:,.0f} tok/s")
        if step:
            parts.append(f"eta {_clock(seconds / step * (total - step))}")
        return "  ".join(parts)

    def _end_bar(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def show_outcome(outcome: "Outcome", plan: LaunchPlan) -> None:
    """The last lines: what happened, where, why, and what to type next."""
    console = Console(highlight=False, emoji=False)
    output_dir = plan.settings.output_dir
    if outcome.failure is not None:
        _show_failure(console, outcome.failure, plan)
    elif outcome.stopped:
        _line(console, f"  stopped    {outcome.stopped}; in {output_dir}")
        if plan.attempt_dir.report("train", 0).exists():
            _line(console, f"  next       lft benchmark {output_dir}")
        else:
            _line(
                console, f"  next       lft launch {plan.run_dir.settings}   starts the run again from its first step"
            )
    elif outcome.exit_code == DONE and outcome.report is not None:
        _show_report(console, outcome.report)
        _line(console, f"  adapter    {output_dir}")
        _line(console, f"  report     {plan.run_dir.report}")
        if outcome.uploaded:
            _line(console, f"  uploaded   {outcome.uploaded}")
        for problem in outcome.problems:
            _line(console, f"  problem    {problem}")
    if outcome.exit_code != DONE:
        _line(console, f"exit {outcome.exit_code}")


def _show_failure(console: Console, failure: "Failure", plan: LaunchPlan) -> None:
    report, attempt = failure.report, plan.attempt_dir
    others = {0: "", 1: "; the other rank was stopped because of it"}
    rest = others.get(failure.stopped, f"; the {failure.stopped} other ranks were stopped because of it")
    where = f", while {report.stage}" if report.stage else ""
    if report.traceback:
        _line(console, f"  {failure.who()} failed{where}{rest}")
        expected = report.error_class.endswith("Error") and report.exit_code != 64
        shown = report.message if expected else report.traceback.rstrip()
        _line(console, "    " + shown.replace("\n", "\n    "))
    else:
        _line(console, f"  {failure.who()} {report.message}{where}{rest}")
        if failure.log_tail:
            _line(console, "    " + failure.log_tail.replace("\n", "\n    "))
    if report.exit_code == OUT_OF_MEMORY:
        smaller = max(1, plan.batch.micro_batch // 2)
        same = f"--set training.batch_size={smaller} --set training.global_batch_size={plan.batch.global_batch}"
        _line(console, f"  next       lft launch {plan.run_dir.settings} {same}")
    _line(console, f"  log        {attempt.log(failure.report.rank)}")


def _show_report(console: Console, report: dict[str, Any]) -> None:
    training, benchmark = report["training"], report["benchmark"]
    if training:
        peaks = training["peak_memory_bytes_by_rank"]
        _line(
            console,
            f"  trained    {training['steps']} steps in {_clock(training['seconds'])}, "
            f"{training['tokens_per_second']:,.0f} tokens/s over {counted(len(peaks), 'rank')}, "
            f"peak memory {max(peaks) / 2**30:.1f} GiB a rank, "
            f"{training['trainable_parameters']:,} of {training['parameters']:,} parameters",
        )
    if benchmark:
        console.print(_scores(benchmark))
        console.print(_samples(benchmark["samples"]))


def _scores(benchmark: dict[str, Any]) -> Table:
    table = Table(
        "", "base", "tuned", "difference", "95 % interval", "", title=f"{benchmark['prompts']} held-out prompts"
    )
    for name, title in METRICS.items():
        change = benchmark["difference"][name]
        table.add_row(
            title,
            f"{benchmark['base'][name]:.3f}",
            f"{benchmark['tuned'][name]:.3f}",
            f"{change['mean']:+.3f}",
            f"{change['low']:+.3f} to {change['high']:+.3f}",
            _verdict(name, change),
        )
    return table


def _verdict(name: str, change: dict[str, Any]) -> str:
    if not change["significant"]:
        return "no significant change"
    return "better" if (change["mean"] < 0) == (name == "loss") else "worse"


def _samples(samples: list[dict[str, str]]) -> Table:
    table = Table("prompt", "expected", "base", "tuned", title="sample answers", show_lines=True)
    for sample in samples:
        table.add_row(*(escape(sample[key]) for key in ("prompt", "reference", "base", "tuned")))
    return table


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
