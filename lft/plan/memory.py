"""How much memory each device of a run needs, by part, before anything is loaded. Pure arithmetic.

The activations are counted as Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1) count them, operation by operation,
adapted to frozen weights: a frozen linear layer keeps no input for its gradient, an adapted one does. A test compares them
with what autograd really saves. Rows are taken to be max_length long: the worst case, and with data.packing,
where the batch counts packs of max_length tokens, the usual one.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from lft.core.model_facts import ModelFacts
from lft.core.precision import Device
from lft.core.settings import Precision, RunSettings, Strategy
from lft.plan.deepspeed_config import LIVE_ELEMENTS

BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
ADAM_BYTES = 8
"""Two float32 moments for each trained parameter (Kingma and Ba 2015)."""
LOGIT_BYTES = 12
"""Three float32 copies: logits, their float32 selection or the loss's gradient, and the log-softmax with its own."""
CPU_FRAMEWORK_BYTES = 570 * 10**6
"""Imported libraries, tokenized rows and what the C library keeps: fitted (docs/benchmarks.md)."""
CPU_RANK_BYTES = 20 * 10**6
"""What a process group adds to a rank on a CPU: fitted."""
GPU_FRAMEWORK_BYTES = 1_200 * 10**6
"""CUDA context, cuBLAS workspace and allocator slack: an assumption, not measured."""
NCCL_BYTES = 400 * 10**6
"""NCCL's channel buffers: an assumption, not measured."""
DDP_BROADCAST_BYTES = 250 * 2**20
"""DistributedDataParallel broadcasts the first weights in coalesced buffers of this size (torch.nn.parallel)."""
COMPOSED_ACTIVATIONS = ("gelu_new", "gelu_fast", "gelu_python", "quick_gelu")
"""Written as several operations each of which keeps its inputs, in transformers.activations."""
MOST_USED = 0.9
"""Of a device's memory: predictions are within 15 %, mostly within 5 (docs/benchmarks.md)."""
SHARDED_WEIGHTS: tuple[Strategy, ...] = ("zero3", "fsdp")


class MemoryPrediction(BaseModel):
    """Bytes for each device, or for each rank on a CPU, at the moment of the highest need."""

    model_config = ConfigDict(frozen=True)

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    framework: int
    loading: int
    """What loading needs beyond all that training needs; mostly 0."""
    available: int = 0
    """What there is on each device; 0 where that is not known."""
    unit: Literal["GPU", "rank"] = "GPU"

    @property
    def total(self) -> int:
        """The sum of all parts."""
        training = self.weights + self.adapters + self.gradients + self.optimizer + self.activations + self.logits
        return training + self.framework + self.loading

    @property
    def fits(self) -> bool:
        """Whether a tenth of what there is stays free; what is not known is not held against it."""
        return self.available == 0 or self.total <= MOST_USED * self.available

    def figures(self) -> str:
        """`26.2 of 40.0 GB per GPU`; a GB is 10^9 bytes."""
        of = f" of {self.available / 1e9:.1f}" if self.available else ""
        return f"{self.total / 1e9:.1f}{of} GB per {self.unit}"

    def describe(self) -> str:
        """`weights 16.1 + activations 6.9 + logits 0.8 + rest 2.4 = 26.2 of 40.0 GB per GPU`."""
        named = {"weights": self.weights, "activations": self.activations, "logits": self.logits}
        named["rest"] = self.total - sum(named.values())
        parts = " + ".join(f"{name} {size / 1e9:.1f}" for name, size in named.items())
        return f"{parts} = {self.figures()}"


def predict_memory(
    model: ModelFacts,
    settings: RunSettings,
    strategy: Strategy,
    *,
    devices: int,
    precision: Precision,
    device: Device,
    available_bytes: int = 0,
) -> MemoryPrediction:
    """The need of each of `devices`: of all ranks, or of the GPUs over which device-map spreads one process."""
    several = devices > 1 and strategy != "single"
    share = devices if several and strategy != "ddp" else 1
    trained = model.trained_parameters(settings.lora)
    checkpoint = sum(model.checkpoint_bytes.values())
    all_weights = model.parameters * BYTES[precision]
    weights = _weights(model, strategy, share, BYTES[precision])
    tokens = settings.training.batch_size * row_length(model, settings)
    activations = tokens * activation_bytes_per_token(model, settings, precision, device)
    if strategy == "device-map":
        activations //= share
    framework = GPU_FRAMEWORK_BYTES + (NCCL_BYTES if several and strategy != "device-map" else 0)
    if device == "cpu":
        framework = CPU_FRAMEWORK_BYTES + (CPU_RANK_BYTES if several else 0)
    prediction = MemoryPrediction(
        weights=weights,
        # ZeRO-2 keeps whole weights and shards their float32 gradients and moments, ZeRO-3 and FSDP shard all
        adapters=4 * trained // (1 if strategy == "zero2" else share),
        # DDP reduces copies of the gradients in its buckets; ZeRO-2 reduces in a bucket, then keeps its share
        gradients=4 * trained * (2 if several and strategy in ("ddp", "zero2") else 1) // share,
        optimizer=(ADAM_BYTES + (4 if strategy in ("zero2", "zero3") else 0)) * trained // share,
        activations=activations,
        logits=_step_peak_bytes(model, settings, BYTES[precision]),
        framework=framework,
        loading=0,
        available=available_bytes,
        unit="rank" if device == "cpu" else "GPU",
    )
    if device == "cuda":
        return prediction
    # the checkpoint is mapped while it is converted; where the types are the same, the weights are the mapping
    mapped = 0 if BYTES[precision] * model.parameters == checkpoint else checkpoint
    broadcast = min(all_weights, DDP_BROADCAST_BYTES) if several else 0
    loading = framework + all_weights + max(mapped, broadcast) - prediction.total
    return prediction.model_copy(update={"loading": max(0, loading)})


