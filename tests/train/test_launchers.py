"""One order, three other launchers: torchrun, accelerate launch and deepspeed give what lft's own launch gives."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lft.core.order import WorkerOrder
from lft.core.rank import clean_environment
from lft.core.run_dir import Attempt
from lft.core.settings import Strategy
from tests.conftest import TinyModels
from tests.train.ranks import adapter, difference, logs, losses, make_order, metrics, run_ranks

# What the order decides, said otherwise: none of it may be obeyed.
ACCELERATE = {
    "compute_environment": "LOCAL_MACHINE",
    "distributed_type": "MULTI_GPU",
    "mixed_precision": "bf16",
    "num_machines": 1,
    "num_processes": 2,
    "machine_rank": 0,
    "rdzv_backend": "static",
    "same_network": True,
    "use_cpu": False,
}
MISLEADING = {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7", "FSDP_VERSION": "1"}


def command(launcher: str, order: Path, folder: Path) -> list[str]:
    """The command line of a launcher for two ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    if launcher == "torchrun":
        return ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "lft.train.worker", str(order)]
    if launcher == "accelerate":
        config = folder / "accelerate.yaml"
        config.write_text(json.dumps(ACCELERATE), encoding="utf-8")
        launch = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--main_process_port", port]
        return [*launch, "-m", "lft.train.worker", str(order)]
    launch = ["-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", port]
    return [*launch, "--module", "lft.train.worker", str(order)]


@pytest.fixture(scope="module")
def own(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> WorkerOrder:
    """Two steps under lft's own launch."""
    folder = tmp_path_factory.mktemp("own")
    order = make_order(tiny_models.llama, rows(folder), folder / "out", "ddp", 2, max_steps=2)
    assert set(run_ranks(order)) == {0}, logs(order)
    return order


def rows(folder: Path) -> Path:
    from tests.conftest import demo_lines

    path = folder / "rows.jsonl"
    path.write_text("\n".join(demo_lines(60)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("launcher", "strategy"),
    [
        ("torchrun", "ddp"),
        pytest.param("accelerate", "ddp", marks=pytest.mark.long),
        pytest.param("deepspeed", "ddp", marks=pytest.mark.long),
        ("accelerate", "zero2"),
        ("deepspeed", "zero2"),
    ],
)
def test_another_launcher_gives_what_lft_s_own_gives(
    launcher: str, strategy: Strategy, own: WorkerOrder, tiny_models: TinyModels, tmp_path: Path
) -> None:
    order = make_order(tiny_models.llama, rows(tmp_path), tmp_path / "out", strategy, 2, max_steps=2)
    arguments = command(launcher, Attempt(order.attempt_dir).order("train"), tmp_path)
    # the launchers' own python, and its scripts, come from this environment
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = clean_environment() | {"DS_ACCELERATOR": "cpu", "PATH": path} | MISLEADING
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrapper = {"ddp": "DistributedDataParallel", "zero2": "DeepSpeedEngine"}[strategy]
    assert (metrics(order)["wrapper"], metrics(order)["precision"]) == (wrapper, "fp32")
    assert losses(order) == pytest.approx(losses(own), abs=1e-5)
    assert difference(adapter(order), adapter(own)) < 1e-5
