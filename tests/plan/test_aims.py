"""What a run is to be best at, as settings: valid, and really better at it."""

from typing import Any

import pytest

from lft.core.hardware import Gpu, Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.run_file_text import nested
from lft.core.settings import RunSettings
from lft.plan.aims import AIMS, Lengths, aim_settings, everyone_changes
from lft.plan.launch_plan import make_plan
from tests.plan.test_memory import llama_8b

CPU = Machine(gpus=(), cpu_cores=8, memory_bytes=2**37, cpu_computes_bf16=False)
GPU = Gpu(token="0", name="A100", memory_bytes=80 * 10**9, computes_bf16=True)
GPUS = CPU.model_copy(update={"gpus": (GPU, GPU.model_copy(update={"token": "1"}))})
LENGTHS = Lengths(longest=900, most=300)


def settings_for(
    aim: str, machine: Machine, model: ModelFacts | UnknownModel, lengths: Lengths | None = LENGTHS
) -> RunSettings:
    """A run of that aim on two ranks."""
    found: dict[str, Any] = {"model.name": "a/b", "data.source": "c/d"} | everyone_changes()
    wanted = aim_settings(aim, machine, model, lengths, 2)
    return RunSettings.model_validate(nested(found | {name: each.value for name, each in wanted.items()}))


@pytest.mark.parametrize("machine", [CPU, GPUS], ids=["cpu", "gpus"])
@pytest.mark.parametrize("aim", AIMS)
def test_every_aim_gives_a_run_that_can_be_planned(aim: str, machine: Machine) -> None:
    assert make_plan(settings_for(aim, machine, llama_8b()), machine, llama_8b()).memory is not None


@pytest.mark.parametrize("machine", [CPU, GPUS], ids=["cpu", "gpus"])
def test_the_run_for_memory_needs_less_of_it_and_steps_over_as_many_rows(machine: Machine) -> None:
    balanced, small = (
        make_plan(settings_for(aim, machine, llama_8b()), machine, llama_8b()) for aim in ("balanced", "memory")
    )
    assert balanced.memory is not None
    assert small.memory is not None
    assert small.memory.total < balanced.memory.total
    assert small.batch.global_batch * balanced.topology.ranks == balanced.batch.global_batch * small.topology.ranks


def test_the_run_for_speed_packs_rows_and_steps_over_about_as_many() -> None:
    settings = settings_for("speed", GPUS, llama_8b(), Lengths(longest=300, most=100))
    assert settings.data.packing
    assert settings.data.max_length == 1024
    rows = settings.data.max_length // 100 * (settings.training.global_batch_size or 0)
    assert 16 <= rows <= 2 * 2 * 16
    small = llama_8b().model_copy(update={"max_positions": 256})
    assert settings_for("speed", GPUS, small).data.max_length == 256


def test_every_reason_is_said() -> None:
    for aim in AIMS:
        assert all(each.reason for each in aim_settings(aim, GPUS, llama_8b(), LENGTHS, 2).values())


def test_quality_cuts_no_row_and_the_others_one_in_a_hundred() -> None:
    assert settings_for("quality", CPU, UnknownModel()).data.max_length == 960
    assert settings_for("balanced", CPU, UnknownModel()).data.max_length == 320


def test_no_row_is_longer_than_the_model_can_read() -> None:
    model = llama_8b().model_copy(update={"max_positions": 512})
    wanted = aim_settings("quality", CPU, model, LENGTHS, 2)["data.max_length"]
    assert wanted.value == 512
    assert "are cut" in wanted.reason


def test_unknown_data_leaves_the_length_as_it_is() -> None:
    assert settings_for("balanced", CPU, UnknownModel(), None).data.max_length == 512
