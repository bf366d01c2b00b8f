"""The verbs that work from the run directory alone: what they say about runs that go on, failed, stopped, vanished."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lft.cli.main import run
from lft.core.events import EventWriter
from lft.core.run_dir import RunDir
from lft.launch.follow import RunStatus
from tests.conftest import TinyModels, demo_lines, run_lft
from tests.runs import DEADLINE_SECONDS, beat, checkpoint, end, fail, launcher_at, new_attempt, wait_for

Captured = pytest.CaptureFixture[str]
COMMAND = [sys.executable, "-m", "lft.cli.main"]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder with its first attempt, named as a user would."""
    monkeypatch.chdir(tmp_path)
    new_attempt(Path("out"))
    return Path("out")


def training(out: Path, step: int = 20) -> None:
    """Rank 0's events: a step every half second until now, on the way to 100."""
    with pytest.MonkeyPatch.context() as patch:
        now = time.time()
        writer = EventWriter(RunDir(out).events / "rank-0.jsonl")
        writer.write("stage", name="training")
        writer.write("total", steps=100, peak_flops=1e12)
        for number in range(step - 10, step + 1):
            patch.setattr("lft.core.events.time.time", lambda number=number: now - (step - number) / 2)
            work = {"tokens": 50 * number, "trained_tokens": 10 * number, "places": 60 * number, "flops": 2e11 * number}
            writer.write("step", step=number, total=100, seconds=1.0, memory_bytes=1_370_000_000, **work)
        writer.write("log", loss=0.9712)
        writer.close()


def said(captured: Captured) -> list[str]:
    """What was printed, line by line; N for the seconds that pass while a test runs."""
    return re.sub(r"\d+ s ago", "N s ago", captured.readouterr().out).splitlines()


@pytest.mark.parametrize("verb", ["status", "logs", "why", "stop", "resume"])
@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_no_run_is_one_clear_error(
    verb: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    if there:
        Path("out").mkdir()
    assert run([verb, "out"]) == 2
    assert ("out holds no run" if there else "out is not a folder") in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["status", "logs", "why", "stop"])
def test_beside_a_run_file_its_folder_need_not_be_typed(verb: str, out: Path, capsys: Captured) -> None:
    Path("lft.yaml").write_text("model: {name: a/b}\ndata: {source: ./rows.jsonl}\noutput_dir: ./out\n")
    Path("rows.jsonl").write_text("")
    training(out)
    named = run([verb, "out"])
    words = said(capsys)
    assert run([verb]) == named
    told = capsys.readouterr()
    assert re.sub(r"\d+ s ago", "N s ago", told.out).splitlines() == words
    assert "run        out   the output_dir of lft.yaml" in told.err


