"""Events: written line by line by some processes, followed by another."""

import json
import subprocess
import sys
from pathlib import Path

from lft.core.events import Event, EventTail, EventWriter


def test_a_tail_gives_each_event_once_in_the_order_of_time(tmp_path: Path) -> None:
    tail = EventTail(tmp_path)
    assert tail.new_events() == []
    second, first = EventWriter(tmp_path / "rank-0.jsonl"), EventWriter(tmp_path / "rank-1.jsonl")
    first.write("stage", name="reading")
    second.write("step", step=1, total=9)
    first.write("done")
    found = tail.new_events()
    assert [(event.writer, event.kind, event.data) for event in found] == [
        ("rank-1", "stage", {"name": "reading"}),
        ("rank-0", "step", {"step": 1, "total": 9}),
        ("rank-1", "done", {}),
    ]
    assert tail.new_events() == []
    second.write("log", loss=0.5)
    assert [event.data for event in tail.new_events()] == [{"loss": 0.5}]
    first.close()
    second.close()


def test_a_tail_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path, line = tmp_path / "rank-0.jsonl", json.dumps({"writer": "rank-0", "kind": "notice", "data": {"line": "ü"}})
    tail = EventTail(tmp_path)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n" + line[:-9])
        stream.flush()
        assert len(tail.new_events()) == 1
        stream.write(line[-9:])
        stream.flush()
        assert tail.new_events() == []
        stream.write("\n")
    assert tail.new_events() == [Event("rank-0", "notice", {"line": "ü"})]


def test_a_tail_leaves_out_what_earlier_attempts_wrote_even_half_a_line(tmp_path: Path) -> None:
    (tmp_path / "rank-0.jsonl").write_text(
        '{"writer": "rank-0", "kind": "done", "data": {}, "time": 1}\n{"writer": "ran'
    )
    tail = EventTail(tmp_path)
    writer = EventWriter(tmp_path / "rank-0.jsonl")
    writer.write("done", job="train")
    writer.close()
    assert [event.data for event in tail.new_events()] == [{"job": "train"}]


def test_a_killed_writer_has_left_every_event_it_wrote(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from lft.core.events import EventWriter
writer = EventWriter(Path({str(tmp_path / "rank-0.jsonl")!r}))
for step in range(100):
    writer.write("step", step=step)
os.kill(os.getpid(), signal.SIGKILL)
"""
    tail = EventTail(tmp_path)
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert [event.data["step"] for event in tail.new_events()] == list(range(100))
