"""The upload fault table: what was injected into a Hub on this machine, what `lft upload` said, and what arrived.

`python -m benchmarks.upload_faults` prints it as a Markdown table, in some 10 s; with --json as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

from tests.publish.upload_faults import Played, as_json, play_all


def main(arguments: list[str]) -> None:
    """Print all rows."""
    with tempfile.TemporaryDirectory() as folder:
        played = play_all(Path(folder))
    if arguments == ["--json"]:
        print(json.dumps(as_json(played)))
        return
    print("| injected | the user reads | exit | arrived |\n|---|---|---|---|")
    for each in played:
        print(f"| {each.name} | {said(each)} | {each.exit_code} | {each.arrived} |")


def said(played: Played) -> str:
    """Its lines in one cell."""
    lines = [" ".join(line.split()) for line in played.said.splitlines()]
    return "<br>".join(lines).replace("|", "\\|")


if __name__ == "__main__":
    main(sys.argv[1:])
