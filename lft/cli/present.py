"""From facts to what people see: the plan, the live progress, the end of a run. The only module that uses Rich."""

import io
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, cast

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from lft.core.errors import DONE, NEXT, TRAINING
from lft.core.events import Event
from lft.core.throughput import Speed, speed
from lft.core.words import clock, counted, rank_names
from lft.launch.agent import LAUNCHER
from lft.launch.outcome import Failure, Outcome
from lft.plan.commands import command_line, other_launchers
from lft.plan.launch_plan import LaunchPlan
from lft.publish.metrics import metric, shown_metrics, verdict

SECONDS_BETWEEN_PLAIN_LINES = 10.0
LAST_CALLS = 3
SHOWN_SAMPLES = 3


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
    on_nodes = " on each node" if plan.topology.nodes > 1 else ""
    part = f"   [dim]one rank; lft starts {plan.topology.ranks_per_node}{on_nodes}[/dim]" if others else ""
    console.print(f"  [bold]command[/bold]    {escape(command_line(plan))}{part}", soft_wrap=True)
    for command in others:
        console.print(f"  [bold]or all[/bold]     {escape(command)}", soft_wrap=True)
    output_dir = shlex.quote(str(plan.settings.output_dir))
    numbers = "; NODE is 0 on the first node" if plan.topology.nodes > 1 else ""
    _line(
        console,
        f"  note       commands need the plan's files: lft plan ... --write {output_dir}{numbers}",
    )


class LastingOutput(io.TextIOBase):
    """Standard output that nobody has to read: a terminal that is closed, or a full disk, must not end a run."""

    def __init__(self) -> None:
        self._stream = sys.stdout  # that of now: while Rich shows progress, sys.stdout leads back to it

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what can be passed on."""
        with suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        """As standard output is."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As standard output has."""
        return self._stream.fileno()


def _lasting_console() -> Console:
    return Console(file=cast(IO[str], LastingOutput()), highlight=False, emoji=False)


class RunDisplay:
    """The live progress of a run: one moving line on a terminal, plain lines anywhere else.

    It shows `rank`, the first of this node.
    """

    def __init__(self, rank: int = 0) -> None:
        self.console = _lasting_console()
        self._shown = f"rank-{rank}"
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
        self._said = time.monotonic()
        self._first: Event | None = None
        """The first step of this stage that was told: a resumed run begins in the middle."""
        self._warnings: dict[str, set[int]] = {}
        self._warned: set[str] = set()

    def __enter__(self) -> "RunDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell_warnings()
        self._progress.stop()

    def observe(self, event: Event) -> None:
        """Show one event of the rank shown; other ranks are heard when they warn, each warning once, and when they fail."""
        show: dict[str, Callable[[Event], None]] = {
            "stage": self._show_stage,
            "notice": lambda event: _line(self.console, f"  {event.data['line']}"),
            "total": lambda event: self._facts.update(event.data),
            "log": lambda event: self._facts.update(event.data),
            "step": self._show_step,
            "saved": lambda event: _line(self.console, f"  saved      {_saved(event.data)}"),
        }
        if event.kind == "warning":
            self._warnings.setdefault(event.data["line"], set()).add(int(event.writer.removeprefix("rank-")))
        elif event.writer in (self._shown, LAUNCHER) and event.kind in show:
            self._tell_warnings()
            show[event.kind](event)

    def _tell_warnings(self) -> None:
        """One line for each new warning, with the ranks that have given it so far."""
        for line in self._warnings.keys() - self._warned:
            _line(self.console, f"  warning    {rank_names(self._warnings[line])}: {line}")
        self._warned |= self._warnings.keys()

    def _show_stage(self, event: Event) -> None:
        self._end_bar()
        self._stage, self._facts, self._first = event.data["name"], {}, None
        _line(self.console, f"  stage      {self._stage}")

    def _show_step(self, event: Event) -> None:
        step, total = event.data["step"], event.data["total"]
        line = f"{self._stage} step {step}/{total}"
        facts = self._describe(event)
        if self.console.is_terminal:
            if self._task is None:
                self._task = self._progress.add_task(line, total=total, facts=facts)
            self._progress.update(self._task, completed=step, description=line, facts=facts)
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_PLAIN_LINES or step == total:
            self._said = time.monotonic()
            _line(self.console, f"  {line}  {facts}")

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


class LiveLines:
    """Lines that replace each other in place on a terminal; anywhere else nothing is shown."""

    def __init__(self) -> None:
        console = Console(highlight=False, emoji=False)
        self.is_terminal = console.is_terminal
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> "LiveLines":
        if self.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, lines: list[str]) -> None:
        """Show these lines instead of those before."""
        if self.is_terminal:
            self._live.update(Text("\n".join(lines)), refresh=True)


