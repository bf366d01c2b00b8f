"""From facts to what people see: the plan, the live progress, the end of a run. Uses Rich, as screen.py does."""

import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from lft.cli.lines import hanging_from
from lft.cli.results import sample_lines, score_lines
from lft.cli.screen import is_live, lasting_console, plain_console, show_choice, show_line
from lft.cli.verbosity import verbosity
from lft.core.errors import DONE, NEXT, TRAINING
from lft.core.events import Event
from lft.core.run_dir import RunDir
from lft.core.throughput import Speed, speed
from lft.core.words import clock, counted, rank_names
from lft.doctor.finding import Finding
from lft.launch.agent import LAUNCHER
from lft.launch.logs import LogTail
from lft.launch.outcome import Failure, Outcome
from lft.plan.commands import command_line, other_launchers
from lft.plan.launch_plan import LaunchPlan

SECONDS_BETWEEN_PLAIN_LINES = 10.0
LAST_CALLS = 3
WIDE_ENOUGH_FOR_A_BAR = 110
"""Columns; on narrower terminals the figures need the room."""
SHOWN_SAMPLES = 3


def show_plan(plan: LaunchPlan) -> None:
    """One line a choice, its reason beside it."""
    console = plain_console()
    if verbosity() != "quiet":
        heading = f"Plan for {plan.settings.output_dir}, attempt {plan.attempt}: {plan.settings.model.name}"
        show_line(console, heading, whole=True)
        for choice in plan.choices:
            show_choice(console, choice.name, choice.value, choice.reason)
    for notice in plan.notices:
        show_line(console, f"  note       {notice}")


def show_commands(plan: LaunchPlan) -> None:
    """How to start the ranks by hand, each command on one line, to be copied."""
    console = plain_console()
    others = other_launchers(plan)
    on_nodes = " on each node" if plan.topology.nodes > 1 else ""
    part = f"   [dim]one rank; lft starts {plan.topology.ranks_per_node}{on_nodes}[/dim]" if others else ""
    console.print(f"  [bold]command[/bold]    {escape(command_line(plan))}{part}", soft_wrap=True)
    for command in others:
        console.print(f"  [bold]or all[/bold]     {escape(command)}", soft_wrap=True)
    output_dir = shlex.quote(str(plan.settings.output_dir))
    numbers = "; NODE is 0 on the first node" if plan.topology.nodes > 1 else ""
    show_line(
        console,
        f"  note       commands need the plan's files: lft plan ... --write {output_dir}{numbers}",
    )


