"""What a training step is computed with gives what transformers and peft give, row by row, and says where it does not try."""

from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from lft.core.precision import uses_autocast
from lft.core.rank import Rank
from lft.core.settings import TrainingSettings
from lft.train.attention import row_borders
from lft.train.batches import PadToLongest
from lft.train.engine import Engine, make_engine
from lft.train.loss import ChunkedCrossEntropy, global_batch_loss
from tests.train import styles

ALONE = Rank()


def packed_loss(model: Any, engine: Engine, smoothing: float = 0.0) -> torch.Tensor:
    """The loss of all rows in one pack, as the trainer computes it; `smoothing` where the model's own logits are used."""
    batch = styles.pack()
    labels = batch.pop("labels")
    inputs = batch | row_borders(batch["position_ids"]) | {"use_cache": False}
    trained = int((labels[:, 1:] != -100).sum())
    if engine.trained_tokens is None:
        return global_batch_loss(model(**inputs), labels, trained, label_smoothing=smoothing)
    with engine.trained_tokens.of(labels):
        outputs = model(**inputs)
    return engine.trained_tokens.global_batch_loss(outputs, labels, trained)


def padded_loss(model: Any, engine: Engine) -> torch.Tensor:
    """The loss of all rows in one padded batch, as the trainer computes it."""
    batch = PadToLongest(0)([{name: ids[0].numpy() for name, ids in row.items()} for row in styles.rows()])
    labels = batch.pop("labels")
    trained = int((labels[:, 1:] != -100).sum())
    if engine.trained_tokens is None:
        return global_batch_loss(model(**batch), labels, trained)
    with engine.trained_tokens.of(labels):
        outputs = model(**batch)
    return engine.trained_tokens.global_batch_loss(outputs, labels, trained)


@pytest.mark.parametrize("style", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
def test_gradient_checkpointing_changes_no_gradient_also_with_dropout(style: str, packed: bool) -> None:
    found = {}
    for again in (False, True):
        model = styles.tiny(style, dropout=0.3)
        engine = make_engine(model, ALONE, "single", "cpu", "fp32", TrainingSettings(gradient_checkpointing=again))
        torch.manual_seed(3)
        loss = packed_loss(model, engine) if packed else padded_loss(model, engine)
        loss.backward()
        found[again] = (loss.item(), styles.gradients(model))
    assert found[True][0] == pytest.approx(found[False][0], rel=1e-6)
    assert styles.distance(found[True][1], found[False][1]) < 1e-6


def test_a_second_training_of_a_model_keeps_its_activations_again() -> None:
    model = styles.tiny("llama")
    for again in (True, False):
        make_engine(model, ALONE, "single", "cpu", "fp32", TrainingSettings(gradient_checkpointing=again))
        assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules()) is again


