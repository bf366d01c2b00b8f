"""The sample configurations in launch_configs/ are what the plan generates, and the libraries' own parsers take them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lft.core.hardware import Gpu, Machine
from lft.core.settings import LaunchSettings, Precision, TrainingSettings
from lft.plan.accelerate_config import accelerate_yaml
from lft.plan.batch import plan_batch
from lft.plan.deepspeed_config import ZeroStrategy, deepspeed_config
from lft.plan.strategy import possible_strategies
from lft.plan.topology import choose_topology
from tests.conftest import REPOSITORY
from tests.plan.test_plan import settings

FOLDER = "launch_configs"
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
    "zero2.yaml": (SERVER, LaunchSettings(strategy="zero2"), "bf16"),
    "zero3.yaml": (SERVER, LaunchSettings(strategy="zero3"), "bf16"),
    "fsdp.yaml": (SERVER, LaunchSettings(strategy="fsdp"), "bf16"),
}
DEEPSPEED: dict[str, ZeroStrategy] = {"deepspeed-zero2.json": "zero2", "deepspeed-zero3.json": "zero3"}

RANK = """
import json, os, sys
with open(sys.argv[1] + "-" + os.environ.get("RANK", "0"), "w") as stream:
    json.dump(dict(os.environ), stream)
"""
LAUNCH = """
import json, os, sys
from pathlib import Path
from accelerate.commands.launch import launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, FullyShardedDataParallelPlugin, patch_environment
out, *samples = map(Path, sys.argv[1:])
found = {}
for sample in samples:
    words = ["--config_file", sample, "--main_process_port", 0, out / "rank.py", out / sample.name]
    launch_command(launch_command_parser().parse_args(list(map(str, words))))
    environments = [json.loads(path.read_text()) for path in sorted(out.glob(f"{sample.name}-*"))]
    with patch_environment(**environments[0]):
        deepspeed = DeepSpeedPlugin().zero_stage if "ACCELERATE_USE_DEEPSPEED" in os.environ else None
        fsdp = FullyShardedDataParallelPlugin().fsdp_version if "ACCELERATE_USE_FSDP" in os.environ else None
    precision = environments[0]["ACCELERATE_MIXED_PRECISION"]
    found[sample.name] = [len(environments), environments[0].get("WORLD_SIZE", "1"), precision, deepspeed, fsdp]
print(json.dumps(found))
"""


def generated(name: str) -> str:
    """What the plan of a sample's machine writes to run/launch_configs."""
    if name in DEEPSPEED:
        batch, _ = plan_batch(TrainingSettings(), ranks=4, asked_ranks=4)
        return json.dumps(deepspeed_config(DEEPSPEED[name], batch, "bf16", max_grad_norm=1.0), indent=1) + "\n"
    machine, launch, precision = SAMPLES[name]
    topology = choose_topology(launch, machine)
    strategy = possible_strategies(settings(launch=launch.model_dump()), machine, topology)[0]
    return accelerate_yaml(strategy, topology, precision, f"{FOLDER}/deepspeed-{strategy}.json")


def python(script: str, *arguments: object) -> Any:
    """The JSON that a script prints last, run in the repository, where the samples' relative path leads somewhere."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", [*SAMPLES, *DEEPSPEED])
def test_a_sample_is_what_the_plan_generates(name: str) -> None:
    path = REPOSITORY / FOLDER / name
    assert path.read_text(encoding="utf-8") == generated(name), "run: python -m tests.test_samples"


def test_no_sample_is_left_over() -> None:
    assert {path.name for path in (REPOSITORY / FOLDER).iterdir()} == SAMPLES.keys() | DEEPSPEED.keys()


def test_accelerate_starts_the_ranks_of_every_sample_and_tells_them_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    found = python(LAUNCH, tmp_path, *(REPOSITORY / FOLDER / name for name in SAMPLES))
    assert found == {
        # ranks, WORLD_SIZE, mixed precision (deepspeed.json's own counts), ZeRO stage, FSDP version
        "cpu.yaml": [2, "2", "no", None, None],
        "single.yaml": [1, "1", "bf16", None, None],
        "ddp.yaml": [4, "4", "bf16", None, None],
        "zero2.yaml": [4, "4", "no", 2, None],
        "zero3.yaml": [4, "4", "no", 3, None],
        "fsdp.yaml": [4, "4", "bf16", None, 2],
    }


def test_deepspeed_takes_every_sample_and_finds_nothing_left_open() -> None:
    script = """
import json, sys
from deepspeed.runtime.config import DeepSpeedConfig
found = []
for path in sys.argv[1:]:
    given = json.load(open(path))
    config = DeepSpeedConfig(given | {"train_batch_size": 16})  # as one process, which is what there is here
    zero = config.zero_config
    unknown = sorted(set(given["zero_optimization"]) - set(zero.model_dump(by_alias=True)))
    found.append([config.gradient_accumulation_steps, int(zero.stage), config.bfloat16_config.enabled, unknown])
print(json.dumps(found))
"""
    paths = [REPOSITORY / FOLDER / name for name in DEEPSPEED]
    assert python(script, *paths) == [[4, 2, True, []], [4, 3, True, []]]
    assert all('"auto"' not in Path(path).read_text(encoding="utf-8") for path in paths)


if __name__ == "__main__":
    for sample in (*SAMPLES, *DEEPSPEED):
        (REPOSITORY / FOLDER / sample).write_text(generated(sample), encoding="utf-8")