class RunDisplay:
    """The live progress of a run: one moving line on a terminal, plain lines anywhere else.

    It shows `rank`, the first of this node; with --verbose also what that rank prints, found in `run_dir`.
    """

    def __init__(self, rank: int = 0, run_dir: RunDir | None = None) -> None:
        self.console = lasting_console()
        self._is_live = is_live(self.console) and verbosity() != "quiet"
        self._shown = f"rank-{rank}"
        self._progress = Progress(
            TextColumn("  {task.description}"),
            *([BarColumn(bar_width=24)] if self.console.width >= WIDE_ENOUGH_FOR_A_BAR else []),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            transient=True,
            disable=not self._is_live,
        )
        self._task: TaskID | None = None
        self._facts: dict[str, Any] = {}
        self._stage = ""
        self._said = time.monotonic()
        self._first: Event | None = None
        """The first step of this stage that was told: a resumed run begins in the middle."""
        self._warnings: dict[str, set[int]] = {}
        self._warned: set[str] = set()
        self._rank, self._run_dir = rank, run_dir if verbosity() == "verbose" else None
        self._log: LogTail | None = None

    def __enter__(self) -> "RunDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell_warnings()
        self._show_log(to_the_end=True)
        self._progress.stop()

    def observe(self, event: Event) -> None:
        """Show one event of the rank shown; other ranks are heard when they warn, each warning once, and when they fail."""
        show: dict[str, Callable[[Event], None]] = {
            "stage": self._show_stage,
            "notice": lambda event: show_line(self.console, f"  {event.data['line']}"),
            "total": lambda event: self._facts.update(event.data),
            "log": lambda event: self._facts.update(event.data),
            "step": self._show_step,
            "saved": lambda event: show_line(self.console, f"  saved      {_saved(event.data)}"),
        }
        self._show_log()
        if event.kind == "warning":
            self._warnings.setdefault(event.data["line"], set()).add(int(event.writer.removeprefix("rank-")))
        elif event.writer in (self._shown, LAUNCHER) and event.kind in show and verbosity() != "quiet":
            self._tell_warnings()
            show[event.kind](event)

    def _tell_warnings(self) -> None:
        """One line for each new warning, with the ranks that have given it so far."""
        for line in self._warnings.keys() - self._warned:
            show_line(self.console, f"  warning    {rank_names(self._warnings[line])}: {line}")
        self._warned |= self._warnings.keys()

    def _show_log(self, *, to_the_end: bool = False) -> None:
        """What the rank has printed since, in the newest attempt."""
        attempts = self._run_dir.attempts() if self._run_dir is not None else []
        if not attempts:
            return
        path = attempts[-1].log(self._rank)
        if path.exists() and (self._log is None or self._log.path != path):
            self._log = LogTail(path)
        while self._log is not None and (new := self._log.new_lines(to_the_end=to_the_end)):
            for line in new:
                show_line(self.console, f"  rank {self._rank} | {line}", whole=True)

    def _show_stage(self, event: Event) -> None:
        self._end_bar()
        self._stage, self._facts, self._first = event.data["name"], {}, None
        show_line(self.console, f"  stage      {self._stage}")

    def _show_step(self, event: Event) -> None:
        step, total = event.data["step"], event.data["total"]
        line = f"{self._stage} step {step}/{total}"
        facts = self._describe(event)
        if self._is_live:
            if self._task is None:
                self._task = self._progress.add_task(line, total=total, facts=facts)
            self._progress.update(self._task, completed=step, description=line, facts=facts)
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_PLAIN_LINES or step == total:
            self._said = time.monotonic()
            show_line(self.console, f"  {line}  {facts}")

    def _describe(self, event: Event) -> str:
        """Loss, speed, memory and time left, as far as they are known."""
        self._first = self._first or event
        steps, seconds = event.data["step"] - self._first.data["step"], event.time - self._first.time
        parts = []
        if "loss" in self._facts:
            parts.append(f"loss {self._facts['loss']:.3f}")
        if steps > 0 and seconds > 0:
            parts.append(speed(event.data, self._first.data, seconds, self._facts.get("peak_flops")).describe())
            if "memory_bytes" in event.data:
                parts.append(f"mem {event.data['memory_bytes'] / 1e9:.1f} GB")
            parts.append(f"eta {clock(seconds / steps * (event.data['total'] - event.data['step']))}")
        return "  ".join(filter(None, parts))

    def _end_bar(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None


def show_findings(findings: Iterable[Finding], summary: str) -> None:
    """A line for each finding, its level first, and what to type below it."""
    console = plain_console()
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    for finding in findings:
        if finding.level == "ok" and verbosity() == "quiet":
            continue
        head = f"  {finding.level:<5} {finding.name:<12} "
        width = console.width if is_live(console) else sys.maxsize
        first, *more = hanging_from(head + finding.text, len(head), width)
        line = Text(first)
        line.stylize(colours[finding.level], 2, 2 + len(finding.level))
        console.print(line, soft_wrap=True)
        for part in more:
            console.print(part, markup=False, soft_wrap=True)
        if finding.fix:
            fix = hanging_from(f"{'fix':>{len(head) - 1}} {finding.fix}", len(head), width)
            console.print(
                "\n".join(fix), markup=False, soft_wrap=True, style="dim" if finding.level == "ok" else "bold"
            )
    show_line(console, f"  {summary}")


def show_sample(place: str, row: Iterable[tuple[str, bool]]) -> None:
    """A row's text in pieces; trained ones are green, or stand in {+ +} where there are no colours."""
    console = plain_console()
    has_colours = console.color_system is not None
    show_line(console, f"  {place}" + ("" if has_colours else "   trained: {+ +}"))
    shown = Text()
    for text, is_trained in row:
        if has_colours:
            shown.append(text, style="green" if is_trained else "dim")
        else:
            shown.append(f"{{+{text}+}}" if is_trained else text)
    console.print(shown, soft_wrap=True)


def show_outcome(outcome: Outcome, plan: LaunchPlan) -> None:
    """The last lines: what happened, where, why, and what to type next."""
    console = lasting_console()
    output_dir = plan.settings.output_dir
    if outcome.failure is not None:
        _show_failure(console, outcome, outcome.failure, plan)
    elif outcome.exit_code != DONE:
        show_line(console, f"  stopped    {outcome.stopped}; in {output_dir}")
        if outcome.took:
            show_line(console, f"  ended      {outcome.took}")
        again = shlex.join(["lft", "resume", str(output_dir)])
        show_line(console, f"  next       {outcome.next_step or again}")
    elif outcome.stopped:
        show_line(console, f"  done       {outcome.stopped}")
    elif outcome.report is not None:
        _show_report(console, outcome.report)
        show_line(console, f"  adapter    {output_dir}")
        show_line(console, f"  report     {plan.run_dir.page}")
        if outcome.uploaded:
            show_line(console, f"  uploaded   {outcome.uploaded}")
    for problem in outcome.all_problems:
        show_line(console, f"  problem    {problem}")
    if outcome.exit_code != DONE:
        show_line(console, f"exit {outcome.exit_code}")


def _show_failure(console: Console, outcome: Outcome, failure: Failure, plan: LaunchPlan) -> None:
    report, attempt = failure.report, plan.attempt_dir
    others = {0: "", 1: "; the other rank was stopped because of it"}
    rest = others.get(failure.stopped, f"; the {failure.stopped} other ranks were stopped because of it")
    where = f" on {report.node}" if report.node and plan.topology.nodes > 1 else ""
    where += f" at step {report.step + 1}" if report.step is not None else ""
    where += f", while {report.stage}" if report.stage else ""
    if report.error_class:
        show_line(console, f"  {failure.who()} failed{where}{rest}")
        expected = report.error_class.endswith("Error") and report.exit_code != TRAINING
        shown = report.message.partition(NEXT)[0] if expected and outcome.next_step else report.message
        shown = shown if expected and verbosity() != "verbose" else brief(report.traceback)
    else:
        comma = "," if where else ""
        show_line(console, f"  {failure.who()}{where}{comma} {report.message}{rest}")
        shown = brief(report.traceback) if report.traceback else failure.log_tail
    if shown:
        show_line(console, "    " + shown.replace("\n", "\n    "), whole=True)
    if report.is_victim and plan.topology.nodes > 1:
        show_line(console, "    it blames another rank, and none of this node's: see the other nodes' last lines")
    if outcome.next_step:
        show_line(console, f"  next       {outcome.next_step}")
    show_line(console, f"  log        {attempt.log(failure.report.rank)}")


def brief(traceback: str) -> str:
    """The calls nearest to an error, first or last, without the libraries' way there and without markers."""
    if verbosity() == "verbose":
        return traceback.rstrip()
    lines = [line for line in traceback.rstrip().splitlines() if set(line.strip()) - set("^~")]
    calls = [index for index, line in enumerate(lines) if line.startswith("  File ")]
    if len(calls) <= LAST_CALLS:
        return "\n".join(lines)
    left_out = f"... {len(calls) - LAST_CALLS} calls"
    if lines[0].startswith("most recent call first"):
        return "\n".join([*lines[: calls[LAST_CALLS]], left_out])
    return "\n".join([left_out, *lines[calls[-LAST_CALLS] :]])


def show_report(report: dict[str, Any]) -> None:
    """What a run measured, as at its end."""
    _show_report(lasting_console(), report)


def show_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows of text below their heads."""
    table = Table(*map(escape, heads), box=None, padding=(0, 0, 0, 2), header_style="")
    for row in rows:
        table.add_row(*map(escape, row))
    lasting_console().print(table)


def _show_report(console: Console, report: dict[str, Any]) -> None:
    training, benchmark = report["training"], report["benchmark"]
    if training:
        peaks, predicted = training["peak_memory_bytes_by_rank"], training["predicted_memory_bytes"]
        foreseen = f" ({predicted / 1e9:.1f} predicted)" if predicted else ""
        facts = [
            f"{training['steps']} steps in {clock(training['seconds'])} on {counted(len(peaks), 'rank')}",
            Speed.model_validate(training, extra="ignore").describe(),
            f"peak memory {max(peaks) / 1e9:.1f} GB a rank{foreseen}",
            f"{training['trainable_parameters']:,} of {training['parameters']:,} parameters",
        ]
        show_line(console, f"  trained    {', '.join(filter(None, facts))}")
    if benchmark:
        for line in [*score_lines(benchmark, console.width), *sample_lines(benchmark["samples"][:SHOWN_SAMPLES])]:
            show_line(console, line)


def _saved(data: dict[str, Any]) -> str:
    """`checkpoint-8 in 0.4 s`."""
    return f"checkpoint-{data['step']}" + (f" in {data['seconds']:.1f} s" if "seconds" in data else "")
