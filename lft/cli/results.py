"""The scores and sample answers of a benchmark, as lines. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lft.core.words import counted
from lft.publish.metrics import metric, shown_metrics, verdict

HEAD = ("", "base", "tuned", "change", "95 % interval", "")


def score_lines(benchmark: dict[str, Any], width: int) -> Iterator[str]:
    """A table, or where it does not fit into `width` columns, a sentence for each metric."""
    yield f"  results    {counted(benchmark['prompts'], 'held-out prompt')}"
    rows = [_row(benchmark, name) for name in shown_metrics(benchmark)]
    widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(len(HEAD))]
    if 4 + sum(widths) + 2 * (len(HEAD) - 1) <= width:
        yield from (_told(row, widths) for row in [HEAD, *rows])
        return
    for label, base, tuned, difference, interval, judged in rows:
        yield f"    {label}  {base} -> {tuned} ({difference}, 95 % interval {interval}): {judged}"


def sample_lines(samples: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Each prompt with the three answers to it, below each other."""
    for number, sample in enumerate(samples):
        yield from ["  sample answers"] if number == 0 else [""]
        for name, key in (("prompt", "prompt"), ("expected", "reference"), ("base", "base"), ("tuned", "tuned")):
            yield f"    {name:<10} {' '.join(sample[key].split())}"


def _row(benchmark: Mapping[str, Any], name: str) -> tuple[str, ...]:
    change = benchmark["difference"][name]
    return (
        metric(name).label,
        f"{benchmark['base'][name]:.3f}",
        f"{benchmark['tuned'][name]:.3f}",
        f"{change['mean']:+.3f}",
        f"{change['low']:+.3f} to {change['high']:+.3f}",
        verdict(name, change),
    )


def _told(row: Sequence[str], widths: Sequence[int]) -> str:
    """Numbers to the right, words to the left."""
    left = (0, len(HEAD) - 1)
    cells = [
        f"{cell:<{wide}}" if column in left else f"{cell:>{wide}}"
        for column, (cell, wide) in enumerate(zip(row, widths, strict=True))
    ]
    return f"    {'  '.join(cells)}".rstrip()
