"""lft benchmark: compare base and tuned model, of a finished run or of an adapter from anywhere."""

from pathlib import Path
from typing import Any

import click

from lft.cli.options import given_flags
from lft.cli.present import RunDisplay, show_outcome
from lft.cli.run_argument import run_argument
from lft.cli.to_benchmark import benchmark_elsewhere, benchmark_of_run
from lft.core.stop_signals import early_stop
from lft.core.words import counted
from lft.launch.agent import Agent
from lft.plan.launch_plan import LaunchPlan


@click.command("benchmark")
@run_argument("adapter_dir", metavar="[OUTPUT_DIR|ADAPTER_DIR]")
@click.option("--dataset", metavar="SOURCE", help="Other rows than those the run held out: file, folder, Hub data set.")
@click.option("--model", metavar="NAME", help="Base model; by default the one the adapter names.")
@click.option(
    "--output-dir", metavar="DIR", help="Where the report goes with --dataset; by default ADAPTER_DIR-benchmark."
)
@click.option("--num-prompts", metavar="N", help="Prompts to answer, at most.")
@click.option("--gpus", metavar="N|auto", help="GPUs to use; 0 answers on the CPU.")
@click.option("--cpu-procs", metavar="N|auto", help="Ranks on the CPU.")
@click.option("--precision", metavar="auto|fp32|fp16|bf16", help="Number type of the base model, with --dataset.")
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Any setting of the benchmark.")
def command(adapter_dir: Path, sets: tuple[str, ...], **flags: Any) -> int:
    """Compare base and tuned model of the finished run in OUTPUT_DIR again, and write its report and card.

    With --dataset, of any LoRA adapter: its folder is only read, the report is written beside it.

    \b
    lft benchmark runs/support --num-prompts 500
    lft benchmark ./some-adapter --dataset rows.jsonl --model org/base
    """
    given = given_flags(flags)
    elsewhere = flags["dataset"] is not None
    plan = benchmark_elsewhere(adapter_dir, given, sets) if elsewhere else benchmark_of_run(adapter_dir, given, sets)
    _say(plan)
    with RunDisplay() as display:
        agent = Agent(plan, display.observe)
        with agent.stop.listening():
            outcome = agent.benchmark()
            early_stop.retire()
    show_outcome(outcome, plan)
    return outcome.exit_code


def _say(plan: LaunchPlan) -> None:
    """Where it happens, and why there."""
    answering = plan.answering
    assert answering is not None
    ranks = f"{counted(answering.ranks_per_node, 'rank')} on {plan.topology.device}"
    click.echo(f"  ranks      {ranks}" + (f"   {answering.reason}" if answering.reason else ""))
    for notice in filter(None, (*plan.topology.notices, answering.notice)):
        click.echo(f"  note       {notice}")
