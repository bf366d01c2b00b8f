"""Under DDP the frozen base stays where each rank has it; ranks with another base are told, and do not train."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lft.core.errors import PREFLIGHT
from lft.core.rank import Rank, clean_environment
from tests.conftest import TinyModels

RANK = """
import json, sys
from pathlib import Path
from peft import LoraConfig, get_peft_model
from torch.nn.parallel import DistributedDataParallel
from lft.core.errors import LftError
from lft.core.rank import Rank
from lft.train.frozen_base import keep_base
from lft.train.lora_start import remember_start
from lft.train.model import load_base_model
from lft.train.process_group import join
folder, model, start, adds = sys.argv[1:]
rank = Rank.from_environment()
base = load_base_model(model, "fp32", None)
if rank.rank == 1 and float(adds):
    base.get_input_embeddings().weight.data[0, :2] += float(adds)
adapted = get_peft_model(base, LoraConfig(target_modules=["q_proj"], init_lora_weights=json.loads(start)))
remember_start(adapted)
next(weight for weight in adapted.parameters() if weight.requires_grad).data += rank.rank
join(rank, "cpu", Path(folder), 60.0, {})
try:
    keep_base(adapted)
except LftError as error:
    print(error, file=sys.stderr, flush=True)
    sys.exit(error.exit_code)
DistributedDataParallel(adapted)
maps, copied = Path("/proc/self/smaps").read_text().splitlines(), 0
for number, line in enumerate(maps):
    if line.endswith("model.safetensors"):
        copied += sum(int(each.split()[1]) for each in maps[number : number + 25] if each.startswith("Anonymous:"))
trained = next(weight for weight in adapted.parameters() if weight.requires_grad)
print(json.dumps([any(line.endswith("model.safetensors") for line in maps), copied, float(trained.flatten()[0])]), flush=True)
"""


def two_ranks(folder: Path, model: Path, *, start: object = True, adds: float = 0.0) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; the second's base has `adds` added to it."""
    processes = []
    for number in range(2):
        own = Rank(rank=number, local_rank=number, world_size=2, local_world_size=2).to_environment()
        command = [sys.executable, "-c", RANK, str(folder / "meet"), str(model), json.dumps(start), str(adds)]
        pipe, environment = subprocess.PIPE, clean_environment() | own | {"OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True))
    found: list[tuple[int, str, str]] = []
    for process in reversed(processes):  # a rank that is refused leaves the other one waiting, as it would in a run
        try:
            out, errors = process.communicate(timeout=20 if found and found[0][0] else 120)
        except subprocess.TimeoutExpired:
            process.kill()
            out, errors = process.communicate()
        found.append((process.returncode, out, errors))
    return found[::-1]


def test_ranks_of_a_node_share_the_base_they_map_and_start_with_the_adapter_of_rank_0(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    firsts = set()
    for code, out, errors in two_ranks(tmp_path, tiny_models.llama):
        assert code == 0, errors
        is_mapped, copied, first = json.loads(out.splitlines()[-1])
        assert is_mapped
        assert copied == 0, "kB of the model's file that this rank has a copy of"
        firsts.add(first)
    assert len(firsts) == 1


def test_a_rank_with_another_base_says_so_instead_of_training(tiny_models: TinyModels, tmp_path: Path) -> None:
    _, (code, _, errors) = two_ranks(tmp_path, tiny_models.llama, adds=0.5)
    assert code == PREFLIGHT
    assert "the base model of this rank is not that of rank 0" in errors
    assert "model.revision" in errors


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_a_base_that_the_adapter_was_taken_out_of_is_sent(start: str, tiny_models: TinyModels, tmp_path: Path) -> None:
    for code, _, errors in two_ranks(tmp_path, tiny_models.llama, start=start, adds=0.5):
        assert code == 0, errors
