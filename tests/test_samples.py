"""The sample configurations in launch_configs/ are what the plan generates, and accelerate can read them."""

import subprocess
import sys

import pytest

from lft.core.hardware import Gpu, Machine
from lft.core.settings import LaunchSettings, Precision
from lft.plan.accelerate_config import accelerate_yaml
from lft.plan.topology import choose_topology
from tests.conftest import REPOSITORY

GPU = Gpu(token="0", name="A100", memory_bytes=40 * 2**30, computes_bf16=True)
LAPTOP = Machine(gpus=(), cpu_cores=8, memory_bytes=16 * 2**30, cpu_computes_bf16=False)
SERVER = Machine(
    gpus=tuple(GPU.model_copy(update={"token": str(index)}) for index in range(4)),
    cpu_cores=64,
    memory_bytes=512 * 2**30,
    cpu_computes_bf16=True,
)

SAMPLES: dict[str, tuple[Machine, LaunchSettings, Precision]] = {
    "cpu.yaml": (LAPTOP, LaunchSettings(), "fp32"),
    "single.yaml": (SERVER, LaunchSettings(strategy="single"), "bf16"),
    "ddp.yaml": (SERVER, LaunchSettings(), "bf16"),
}


def generated(name: str) -> str:
    """What the plan of a sample's machine writes to run/launch_configs/accelerate.yaml."""
    machine, launch, precision = SAMPLES[name]
    return accelerate_yaml(choose_topology(launch, machine), precision)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_what_the_plan_generates(name: str) -> None:
    path = REPOSITORY / "launch_configs" / name
    assert path.read_text(encoding="utf-8") == generated(name), "run: python -m tests.test_samples"


def test_accelerate_reads_every_sample() -> None:
    code = (
        "import sys; from accelerate.commands.config.config_args import load_config_from_file;"
        "print([load_config_from_file(path).num_processes for path in sys.argv[1:]])"
    )
    paths = [str(REPOSITORY / "launch_configs" / name) for name in SAMPLES]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[2, 1, 4]")


if __name__ == "__main__":
    for sample in SAMPLES:
        (REPOSITORY / "launch_configs" / sample).write_text(generated(sample), encoding="utf-8")