def show_sample(place: str, row: Iterable[tuple[str, bool]]) -> None:
    """A row's text in pieces; trained ones are green, or stand in {+ +} where there are no colours."""
    console = Console(highlight=False, emoji=False)
    has_colours = console.color_system is not None
    _line(console, f"  {place}" + ("" if has_colours else "   trained: {+ +}"))
    shown = Text()
    for text, is_trained in row:
        if has_colours:
            shown.append(text, style="green" if is_trained else "dim")
        else:
            shown.append(f"{{+{text}+}}" if is_trained else text)
    console.print(shown, soft_wrap=True)


def show_outcome(outcome: Outcome, plan: LaunchPlan) -> None:
    """The last lines: what happened, where, why, and what to type next."""
    console = _lasting_console()
    output_dir = plan.settings.output_dir
    if outcome.failure is not None:
        _show_failure(console, outcome, outcome.failure, plan)
    elif outcome.exit_code != DONE:
        _line(console, f"  stopped    {outcome.stopped}; in {output_dir}")
        if outcome.took:
            _line(console, f"  ended      {outcome.took}")
        again = shlex.join(["lft", "resume", str(output_dir)])
        _line(console, f"  next       {outcome.next_step or again}")
    elif outcome.stopped:
        _line(console, f"  done       {outcome.stopped}")
    elif outcome.report is not None:
        _show_report(console, outcome.report)
        _line(console, f"  adapter    {output_dir}")
        _line(console, f"  report     {plan.run_dir.report}")
        if outcome.uploaded:
            _line(console, f"  uploaded   {outcome.uploaded}")
    for problem in outcome.problems:
        _line(console, f"  problem    {problem}")
    if outcome.exit_code != DONE:
        _line(console, f"exit {outcome.exit_code}")


def _show_failure(console: Console, outcome: Outcome, failure: Failure, plan: LaunchPlan) -> None:
    report, attempt = failure.report, plan.attempt_dir
    others = {0: "", 1: "; the other rank was stopped because of it"}
    rest = others.get(failure.stopped, f"; the {failure.stopped} other ranks were stopped because of it")
    where = f" on {report.node}" if report.node and plan.topology.nodes > 1 else ""
    where += f" at step {report.step + 1}" if report.step is not None else ""
    where += f", while {report.stage}" if report.stage else ""
    if report.error_class:
        _line(console, f"  {failure.who()} failed{where}{rest}")
        expected = report.error_class.endswith("Error") and report.exit_code != TRAINING
        shown = report.message.partition(NEXT)[0] if expected and outcome.next_step else report.message
        shown = shown if expected else brief(report.traceback)
    else:
        comma = "," if where else ""
        _line(console, f"  {failure.who()}{where}{comma} {report.message}{rest}")
        shown = brief(report.traceback) if report.traceback else failure.log_tail
    if shown:
        _line(console, "    " + shown.replace("\n", "\n    "))
    if report.is_victim and plan.topology.nodes > 1:
        _line(console, "    it blames another rank, and none of this node's: see the other nodes' last lines")
    if outcome.next_step:
        _line(console, f"  next       {outcome.next_step}")
    _line(console, f"  log        {attempt.log(failure.report.rank)}")


def brief(traceback: str) -> str:
    """The calls nearest to an error, first or last, without the libraries' way there and without markers."""
    lines = [line for line in traceback.rstrip().splitlines() if set(line.strip()) - set("^~")]
    calls = [index for index, line in enumerate(lines) if line.startswith("  File ")]
    if len(calls) <= LAST_CALLS:
        return "\n".join(lines)
    left_out = f"... {len(calls) - LAST_CALLS} calls"
    if lines[0].startswith("most recent call first"):
        return "\n".join([*lines[: calls[LAST_CALLS]], left_out])
    return "\n".join([left_out, *lines[calls[-LAST_CALLS] :]])


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
        _line(console, f"  trained    {', '.join(filter(None, facts))}")
    if benchmark:
        console.print(_scores(benchmark))
        console.print(_samples(benchmark["samples"][:SHOWN_SAMPLES]))


def _scores(benchmark: dict[str, Any]) -> Table:
    table = Table(
        "", "base", "tuned", "difference", "95 % interval", "", title=f"{benchmark['prompts']} held-out prompts"
    )
    for name in shown_metrics(benchmark):
        change = benchmark["difference"][name]
        table.add_row(
            metric(name).label,
            f"{benchmark['base'][name]:.3f}",
            f"{benchmark['tuned'][name]:.3f}",
            f"{change['mean']:+.3f}",
            f"{change['low']:+.3f} to {change['high']:+.3f}",
            verdict(name, change),
        )
    return table


def _samples(samples: list[dict[str, str]]) -> Table:
    table = Table("prompt", "expected", "base", "tuned", title="sample answers", show_lines=True)
    for sample in samples:
        table.add_row(*(escape(sample[key]) for key in ("prompt", "reference", "base", "tuned")))
    return table


def _saved(data: dict[str, Any]) -> str:
    """`checkpoint-8 in 0.4 s`."""
    return f"checkpoint-{data['step']}" + (f" in {data['seconds']:.1f} s" if "seconds" in data else "")


def _line(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