def row_length(model: ModelFacts, settings: RunSettings) -> int:
    """Tokens of the longest row: rows are cut at the model's positions too."""
    return min(settings.data.max_length, model.max_positions or settings.data.max_length)


def activation_bytes_per_token(model: ModelFacts, settings: RunSettings, precision: Precision, device: Device) -> int:
    """What autograd keeps of one token's way through all layers, until its backward pass."""
    length, size = row_length(model, settings), BYTES[precision]
    on_gpu, hidden = device == "cuda", model.hidden_size
    # RMSNorm computes in float32 everywhere, autocast makes LayerNorm do so on a GPU
    norm_size = 4 if model.has_rms_norm or on_gpu else size
    norms = 2 * (hidden * norm_size + 4 * (1 if model.has_rms_norm else 2))
    query, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    # flash and memory-efficient attention keep their inputs, the output and one sum a head (Dao et al. 2022) ...
    attention = (2 * query + 2 * keys) * size + 4 * model.heads
    if model.attention_dropout and not on_gpu:
        # ... but with dropout there is none on a CPU: scores, their softmax and the dropped ones, in float32
        attention = (query + 2 * keys) * 4 + query * size + 3 * 4 * model.heads * length
    dropout = 2 * hidden * (1 if on_gpu else size) if model.hidden_dropout else 0
    per_layer = norms + attention + dropout + _mlp_bytes(model, size, on_gpu)
    last_norm = hidden * norm_size
    return model.layers * per_layer + last_norm + _adapter_input_bytes(model, settings, size, on_gpu)


def _mlp_bytes(model: ModelFacts, size: int, on_gpu: bool) -> int:
    """Gated: the activation's input, and both factors. Else the activation's input, or those of its operations."""
    inner = model.intermediate_size
    if model.is_gated:
        return 3 * inner * size
    if model.activation not in COMPOSED_ACTIVATIONS:
        return inner * size
    # pow's input, tanh's result and the two factors; autocast on a GPU raises pow, and all after it, to float32
    return inner * (4 + 4 + size + 4) if on_gpu else 4 * inner * size


def _adapter_input_bytes(model: ModelFacts, settings: RunSettings, size: int, on_gpu: bool) -> int:
    """Inputs of LoRA's two matrices. In half precision or after dropout each layer keeps its own copy, else they share."""
    adapted, dropped = model.adapted(settings.lora), settings.lora.lora_dropout > 0
    # a GPU keeps dropout's mask in bytes, a CPU as float32 noise
    mask = (1 if on_gpu else 4) if dropped else 0
    total = sum(settings.lora.r * size + shape.inputs * mask for shape in adapted.values())
    if dropped or size < 4:
        return total + sum(shape.inputs * size for shape in adapted.values())
    shared = {(name.rpartition(".")[0], shape.inputs) for name, shape in adapted.items()}
    return total + sum(inputs * size for _, inputs in shared)


def _step_peak_bytes(model: ModelFacts, settings: RunSettings, size: int) -> int:
    """Held beside the activations at once: the loss over the vocabulary, or the backward pass through one layer."""
    rows, length = settings.training.batch_size, row_length(model, settings)
    loss = LOGIT_BYTES * rows * (length - 1) * model.vocab_size
    one_layer = (3 * model.intermediate_size + 3 * model.hidden_size) * size * rows * length
    return max(loss, one_layer)


def _weights(model: ModelFacts, strategy: Strategy, share: int, size: int) -> int:
    """Bytes of the base model's weights on the device that has most of them."""
    embedding = model.vocab_size * model.hidden_size
    ends = embedding * (1 if model.tied_embeddings else 2)
    inner = max(0, model.parameters - ends)
    if share > 1 and strategy == "device-map":
        return size * (-(-inner // share) + embedding)
    if share > 1 and strategy in SHARDED_WEIGHTS:
        # the shards, and gathered: both ends, the layer that computes and the one that comes next
        gathered = ends + 2 * -(-inner // model.layers)
        if strategy == "zero3":
            gathered += LIVE_ELEMENTS
        return size * min(model.parameters, -(-model.parameters // share) + gathered)
    return size * model.parameters
