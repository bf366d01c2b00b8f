"""lft doctor: check, in seconds, what a run will need."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from lft.cli.doctor_slurm import examine_allocation
from lft.cli.options import allocation_options, settings_from
from lft.cli.run_argument import DEFAULT_FILE
from lft.cli.verb import option
from lft.cli.version import VERSION
from lft.core.errors import DONE, PREFLIGHT, SettingsError
from lft.core.settings import RunSettings
from lft.core.words import counted
from lft.doctor.facts import Facts
from lft.doctor.finding import Finding
from lft.doctor.gather import gather
from lft.doctor.judge import judge

ALLOCATION_ONLY = ("gpus", "nodes", "time", "partition", "account")


@click.command("doctor")
@option("This machine", "--offline", is_flag=True, help="Do not ask the Hub.")
@option("This machine", "--json", "as_json", is_flag=True, help="Findings and facts, as one JSON document.")
@option("An allocation", "--slurm", is_flag=True, help="Check the nodes of an allocation instead.")
@allocation_options
def command(
    run_file: Path | None, sets: tuple[str, ...], offline: bool, as_json: bool, slurm: bool, **flags: Any
) -> int:
    """Check what a run will need: software, GPUs, memory, folders, Hub, SLURM; exits with 3 where runs would fail.

    With --slurm: the nodes of an allocation, of this shape or the one this shell is in; names the node at fault.

    \b
    lft doctor
    lft doctor --slurm --nodes 2 --gpus 8 --partition gpu
    """
    if slurm and (offline or as_json):
        raise click.UsageError("--slurm goes without --offline and --json")
    given = [name for name in ALLOCATION_ONLY if flags[name] is not None]
    if given and not slurm:
        raise SettingsError([f"--{name}  is for an allocation; add --slurm" for name in given])
    settings = _settings(run_file, sets, flags)
    if slurm:
        return examine_allocation(settings)
    return _examine_here(settings.output_dir, offline=offline, as_json=as_json)


def _examine_here(output_dir: Path, *, offline: bool, as_json: bool) -> int:
    """Gather, judge, show."""
    from lft.cli.present import show_findings  # with Rich, which --slurm need not wait for
    from lft.cli.screen import Waiting

    start = time.monotonic()
    with Waiting("looking at Python and torch, GPUs, memory, folders, the Hub, SLURM", shown=not as_json):
        facts = gather(output_dir, offline=offline)
    findings = judge(facts)
    failed = sum(finding.level == "fail" for finding in findings)
    if as_json:
        click.echo(json.dumps(_document(facts, findings), indent=1))
    else:
        show_findings(findings, _summary(findings, time.monotonic() - start))
    return PREFLIGHT if failed else DONE


def _summary(findings: list[Finding], seconds: float) -> str:
    """`1 failure, 2 warnings, 14 checks in 3.1 s`."""
    levels = [finding.level for finding in findings]
    parts = [counted(levels.count("fail"), "failure")] if "fail" in levels else []
    parts += [counted(levels.count("warn"), "warning")] if "warn" in levels else []
    return f"{', '.join(parts) or 'nothing is wrong'}; {counted(len(findings), 'check')} in {seconds:.1f} s"


def _document(facts: Facts, findings: list[Finding]) -> dict[str, Any]:
    return {
        "lft": VERSION,
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "findings": [finding.model_dump() for finding in findings],
        "facts": facts.model_dump(mode="json"),
    }


def _settings(run_file: Path | None, sets: tuple[str, ...], flags: dict[str, Any]) -> RunSettings:
    """Those of the run file, if there is one; the folder and the shape are enough."""
    if run_file is None and not Path(DEFAULT_FILE).exists():
        flags = {"model": "no/model", "dataset": "no/data"} | flags
    return settings_from(run_file, False, sets, flags)