@pytest.mark.parametrize("style", ["llama", "gpt2", "qwen2", "qwen3", "gemma2", "mistral", "cohere"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_pack_has_the_loss_and_the_gradients_of_its_rows_one_by_one(style: str, checkpointing: bool) -> None:
    model = styles.tiny(style)
    expected = styles.one_by_one(model)
    wanted = styles.gradients(model)
    engine = make_engine(model, ALONE, "single", "cpu", "fp32", TrainingSettings(gradient_checkpointing=checkpointing))
    assert engine.packs
    loss = packed_loss(model, engine)
    loss.backward()
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert styles.distance(styles.gradients(model), wanted) < 1e-5


@pytest.mark.parametrize(
    ("style", "said"),
    [
        ("llama", ("row by row", "in chunks")),
        ("gemma2", ("with a mask", "final_logit_softcapping")),
        ("cohere", ("row by row", "logit_scale")),
        ("mamba", ("padded batches", "in chunks")),
        ("bloom", ("padded batches", "in chunks")),
    ],
)
def test_the_choice_is_said_with_its_reason(style: str, said: tuple[str, str]) -> None:
    engine = make_engine(styles.tiny(style), ALONE, "single", "cpu", "fp32")
    assert engine.packs is ("padded" not in said[0])
    for reason, words in zip(engine.reasons, said, strict=True):
        assert words in reason


def test_a_trained_output_projection_keeps_its_own_logits() -> None:
    model = styles.tiny("llama")
    model.get_output_embeddings().weight.requires_grad_(True)
    engine = make_engine(model, ALONE, "single", "cpu", "fp32")
    assert engine.trained_tokens is None
    assert "is trained" in engine.reasons[1]


@pytest.mark.parametrize("style", ["llama", "gpt2", "mistral"])
def test_evaluation_and_generation_stay_what_they_were(style: str) -> None:
    model = styles.tiny(style, dropout=0.5).eval()
    prompt = torch.tensor([[0, 0, 5, 6, 7], [3, 4, 5, 6, 7]])
    mask = (prompt > 0).long()

    def measured() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            logits = model(input_ids=prompt, attention_mask=mask).logits
            return logits, model.generate(input_ids=prompt, attention_mask=mask, max_new_tokens=8, do_sample=False)

    before = measured()
    make_engine(model, ALONE, "single", "cpu", "fp32")
    after = measured()
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


def test_a_batch_without_trained_tokens_has_a_loss_and_gradients_of_zero() -> None:
    model = styles.tiny("llama")
    engine = make_engine(model, ALONE, "single", "cpu", "fp32")
    assert engine.trained_tokens is not None
    labels = torch.full((1, 3), -100)
    with engine.trained_tokens.of(labels):
        outputs = model(input_ids=torch.tensor([[1, 2, 3]]))
    loss = engine.trained_tokens.global_batch_loss(outputs, labels, 10)
    loss.backward()
    found = styles.gradients(model)
    assert loss.item() == 0
    assert len(found) == len([p for p in model.parameters() if p.requires_grad])
    assert not any(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("style", ["llama", "gemma2"])  # in chunks; over the model's own logits
def test_label_smoothing_is_that_of_torch_on_the_trained_tokens(style: str) -> None:
    model = styles.tiny(style)
    total, count = torch.zeros(()), 0
    for row in styles.rows():
        logits, wanted = model(input_ids=row["input_ids"], use_cache=False).logits[0, :-1], row["labels"][0, 1:]
        kept = wanted != -100
        total += cross_entropy(logits[kept], wanted[kept], reduction="sum", label_smoothing=0.2)
        count += int(kept.sum())
    (total / count).backward()
    expected = styles.gradients(model)
    loss = packed_loss(
        model, make_engine(model, ALONE, "single", "cpu", "fp32", TrainingSettings(label_smoothing=0.2)), smoothing=0.2
    )
    loss.backward()
    assert loss.item() == pytest.approx((total / count).item(), rel=1e-6)
    assert styles.distance(styles.gradients(model), expected) < 1e-5


def test_labels_are_smoothed_in_training_only() -> None:
    model = styles.tiny("llama").eval()
    plain, smoothed = (
        make_engine(model, ALONE, "single", "cpu", "fp32", TrainingSettings(label_smoothing=share))
        for share in (0, 0.2)
    )
    with torch.no_grad():
        held_out = packed_loss(model, plain).item()
        assert packed_loss(model, smoothed).item() == held_out
        assert packed_loss(model.train(), smoothed).item() > held_out


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("with_bias", [False, True])
def test_cross_entropy_in_chunks_is_cross_entropy(
    with_bias: bool, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lft.train.loss.CHUNK_LOGITS", 7 * 50)  # 7 tokens at a time, and 6 at the end
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(20, 16, requires_grad=True), torch.randn(50, 16), torch.randint(50, (20,))
    bias = torch.randn(50) if with_bias else None
    logits = torch.nn.functional.linear(hidden, weight, bias)
    expected = cross_entropy(logits, targets, reduction="sum", label_smoothing=smoothing)
    (wanted,) = torch.autograd.grad(expected / 3, hidden)
    loss: torch.Tensor = ChunkedCrossEntropy.apply(hidden, weight, bias, targets, smoothing)  # type: ignore[no-untyped-call]
    (gradient,) = torch.autograd.grad(loss / 3, hidden)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, wanted)


def test_a_bf16_base_trains_float32_adapters_without_autocast() -> None:
    assert not uses_autocast("bf16", sharded=False)
    assert uses_autocast("bf16", sharded=True)
    assert uses_autocast("fp16", sharded=False)
    reference = styles.tiny("llama")
    expected = styles.one_by_one(reference)
    wanted = styles.gradients(reference)
    model = styles.tiny("llama", dtype=torch.bfloat16)
    loss = packed_loss(model, make_engine(model, ALONE, "single", "cpu", "bf16"))
    loss.backward()
    found = styles.gradients(model)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert loss.item() == pytest.approx(expected, rel=0.01)
    assert styles.distance(found, wanted) < 0.1