@pytest.mark.parametrize("verb", ["status", "merge", "upload"])
def test_without_a_run_file_it_is_asked_for(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([verb]) == 2
    assert (
        f"OUTPUT_DIR is missing, and there is no ./lft.yaml that names one\n  next   lft {verb}"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("arguments", [["status"], ["logs"], ["why"], ["stop"]], ids=str)
def test_a_verb_that_only_reads_imports_neither_rich_nor_the_launcher_s_hub_client(
    arguments: list[str], out: Path
) -> None:
    RunDir(out).attempts()[0].log(0).write_text("hello\n")
    script = f"""
import json, sys
from lft.cli.main import run
code = run({[*arguments, "out"]})
print(json.dumps([code, sorted({{"rich", "torch", "huggingface_hub"}} & sys.modules.keys())]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_the_status_of_a_running_run_is_its_attempts_newest_first_and_what_to_type(out: Path, capsys: Captured) -> None:
    first = RunDir(out).attempts()[0]
    end(first, 75, stopped="stopped after step 11 of 100; checkpoint-11 is saved")
    new_attempt(out, resume_from=checkpoint(out, 11))
    checkpoint(out, 15)
    checkpoint(out, 20, complete=False)
    with launcher_at(out) as process:
        training(out)
        newest = RunDir(out).attempts()[1]
        beat(newest, 0, "training", 20)
        beat(newest, 1, "training", 4, age_seconds=45)
        assert run(["status", "out"]) == 0
    lines = said(capsys)
    assert lines == [
        f"  attempt 1, from checkpoint-11, running (pid {process.pid} on here), training step 20/100, loss 0.971, "
        "100 tok/s (20 trained, 17 % padding), MFU 40 %, mem 1.4 GB, eta 0:00:40",
        "    rank 1 is at training step 4/100, last heard N s ago",
        "  attempt 0 ended (exit 75, stopped by a signal, saved; to be continued): "
        "stopped after step 11 of 100; checkpoint-11 is saved, N s ago",
        "  checkpoints  checkpoint-15, saved N s ago, and 1 before it; not complete: checkpoint-20",
        "  next   lft logs out --follow     or: lft stop out",
    ]


def test_an_attempt_whose_launcher_was_killed_says_so_and_how_to_go_on(out: Path, capsys: Captured) -> None:
    beat(RunDir(out).attempts()[0], 0, "training", 12, age_seconds=200)
    for verb in ("status", "why"):
        assert run([verb, "out"]) == 0
        text = capsys.readouterr().out
        assert "attempt 0 the launcher (pid 4711 on gpu-a2) is gone without a word; its ranks died with it" in text
        assert "training step 12/100, last heard 3 min ago" in text
        assert "next   lft resume out" in text


@pytest.mark.parametrize(
    ("code", "facts", "expected"),
    [
        (0, {}, "attempt 0 done"),
        (0, {"uploaded": "https://hub/x"}, "attempt 0 done, uploaded to https://hub/x"),
        (0, {"problems": ["benchmark failed: x"]}, "attempt 0 done, but benchmark failed: x"),
        (130, {"stopped": "after step 3"}, "attempt 0 ended (exit 130, stopped by its user (Ctrl-C)): after step 3"),
        (143, {"stopped": "at once"}, "attempt 0 ended (exit 143, forced to end by SIGTERM): at once"),
        (9, {}, "attempt 0 ended (exit 9, the exit code of a rank that left no report)"),
    ],
)
def test_an_end_is_told_in_words(
    code: int, facts: dict[str, object], expected: str, out: Path, capsys: Captured
) -> None:
    end(RunDir(out).attempts()[0], code, **facts)
    assert run(["status", "out"]) == 0
    assert said(capsys)[0] == f"  {expected}, N s ago"


def test_the_status_as_json_is_one_document_with_every_rank_that_is_apart(out: Path, capsys: Captured) -> None:
    attempt = RunDir(out).attempts()[0]
    attempt.order("train").write_text('{"world_size": 40}')
    for rank in range(40):
        beat(attempt, rank, "training" if rank < 25 else f"odd {rank}")
    assert run(["status", "out", "--json"]) == 0
    status = RunStatus.model_validate_json(capsys.readouterr().out)
    assert status.progress is not None
    assert [each.rank for each in status.progress.apart] == list(range(25, 40))
    assert run(["status", "out"]) == 0
    assert len(said(capsys)) == 11, "a screen of lines, not one a rank"


def test_watching_tells_each_change_and_ends_with_the_run(out: Path) -> None:
    attempt = RunDir(out).attempts()[0]
    with launcher_at(out):
        beat(attempt, 0, "loading the model")
        watching = subprocess.Popen([*COMMAND, "status", "out", "--watch"], stdout=subprocess.PIPE, text=True)
        assert watching.stdout is not None
        assert "loading the model" in watching.stdout.readline()
        beat(attempt, 0, "training", 1)
        assert "training step 1/100" in watching.stdout.readline()
        RunDir(out).stop_request.write_text("{}")
        rest, _ = watching.communicate(timeout=DEADLINE_SECONDS)
    assert "checkpoint-3 is saved" in rest
    assert watching.returncode == 0


def log(out: Path, rank: int, text: str) -> None:
    """What a rank has printed in the newest attempt."""
    with RunDir(out).attempts()[-1].log(rank).open("a") as stream:
        stream.write(text)


def test_logs_shows_the_end_of_rank_0_of_the_newest_attempt(out: Path, capsys: Captured) -> None:
    log(out, 0, "of attempt 0\n")
    new_attempt(out)
    log(out, 0, "".join(f"line {number}\n" for number in range(300)) + "and half a")
    log(out, 1, "of rank 1\n")
    assert run(["logs", "out"]) == 0
    assert said(capsys) == [f"line {number}" for number in range(101, 300)] + ["and half a"]
    assert run(["logs", "out", "--lines", "1"]) == 0
    assert said(capsys) == ["and half a"]
    assert run(["logs", "out", "--rank", "1"]) == 0
    assert said(capsys) == ["of rank 1"]
    assert run(["logs", "out", "--attempt", "0"]) == 0
    assert said(capsys) == ["of attempt 0"]
    assert run(["logs", "out", "--rank", "all", "--lines", "1"]) == 0
    assert said(capsys) == ["rank 0 | and half a", "rank 1 | of rank 1"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--rank", "7"], "attempt 0 has no log of rank 7"),
        (["--rank", "x"], "--rank x  a rank, counted from 0, or all is expected"),
        (["--attempt", "3"], "--attempt 3  there is no such attempt; there are 0"),
        (["--errors", "--follow"], "--errors and --follow exclude each other"),
    ],
)
def test_logs_that_are_not_there_are_one_clear_error(
    arguments: list[str], expected: str, out: Path, capsys: Captured
) -> None:
    log(out, 0, "x\n")
    assert run(["logs", "out", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_the_errors_of_all_ranks_are_folded_and_failures_come_first(out: Path, capsys: Captured) -> None:
    for rank in range(4):
        log(out, rank, f"hello {rank}\nUserWarning: slow\n")
    log(out, 2, "Traceback (most recent call last):\n  File 'a'\nKeyError: 1\n")
    fail(RunDir(out).attempts()[0], 2, "1", error_class="KeyError")
    assert run(["logs", "out", "--errors"]) == 0
    assert said(capsys) == [
        "rank 2 on gpu-a2, at step 4, while training failed: KeyError: 1",
        "ranks 0-3 | UserWarning: slow",
        "rank 2 | Traceback (most recent call last):",
        "rank 2 |   File 'a'",
        "rank 2 | KeyError: 1",
    ]
    assert run(["logs", "out", "--errors", "--rank", "1"]) == 0
    assert said(capsys) == ["rank 1 | UserWarning: slow"]


def test_following_goes_on_with_the_next_attempt_and_ends_with_the_run(out: Path) -> None:
    with launcher_at(out):
        log(out, 0, "one\n")
        following = subprocess.Popen([*COMMAND, "logs", "out", "--follow"], stdout=subprocess.PIPE, text=True)
        assert following.stdout is not None
        assert following.stdout.readline() == "one\n"
        log(out, 0, "two\n")
        assert following.stdout.readline() == "two\n"
        new_attempt(out)
        log(out, 0, "three\nhalf")
        assert following.stdout.readline() == "three\n"
        RunDir(out).stop_request.write_text("{}")
        rest, _ = following.communicate(timeout=DEADLINE_SECONDS)
    assert rest == "half\n"
    assert following.returncode == 0


TRACEBACK = "Traceback (most recent call last):\n  File 'a'\nKeyError: 'no such [layer]'\n"


def test_why_tells_the_cause_first_and_folds_the_others(out: Path, capsys: Captured) -> None:
    attempt = RunDir(out).attempts()[0]
    facts: dict[str, object] = {"error_class": "KeyError", "traceback": TRACEBACK, "memory_bytes": 3 * 2**30}
    cause = fail(attempt, 5, "'no such [layer]'", **facts)
    fail(attempt, 2, "disk is full\nand more", error_class="OSError")
    for rank in (0, 1, 3, 4):
        fail(attempt, rank, "Connection closed by peer", error_class="RuntimeError", is_victim=True)
    failure = {"report": cause.model_dump(mode="json"), "ranks": [5], "stopped": 7}
    end(attempt, 64, failure=failure)
    assert run(["why", "out"]) == 0
    lines = said(capsys)
    assert lines[0].startswith(
        "attempt 0 failed (exit 64, training raised): rank 5 on gpu-a2, at step 4, while training"
    )
    place = [next(number for number, line in enumerate(lines) if words in line) for words in (
        "cause  rank 5 on gpu-a2, at step 4, while training",
        "memory 3.0 GiB",
        "    Traceback (most recent call last):",
        "    KeyError: 'no such [layer]'",
        f"log    {attempt.log(5).absolute()}",
        "also   rank 2: OSError: disk is full",
        "victim ranks 0-1, 3-4: RuntimeError: Connection closed by peer",
        "stopped  2 other ranks because of it",
        "next   lft resume out",
    )]  # fmt: skip
    assert place == sorted(place)
    assert "and more" not in "\n".join(lines)


def test_why_shows_the_end_of_the_log_of_a_rank_that_left_no_report(out: Path, capsys: Captured) -> None:
    attempt = RunDir(out).attempts()[0]
    log(out, 1, "far back\n" + "filler\n" * 20 + "Bus error\n")
    report = {"ok": False, "rank": 1, "stage": "", "message": "was killed by SIGBUS", "exit_code": 135}
    end(attempt, 135, failure={"report": report, "ranks": [1], "stopped": 1})
    assert run(["why", "out"]) == 0
    text = capsys.readouterr().out
    assert "the last lines of its log" in text
    assert "    Bus error\n" in text
    assert "far back" not in text


def test_why_of_a_run_that_goes_on_tells_of_the_attempt_that_failed_before(out: Path, capsys: Captured) -> None:
    first = RunDir(out).attempts()[0]
    end(
        first,
        67,
        failure={"report": fail(first, 1, "out of memory").model_dump(mode="json"), "ranks": [1], "stopped": 1},
    )
    new_attempt(out)
    with launcher_at(out):
        assert run(["why", "out"]) == 0
    lines = said(capsys)
    assert lines[0].startswith("attempt 1 running")
    assert lines[1].startswith("before it, attempt 0 failed (exit 67, out of memory): rank 1 on gpu-a2")
    assert any("cause  rank 1" in line for line in lines)


def test_why_of_a_run_that_is_fine_says_so(out: Path, capsys: Captured) -> None:
    end(RunDir(out).attempts()[0], 0)
    assert run(["why", "out"]) == 0
    assert "nothing has failed" in said(capsys)


def test_stop_asks_waits_and_says_how_the_run_ended(out: Path, capsys: Captured) -> None:
    with launcher_at(out):
        assert run(["stop", "out"]) == 0
    text = capsys.readouterr().out
    assert (
        "attempt 0 ended (exit 130, stopped by its user (Ctrl-C)): stopped after step 3; checkpoint-3 is saved" in text
    )
    assert "next   lft resume out" in text
    assert not RunDir(out).stop_request.exists()


def test_stop_now_asks_for_the_end_at_once(out: Path, capsys: Captured) -> None:
    with launcher_at(out):
        assert run(["stop", "out", "--now"]) == 0
    assert "stopped at once" in capsys.readouterr().out


def test_stopping_a_run_that_does_not_run_says_so_and_touches_nothing(out: Path, capsys: Captured) -> None:
    end(RunDir(out).attempts()[0], 75, stopped="saved")
    RunDir(out).stop_request.write_text("of another")
    assert run(["stop", "out"]) == 0
    assert "not running: attempt 0 ended (exit 75" in capsys.readouterr().out
    assert RunDir(out).stop_request.read_text() == "of another"


def test_a_launcher_that_vanishes_while_it_is_asked_leaves_no_request_for_the_next_attempt(
    out: Path, capsys: Captured
) -> None:
    with launcher_at(out, "vanish"):
        assert run(["stop", "out"]) == 0
    assert "is gone without a word; its ranks died with it; nothing was saved" in capsys.readouterr().out
    assert not RunDir(out).stop_request.exists()


def test_stop_waits_no_longer_than_asked_and_its_request_stays(out: Path, capsys: Captured) -> None:
    with launcher_at(out, "never"):
        assert run(["stop", "out", "--timeout", "0"]) == 65
        assert "still running after 0 s; the request stays" in capsys.readouterr().err
        assert RunDir(out).stop_request.exists()


def test_ctrl_c_ends_the_waiting_and_not_the_stop(out: Path) -> None:
    with launcher_at(out, "never"):
        # a shell that starts its commands in the background makes them ignore Ctrl-C
        stopping = subprocess.Popen(
            [*COMMAND, "stop", "out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert stopping.stdout is not None
        assert stopping.stdout.readline().startswith("  waiting for attempt 0 running")
        stopping.send_signal(signal.SIGINT)
        _, words = stopping.communicate(timeout=DEADLINE_SECONDS)
        assert stopping.returncode == 130
        assert "not waiting any longer; the run still stops" in words
        assert RunDir(out).stop_request.exists()


def test_a_run_that_is_alive_is_not_resumed_and_it_is_said_who_runs_it(out: Path, capsys: Captured) -> None:
    with launcher_at(out) as process:
        assert run(["resume", "out"]) == 3
    text = capsys.readouterr().err
    assert f"out is running: attempt 0 (pid {process.pid} on here)" in text
    assert f"lft status {out.absolute()} --watch     or: lft stop {out.absolute()}" in text


def test_resume_says_where_it_goes_on_and_keeps_the_global_batch_whatever_the_ranks(
    out: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    checkpoint(out, 3)
    checkpoint(out, 9, complete=False)
    arguments = ["--cpu-procs", "1", "--set", "training.batch_size=2", "--dry-run"]
    assert run(["resume", "out", *arguments]) == 0
    text = capsys.readouterr().out
    assert "left out   checkpoint-9 has lost weights" in text
    assert "resume     from checkpoint-3" in text
    assert "attempt 1: a/b" in text
    assert "32 = 2 rows x 16 accumulation x 1 rank" in text, "the default would be 8 for one rank"


def test_resume_in_a_folder_that_was_moved_goes_on_there(out: Path, capsys: Captured) -> None:
    moved = out.rename("moved")
    assert run(["resume", "moved", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert f"Plan for {moved.absolute()}, attempt 1" in text
    assert "from the first step   there is no checkpoint yet" in text
    assert run(["resume", "moved", "--dry-run", "--set", "output_dir=other"]) == 2
    assert "a run goes on in its own folder" in capsys.readouterr().err


def write_run_file(folder: Path, model: Path, max_steps: int) -> None:
    """run.yaml in a folder: two CPU ranks, output in out/."""
    (folder / "rows.jsonl").write_text("\n".join(demo_lines(40)))
    settings = {
        "model": {"name": str(model)},
        "data": {"source": "rows.jsonl", "held_out": 4, "max_length": 64},
        "training": {"max_steps": max_steps, "batch_size": 4, "global_batch_size": 8, "log_every": 1},
        "benchmark": {"num_prompts": 2, "max_new_tokens": 4},
        "launch": {"precision": "fp32", "cpu_procs": 2},
        "output_dir": "out",
    }
    (folder / "run.yaml").write_text(json.dumps(settings))


def test_the_verbs_tell_the_story_of_a_real_run_and_of_a_real_failure(tiny_models: TinyModels, tmp_path: Path) -> None:
    write_run_file(tmp_path, tiny_models.llama, max_steps=2)
    done = run_lft("launch", "run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    texts = {verb: run_lft(verb, "out", cwd=tmp_path) for verb in ("status", "logs", "why", "stop", "resume")}
    assert {verb: text.returncode for verb, text in texts.items()} == dict.fromkeys(texts, 0)
    assert "  attempt 0 done" in texts["status"].stdout
    assert "nothing has failed" in texts["why"].stdout
    assert "not running: attempt 0 done" in texts["stop"].stdout
    assert "is done; there is nothing to go on with" in texts["resume"].stdout
    gone = ("--resume", "never", "--set", "data.source=gone/away")
    failed = run_lft("launch", "out/run/settings.yaml", *gone, cwd=tmp_path)
    assert failed.returncode == 3, failed.stdout + failed.stderr
    story = run_lft("why", "out", cwd=tmp_path)
    assert story.stdout.startswith("attempt 1 failed (exit 3, preflight")
    assert "while preparing data" in story.stdout


def test_a_real_run_is_stopped_from_another_shell_after_a_checkpoint(tiny_models: TinyModels, tmp_path: Path) -> None:
    write_run_file(tmp_path, tiny_models.llama, max_steps=100_000)
    with (tmp_path / "launch.txt").open("w") as stream:
        launch = subprocess.Popen([*COMMAND, "launch", "run.yaml"], cwd=tmp_path, stdout=stream, stderr=stream)
    try:
        wait_for(lambda: "training step" in run_lft("status", "out", cwd=tmp_path).stdout, seconds=240)
        stopped = run_lft("stop", "out", cwd=tmp_path)
        assert launch.wait(DEADLINE_SECONDS) == 130
    finally:
        launch.kill()
        launch.wait()
    assert stopped.returncode == 0, stopped.stderr
    assert re.search(r"attempt 0 ended \(exit 130.*stopped after step (\d+).*checkpoint-\1 is saved", stopped.stdout)
    assert re.search(r"next   lft resume \S+/out, or the same command   from checkpoint-", stopped.stdout)
    assert not RunDir(tmp_path / "out").stop_request.exists()
