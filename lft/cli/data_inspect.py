"""lft data inspect: what of the data would be trained, in numbers and in colour."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lft.cli.lines import echo_lines
from lft.cli.options import data_options, settings_from
from lft.cli.preparing import prepare_here, tokenizer_of
from lft.core.words import counted, percent
from lft.data.audit import HELD_WHOLE, Audit, audit_rows, findings, refuse_hopeless
from lft.data.prepared import Prepared
from lft.data.sample import Decode, Piece, pieces, spread

LEVELS = {"warn": "warning", "note": "note"}


@click.command("inspect")
@data_options
@click.option("--rows", "shown", metavar="K", type=click.IntRange(min=0), default=2, help="Rows to show; default 2.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON document.")
def command(run_file: Path | None, demo: bool, sets: tuple[str, ...], shown: int, as_json: bool, **flags: Any) -> None:
    """Show what of the data would be trained, and what about it is worrying; prepares it where that was not done.

    Exits with 3 for data that would train nothing.

    \b
    lft data inspect run.yaml --rows 5
    lft data inspect --model ./model --dataset rows.jsonl --json
    """
    settings = settings_from(run_file, demo, sets, flags)
    prepared = prepare_here(settings)
    tokenizer, _ = tokenizer_of(settings.model)()
    place = prepared.source.place
    audit = audit_rows(
        prepared.training,
        prepared.held_out,
        prepared.manifest,
        place,
        pad_is_end=prepared.manifest.pad_is_end,
        is_capped=prepared.manifest.max_length < settings.data.max_length,
    )
    samples = list(sample_rows(prepared, shown, lambda ids: str(tokenizer.decode(ids))))
    if as_json:
        click.echo(json.dumps(document(prepared, audit, samples), indent=1))
    else:
        from lft.cli.present import show_sample  # with Rich, which --json need not wait for

        echo_lines([*(f"  {line}" for line in prepared.manifest.words), *audit_table(audit)])
        for where, row in samples:
            show_sample(where, row)
    refuse_hopeless(audit)


def sample_rows(prepared: Prepared, shown: int, decode: Decode) -> Iterator[tuple[str, list[Piece]]]:
    """Place and pieces of some rows to train on."""
    rows = prepared.training
    file, where = rows.column("file"), rows.column("where")
    for number in spread(len(rows), shown):
        yield prepared.source.place(int(file[number]), int(where[number])), pieces(rows[number], decode)


def audit_table(audit: Audit) -> list[str]:
    """A line for each figure, then one for each warning and note."""
    rows = audit.rows
    figures: list[tuple[str, str, str]] = [
        ("rows to train on", f"{rows:,}", ""),
        ("rows held out", f"{audit.held_out:,}", ""),
        ("tokens", f"{audit.tokens:,}", f"{audit.tokens / rows:.0f} a row" if rows else ""),
        ("tokens trained", f"{audit.trained:,}", percent(audit.trained, audit.tokens)),
        ("rows without any", f"{audit.masked:,}", percent(audit.masked, rows + audit.masked)),
        ("rows cut", f"{audit.cut:,}", percent(audit.cut, rows)),
        (
            "end not trained",
            f"{audit.whole_without_end:,}",
            f"{percent(audit.whole_without_end, rows)}, of rows not cut",
        ),
        ("begin doubled", f"{audit.begin_doubled:,}", percent(audit.begin_doubled, rows)),
        ("repeated rows", f"{audit.duplicates:,}", percent(audit.duplicates, rows)),
        ("rows on both sides", f"{audit.leaked:,}", ""),
        (
            "prompts on both",
            f"{audit.shared_prompts:,}",
            f"{percent(audit.shared_prompts, audit.held_out)} of held out",
        ),
        ("left out", f"{audit.bad + audit.empty:,}", f"{counted(audit.bad, 'bad row')}, {audit.empty:,} empty"),
        (f"{HELD_WHOLE} % fit into", f"{audit.length_for_most:,}", "tokens"),
        *(("longest row", f"{row.tokens:,}", f"tokens, {row.place}") for row in audit.longest),
    ]
    wide = max(len(number) for _, number, _ in figures)
    lines = [f"  {name:<20}{number:>{wide}}  {more}".rstrip() for name, number, more in figures]
    for level, text, next_step in findings(audit):
        if level in LEVELS:
            lines += [f"  {LEVELS[level]:<10} {text}", *([f"             {next_step}"] if next_step else [])]
    return lines


def document(prepared: Prepared, audit: Audit, samples: list[tuple[str, list[Piece]]]) -> dict[str, Any]:
    """All of it, for programs."""
    return {
        "cache": str(prepared.folder),
        "rows": prepared.manifest.rows,
        "kept": prepared.manifest.kept,
        "written": list(prepared.manifest.words),
        "audit": audit.to_json(),
        "findings": [finding._asdict() for finding in findings(audit)],
        "samples": [
            {"place": where, "pieces": [{"text": text, "trained": trained} for text, trained in row]}
            for where, row in samples
        ],
    }
