"""What becomes of a run's benchmark when its data has changed, and of the folder of a benchmark of other rows."""

import json
from pathlib import Path

from lft.core.run_dir import RunDir
from tests.conftest import TinyModels, demo_lines, run_lft
from tests.e2e.test_launch import write_run_file


def test_rows_that_were_trained_on_are_never_asked_as_held_out_and_a_benchmark_is_no_run_to_go_on_with(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    rows, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    rows.write_text("\n".join(demo_lines(72)), encoding="utf-8")
    other.write_text("\n".join(demo_lines(80)[72:]), encoding="utf-8")
    out = RunDir(tmp_path / "out")
    training = {"max_steps": 2, "log_every": 1}
    run_file = write_run_file(tmp_path / "run.yaml", tiny_models.llama, rows, out.output_dir, training=training)
    done = run_lft("launch", run_file, "--cpu-procs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    otherwise = ("--num-prompts", 5, "--set", "benchmark.max_new_tokens=3")
    again = run_lft("benchmark", out.output_dir, *otherwise, "--cpu-procs", 1, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    page = out.page.read_text(encoding="utf-8")
    assert "the same 5 held-out prompts" in page
    assert "Answers end after 3 tokens" in page, "the page is of the benchmark it shows, whatever the run asked for"
    rows.write_text("\n".join(demo_lines(72)[:50]), encoding="utf-8")
    changed = run_lft("benchmark", out.output_dir, "--cpu-procs", 1, cwd=tmp_path)
    assert changed.returncode != 0
    assert "the data has changed since the training" in changed.stdout
    assert "--dataset SOURCE" in changed.stdout

    elsewhere = run_lft("benchmark", out.output_dir, "--dataset", other, "--cpu-procs", 1, cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stdout + elsewhere.stderr
    folder = RunDir(tmp_path / "out-benchmark")
    page = folder.page.read_text(encoding="utf-8")
    assert 'id="results"' in page
    assert "lft resume" not in page
    tuned = json.loads(folder.report.read_text(encoding="utf-8"))["benchmark"]["tuned"]
    assert f"{tuned['loss']:.3f}" in page
    resumed = run_lft("resume", folder.output_dir, cwd=tmp_path)
    assert resumed.returncode == 3
    assert "no training to go on with" in resumed.stderr
    assert "next   lft benchmark" in resumed.stderr
    assert "lft report" in run_lft("status", folder.output_dir, cwd=tmp_path).stdout
