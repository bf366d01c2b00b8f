"""lft report: the page of a run, or of several side by side."""

import webbrowser
from pathlib import Path

import click

from lft.cli.run_argument import run_argument
from lft.core.run_dir import RunDir
from lft.launch.follow import existing_run
from lft.launch.reporting import read_facts, write_page

COMPARISON = Path("comparison.html")
MOST_COLUMNS = 4
"""Runs that stand beside each other in a terminal, with the settings that differ; more stand below each other."""


@click.command("report")
@run_argument("output_dirs", nargs=-1, metavar="[OUTPUT_DIR]...")
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Where to write the page.")
def command(output_dirs: tuple[Path, ...], opens: bool, output: Path | None) -> None:
    """Sum up the run in OUTPUT_DIR and write its page, also while it goes on; of several runs, one page compares them.

    One run's page is run/report.html in its folder, that of several comparison.html here, unless --output says otherwise.

    \b
    lft report runs/support --open
    lft report runs/r8 runs/r16 runs/r32
    """
    runs = [existing_run(path) for path in dict.fromkeys(output_dirs)]
    page = _one(runs[0], output) if len(runs) == 1 else _several(runs, output or COMPARISON)
    click.echo(f"  page       {page}")
    if opens and not webbrowser.open(page.absolute().as_uri()):
        click.echo("  no browser could be started here; copy the page to where there is one")


def _one(run_dir: RunDir, output: Path | None) -> Path:
    from lft.cli.present import show_report
    from lft.publish.page import write_report_page
    from lft.publish.page_parts import key_figures

    facts = read_facts(run_dir)
    click.echo(f"  {facts.name}   attempt {facts.newest.number}: {facts.newest.words}")
    if facts.report["training"]:
        show_report(facts.report)
    else:
        click.echo("".join(f"  {each.label:<16} {each.value}  {each.note}\n" for each in key_figures(facts)), nl=False)
    if output is None:
        write_page(run_dir)
        return run_dir.page
    write_report_page(output, facts)
    return output


def _several(runs: list[RunDir], output: Path) -> Path:
    from lft.cli.present import show_table
    from lft.publish.comparison import compare
    from lft.publish.page import write_comparison_page

    compared = compare([read_facts(run) for run in runs])
    table = [compared.heads, *compared.results]
    if len(runs) <= MOST_COLUMNS:
        table = [*zip(*table, strict=True), *compared.differences]
    show_table(table[0], table[1:])
    if compared.caution:
        click.echo(f"  note       {compared.caution}")
    write_comparison_page(output, compared)
    return output
