"""The upload fault table: what was injected into a Hub on this machine, what `lft upload` said, and what arrived.

`python -m benchmarks.upload_faults` prints it as a Markdown table, in some 10 s; `python -m benchmarks.upload_faults WORD`
those whose name contains a word; with --json as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.publish.upload_faults import FAULTS, Played, as_json, play_all

MOST_TRIES_SHOWN = 3


def main(arguments: list[str]) -> None:
    """Print the rows."""
    words = [argument for argument in arguments if argument != "--json"]
    with tempfile.TemporaryDirectory() as folder:
        played = play_all(Path(folder), [fault for fault in FAULTS if all(word in fault.name for word in words)])
    if "--json" in arguments:
        print(json.dumps(as_json(played)))
        return
    print("| injected | the user reads | exit | arrived |\n|---|---|---|---|")
    for each in played:
        print(f"| {each.name} | {said(each)} | {each.exit_code} | {each.arrived} |")


def said(played: Played) -> str:
    """Its lines in one cell."""
    lines = [" ".join(line.split()) for line in played.said.splitlines()]
    tries = [line for line in lines if "trying again" in line]
    left_out = tries[1:-1] if len(tries) > MOST_TRIES_SHOWN else []
    shown = (
        ["..." if line == left_out[0] else line for line in lines if line not in left_out[1:]] if left_out else lines
    )
    return "<br>".join(shown).replace("|", "\\|")


if __name__ == "__main__":
    main(sys.argv[1:])
