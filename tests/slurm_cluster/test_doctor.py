"""lft doctor --slurm on a real allocation."""

from pathlib import Path

import pytest

from tests.slurm_cluster.jobs import Site

SHAPE = ("--slurm", "--nodes", 3, "--gpus", 0, "--output-dir", "out")


def test_nodes_that_are_well_are_told_with_their_figures(site: Site, tmp_path: Path) -> None:
    done = site.lft("doctor", *SHAPE, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "  nothing is wrong"
    for number in (1, 2, 3):
        line = next(line for line in lines if line.split()[0] == site.cluster.node(number))
        assert "all-reduce of 4 MiB" in line
        assert "GiB free" in line


@pytest.mark.long
def test_a_node_that_reaches_no_other_one_is_named(site: Site, tmp_path: Path) -> None:
    for other in (1, 3):
        site.cluster.cut(2, other)
    try:
        done = site.lft("doctor", *SHAPE, cwd=tmp_path)
    finally:
        for other in (1, 3):
            site.cluster.cut(2, other, "del")
    assert done.returncode == 3
    assert f"{site.cluster.node(2)} is at fault in 2 of its 2 connections" in done.stdout
    assert f"{site.cluster.node(3)} is at fault" not in done.stdout
