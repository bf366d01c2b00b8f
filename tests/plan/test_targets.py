"""Layers that LoRA cannot sit on are refused in the plan, where it is sure that the model lacks them."""

from typing import Any

import pytest

from lft.core.errors import PreflightError
from lft.core.model_facts import ModelFacts
from lft.plan.launch_plan import LaunchPlan, make_plan
from tests.plan.test_memory import llama_8b
from tests.plan.test_plan import machine, settings


def read_llama() -> ModelFacts:
    """Llama-3.1-8B, as the header of its checkpoint shows it."""
    derived = llama_8b()
    modules = derived.modules | {"norm": derived.hidden_size}
    return derived.model_copy(update={"checkpoint_bytes": {"BF16": 16 * 10**9}, "modules": modules})


def plan_for(
    targets: list[str] | str, model: ModelFacts, whole: tuple[str, ...] = (), **model_settings: Any
) -> LaunchPlan:
    """The plan of a run that adapts these layers, and trains some `whole`; the GPUs are large enough."""
    lora = {"target_modules": targets, "modules_to_save": whole}
    sections: dict[str, Any] = {"lora": lora, "model": {"name": "a/b"} | model_settings}
    return make_plan(settings(**sections), machine(gpus=2), model)


@pytest.mark.parametrize("targets", [["nope"], ["q_proj", "nope"]], ids=str)
def test_a_target_that_no_layer_of_a_known_model_is_called_is_refused_with_the_layers_names(targets: list[str]) -> None:
    with pytest.raises(
        PreflightError, match=r"no layer nope; its linear layers are down_proj, gate_proj, .*v_proj"
    ) as e:
        plan_for(targets, read_llama())
    assert e.value.next_step == "use target_modules: auto, all-linear, or some of these"


@pytest.mark.parametrize("targets", ["auto", "all-linear", ["q_proj"], ["model.layers.0.self_attn.q_proj"]], ids=str)
def test_targets_the_model_may_have_are_not_refused(targets: list[str] | str) -> None:
    assert plan_for(targets, read_llama()).settings.lora.target_modules


def test_where_the_names_are_not_sure_the_ranks_find_out() -> None:
    facts = read_llama()
    assert plan_for(["nope"], facts.model_copy(update={"checkpoint_type": "quantized"}))
    assert plan_for(["nope"], facts.model_copy(update={"checkpoint_bytes": {}}))
    renamed = {name.replace("q_proj", "wq_du"): shape for name, shape in facts.linear_layers.items()}
    assert plan_for(["q_proj"], facts.model_copy(update={"linear_layers": renamed}))
    assert plan_for(["nope"], facts, trust_remote_code=True)


def test_a_module_trained_whole_that_a_known_model_lacks_is_refused_with_the_modules_names() -> None:
    with pytest.raises(PreflightError, match=r"no module nrm; its modules are .*embed_tokens.*lm_head.*mlp.*norm"):
        plan_for("auto", read_llama(), ("lm_head", "nrm"))


def test_of_two_modules_that_share_a_weight_none_is_trained_whole() -> None:
    modules = {name: size for name, size in read_llama().modules.items() if name != "lm_head"}
    tied = read_llama().model_copy(update={"tied_embeddings": True, "modules": modules})
    for whole in ("lm_head", "embed_tokens"):
        with pytest.raises(PreflightError, match=rf"{whole} is one weight with embed_tokens and lm_head"):
            plan_for("auto", tied, (whole, "norm"))


@pytest.mark.parametrize("whole", [("lm_head",), ("norm", "embed_tokens"), ("layers.0.mlp",), ("mlp",)], ids=str)
def test_modules_the_model_has_may_be_trained_whole(whole: tuple[str, ...]) -> None:
    assert plan_for("auto", read_llama(), whole).settings.lora.modules_to_save == whole
