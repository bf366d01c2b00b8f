"""Which GPUs a process is found to see, from what nvidia-smi and the kernel say and what its environment chooses."""

import os
from pathlib import Path

import pytest

from lft.core.gpus import Gpu, find_gpus, parse_nvidia_smi
from lft.core.hardware import look_at_machine

A100, T4 = "GPU-11aa22bb-0000-0000-0000-000000000000", "GPU-33cc44dd-0000-0000-0000-000000000000"
TWO_CARDS = f"""\
0, {A100}, NVIDIA A100-SXM4-40GB, 40960, 8.0, Disabled
1, {T4}, Tesla T4, 15360, 7.5, [N/A]
"""
TWIN_CARDS = "0, GPU-11aa, NVIDIA H100, 81920, 9.0, Disabled\n1, GPU-11ab, NVIDIA H100, 81920, 9.0, Disabled\n"
CUT_CARD = TWO_CARDS.replace("Disabled", "Enabled")
LISTING = f"""\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: {A100})
  MIG 3g.20gb     Device  0: (UUID: MIG-aa000000-0000)
  MIG 1c.2g.10gb+me Device  1: (UUID: MIG-GPU-11aa22bb/5/0)
GPU 1: Tesla T4 (UUID: {T4})
"""


def facts(gpus: tuple[Gpu, ...]) -> list[tuple[str, int, bool]]:
    """Token, whole GiB, bf16."""
    return [(gpu.token, gpu.memory_bytes // 2**30, gpu.computes_bf16) for gpu in gpus]


@pytest.mark.parametrize(
    ("text", "visible", "expected"),
    [
        (TWO_CARDS, None, [("0", 40, True), ("1", 15, False)]),
        (TWO_CARDS, ("1",), [("1", 15, False)]),
        (TWO_CARDS, ("1", "0"), [("1", 15, False), ("0", 40, True)]),
        (TWO_CARDS, ("GPU-33cc",), [("GPU-33cc", 15, False)]),
        (TWO_CARDS, (T4, A100), [(T4, 15, False), (A100, 40, True)]),
        (TWO_CARDS, ("0", "7", "1"), [("0", 40, True)]),
        (TWO_CARDS, ("GPU-99",), []),
        (TWIN_CARDS, ("GPU-11a",), []),
        (TWIN_CARDS, ("GPU-11ab",), [("GPU-11ab", 80, True)]),
        (TWO_CARDS, ("MIG-aa-bb",), [("MIG-aa-bb", 0, True)]),
        (TWO_CARDS, (), []),
        ("0, GPU-1, NVIDIA GB10, [N/A], 12.1, [N/A]\n", None, [("0", 0, True)]),
        ("0, GPU-1, Old Card, 2048, [N/A], [N/A]\n", None, [("0", 2, False)]),
        ("No devices were found\n", None, []),
        ("", ("MIG-aa-bb",), []),
    ],
)
def test_a_table_of_nvidia_smi_is_read(
    text: str, visible: tuple[str, ...] | None, expected: list[tuple[str, int, bool]]
) -> None:
    assert facts(parse_nvidia_smi(text, visible)) == expected


@pytest.mark.parametrize(
    ("text", "visible", "expected"),
    [
        # a process sees one part only; memory is what the name of the part says, in 10^9 bytes
        (CUT_CARD, ("MIG-aa000000-0000", "MIG-GPU-11aa22bb/5/0"), [("MIG-aa000000-0000", 18, True)]),
        (CUT_CARD, ("MIG-GPU-11aa22bb/5/0",), [("MIG-GPU-11aa22bb/5/0", 9, True)]),
        (CUT_CARD, ("MIG-aa",), [("MIG-aa", 18, True)]),
        (CUT_CARD, ("0",), [("0", 18, True)]),
        (CUT_CARD, ("1",), [("1", 15, False)]),
        (CUT_CARD, None, [("1", 15, False)]),
        (CUT_CARD.splitlines()[0], None, [("MIG-aa000000-0000", 18, True)]),
    ],
)
def test_a_part_of_a_card_has_its_own_memory(
    text: str, visible: tuple[str, ...] | None, expected: list[tuple[str, int, bool]]
) -> None:
    assert facts(parse_nvidia_smi(text, visible, LISTING)) == expected


def install_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name, first on PATH."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "visible", "expected"),
    [
        (f"cat <<END\n{TWO_CARDS}END", None, "2 x NVIDIA A100-SXM4-40GB / Tesla T4, "),
        (f"cat <<END\n{TWO_CARDS}END", "1", "1 x Tesla T4, "),
        (f"cat <<END\n{TWO_CARDS}END", "1,1", "no GPU visible, "),
        (f"cat <<END\n{TWO_CARDS}END", "", "no GPU visible, "),
        (f"cat <<END\n{TWO_CARDS}END", "NoDevFiles", "no GPU visible, "),
        (
            f'if [ "$1" = -L ]; then cat <<END\n{LISTING}END\nelse cat <<END\n{CUT_CARD}END\nfi',
            "MIG-aa000000-0000",
            "1 x NVIDIA A100-SXM4-40GB MIG 3g.20gb, ",
        ),
        ("echo the driver is broken; exit 9", None, "no GPU, "),
    ],
)
def test_the_gpus_of_a_machine_are_those_its_nvidia_smi_names(
    script: str, visible: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_nvidia_smi(tmp_path, script, monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    machine = look_at_machine()
    assert machine.describe().startswith(expected)
    assert machine.memory_bytes > 2**28


def kernel_with_amd_gpus(root: Path) -> None:
    """A CPU and three GPUs: gfx90a, gfx90a, gfx1030."""
    for node, (simds, version, unique) in enumerate(
        [(0, 0, 0), (440, 90010, 161), (440, 90010, 162), (160, 100300, 163)]
    ):
        folder = root / "sys/class/kfd/kfd/topology/nodes" / str(node)
        (folder / "mem_banks/0").mkdir(parents=True)
        (folder / "properties").write_text(f"simd_count {simds}\ngfx_target_version {version}\nunique_id {unique}\n")
        (folder / "mem_banks/0/properties").write_text(f"heap_type {1 if simds else 0}\nsize_in_bytes {64 * 2**30}\n")


@pytest.mark.parametrize(
    ("variables", "tokens"),
    [
        ({}, ["0", "1", "2"]),
        ({"ROCR_VISIBLE_DEVICES": "2,1"}, ["0", "1"]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-a2"}, ["0"]),
        ({"HIP_VISIBLE_DEVICES": "2"}, ["2"]),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, ["1", "0"]),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
        ({"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "1,7,0"}, ["1"]),
    ],
)
def test_amd_gpus_are_those_of_the_kernel_that_the_variables_leave(
    variables: dict[str, str], tokens: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_with_amd_gpus(tmp_path)
    install_nvidia_smi(tmp_path, "exit 1", monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = find_gpus(tmp_path)
    assert [gpu.token for gpu in found] == tokens
    if not variables:
        assert [(gpu.name, gpu.computes_bf16) for gpu in found[1:]] == [("AMD gfx90a", True), ("AMD gfx1030", False)]
        assert found[0].memory_bytes == 64 * 2**30
