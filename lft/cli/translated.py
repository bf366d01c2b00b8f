"""What became of the keys of another project's configuration, for people: each key in one of three lists, by line."""

from collections.abc import Iterator, Sequence

from lft.core.words import counted, ranges
from lft.foreign.draft import Draft, Note

MOST_KEYS = 6
"""Named on one line; the same reason for more of them makes another line."""


def told_translation(draft: Draft) -> Iterator[str]:
    """Headings, and a line for each key, or for those with the same reason."""
    counts = f"{len(draft.translated)} translated, {len(draft.needless)} not needed, {len(draft.missing)} without counterpart"
    yield f"{draft.file.path} is {_whose(draft.project)}: {counts}"
    if draft.translated:
        yield "translated"
        yield from _aligned([(note.place, f"{note.key} -> {note.text}") for note in draft.translated])
    if draft.needless:
        yield "not needed"
        yield from _aligned(list(_grouped(draft.needless)))
    if draft.missing:
        yield "no counterpart, and what is different without"
        yield from _aligned(list(_grouped(draft.missing)))
    if draft.defaults:
        yield f"left to {draft.project}'s defaults, where lft has others"
        yield from (f"  {line}" for line in draft.defaults)


def _whose(project: str) -> str:
    keys = {"accelerate": "where and how ranks run", "DeepSpeed": "how ranks share the work"}
    return f"a configuration of {project}" + (
        f", {keys[project]}; model and data are not in it" if project in keys else ""
    )


def _grouped(notes: Sequence[Note]) -> Iterator[tuple[str, str]]:
    """Keys of one file with the same reason on one line."""
    groups: dict[tuple[str, str], list[Note]] = {}
    for note in notes:
        groups.setdefault((note.place.rpartition(":")[0], note.text), []).append(note)
    for (file, text), same in groups.items():
        for start in range(0, len(same), MOST_KEYS):
            part = same[start : start + MOST_KEYS]
            lines = ranges(int(note.place.rpartition(":")[2]) for note in part).replace(" ", "")
            yield f"{file}:{lines}", f"{', '.join(dict.fromkeys(note.key for note in part))}: {text}"


def _aligned(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(place) for place, _ in lines)
    return (f"  {place:<{width}}  {text}" for place, text in lines)


def told_count(draft: Draft) -> str:
    """For the first lines of the run file."""
    missing = len(draft.missing)
    return f"Translated from {draft.file.path.name}; {counted(missing, 'key')} had no counterpart (lft init --from says which)."
