"""How much memory each device of a run needs, by part, before anything is loaded. Pure arithmetic.

The activations are counted as Korthikanti et al. 2022 (arXiv:2205.05198, section 4.1) count them, operation by operation,
adapted to frozen weights: a frozen linear layer keeps no input for its gradient, an adapted one does. A test compares them
with what autograd really saves. Rows are taken to be max_length long, but for some padding, and all of them trained: the
worst case, and with data.packing, where the batch counts packs of max_length tokens, the usual one.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from lft.core.logits import CHUNK_LOGITS
from lft.core.model_facts import ModelFacts, Shape
from lft.core.precision import Device, uses_autocast
from lft.core.settings import Precision, RunSettings, Strategy
from lft.plan.deepspeed_config import LIVE_ELEMENTS

BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2}
ADAM_BYTES = 8
"""Two float32 moments for each trained parameter (Kingma and Ba 2015)."""
ADAM_8BIT_BYTES = 2
"""The same in blocks of 8-bit numbers, whose scales are below 2 % of them (Dettmers et al. 2022, arXiv:2110.02861)."""
LOGIT_BYTES = 12
"""Three float32 copies: logits, their float32 selection or the loss's gradient, and the log-softmax with its own."""
KEPT_BYTES = {"4bit": 0.5 + (1 + 4 / 256) / 64, "8bit": 1.0}
"""For each quantized weight: half a byte, and a byte for each 64, whose own scale serves 256 (Dettmers et al. 2023)."""
READS_ATTENTION = ("o_proj", "c_proj", "out_proj", "dense")
"""Ends of names of the layers that read what attention made, not what the others of their block read."""
PACKED_ROW = 256
"""Tokens of a row in a pack, assumed where that matters: it is not known before preparation."""
CPU_FRAMEWORK_BYTES = 570 * 10**6
"""Imported libraries, tokenized rows and what the C library keeps: fitted (docs/benchmarks.md)."""
CPU_HEAP_BYTES = 200 * 10**6
"""Freed tensors that glibc's heap keeps between others: fitted; at most as much as the activations."""
CPU_RANK_BYTES = 20 * 10**6
"""What a process group adds to a rank on a CPU: fitted."""
GPU_FRAMEWORK_BYTES = 1_200 * 10**6
"""CUDA context, cuBLAS workspace and allocator slack: an assumption, not measured."""
NCCL_BYTES = 400 * 10**6
"""NCCL's channel buffers: an assumption, not measured."""
COMPOSED_ACTIVATIONS = ("gelu_new", "gelu_fast", "gelu_python", "quick_gelu")
"""Written as several operations each of which keeps its inputs, in transformers.activations."""
MOST_USED = 0.9
"""Of a device's memory: predictions were within 8 %, mostly within 4 (docs/benchmarks.md, with where they are not)."""
SHARDED_WEIGHTS: tuple[Strategy, ...] = ("zero3", "fsdp")
SHARDED: tuple[Strategy, ...] = ("zero2", *SHARDED_WEIGHTS)


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
    """The need of each of `devices`: of all ranks, or of the GPUs over which device-map spreads one process.

    With gradient checkpointing a layer keeps its input alone, and what it kept otherwise is there once, for the layer whose
    backward pass runs (Chen et al. 2016, arXiv:1604.06174); `auto` counts as without.
    """
    several = devices > 1 and strategy != "single"
    share = devices if several and strategy != "ddp" else 1
    trained = model.trained_parameters(settings.lora)
    checkpoint = sum(model.checkpoint_bytes.values())
    all_weights = model.parameters * BYTES[precision]
    saved = quantized_savings(model, settings, BYTES[precision])
    all_weights -= saved
    weights = weight_bytes(model, strategy, share, BYTES[precision]) - saved // share
    tokens = settings.training.batch_size * row_length(model, settings)
    activations = tokens * activation_bytes_per_token(model, settings, strategy, precision, device)
    moments = ADAM_BYTES if settings.training.optimizer == "adamw" else ADAM_8BIT_BYTES
    again = 0
    if settings.training.gradient_checkpointing is True:
        inputs = tokens * model.layers * model.hidden_size * BYTES[precision]
        again = activations // model.layers
        activations = min(activations, inputs)
    if strategy == "device-map":
        activations //= share
    framework = GPU_FRAMEWORK_BYTES + (NCCL_BYTES if several and strategy != "device-map" else 0)
    if device == "cpu":
        framework = CPU_FRAMEWORK_BYTES + (CPU_RANK_BYTES if several else 0)
        activations += min(activations, CPU_HEAP_BYTES)
    prediction = MemoryPrediction(
        weights=weights,
        # ZeRO-2 keeps whole weights and shards their float32 gradients and moments, ZeRO-3 and FSDP shard all
        adapters=4 * trained // (1 if strategy == "zero2" else share),
        # DDP reduces copies of the gradients in its buckets; ZeRO-2 reduces in a bucket, then keeps its share
        gradients=4 * trained * (2 if several and strategy in ("ddp", "zero2") else 1) // share,
        optimizer=(moments + (4 if strategy in ("zero2", "zero3") else 0)) * trained // share,
        activations=activations,
        logits=_step_peak_bytes(model, settings, strategy, BYTES[precision], again),
        framework=framework,
        loading=0,
        available=available_bytes,
        unit="rank" if device == "cpu" else "GPU",
    )
    if device == "cuda":
        return prediction
    # the checkpoint is mapped while it is converted; where the types are the same, the weights are the mapping
    mapped = 0 if not saved and BYTES[precision] * model.parameters == checkpoint else checkpoint
    loading = framework + all_weights + mapped - prediction.total
    return prediction.model_copy(update={"loading": max(0, loading)})


def row_length(model: ModelFacts, settings: RunSettings) -> int:
    """Tokens of the longest row: rows are cut at the model's positions too."""
    return min(settings.data.max_length, model.max_positions or settings.data.max_length)


def activation_bytes_per_token(
    model: ModelFacts, settings: RunSettings, strategy: Strategy, precision: Precision, device: Device
) -> int:
    """What autograd keeps of one token's way through all layers, until its backward pass."""
    size, on_gpu, hidden = BYTES[precision], device == "cuda", model.hidden_size
    autocast = uses_autocast(precision, sharded=strategy in SHARDED)
    # RMSNorm computes in float32 everywhere, autocast makes LayerNorm do so on a GPU
    norm_size = 4 if model.has_rms_norm or (on_gpu and autocast) else size
    norms = 2 * (hidden * norm_size + 4 * (1 if model.has_rms_norm else 2))
    dropout = 2 * hidden * (1 if on_gpu else size) if model.hidden_dropout else 0
    mlp = _mlp_bytes(model, size, raised=on_gpu and autocast)
    per_layer = norms + _attention_bytes(model, settings, size, on_gpu) + dropout + mlp
    plain = settings.model.quantization == "none" and not settings.lora.use_dora
    quick = strategy != "zero3" and not autocast and plain
    adapters = (
        _quick_adapter_bytes(model, settings, size, on_gpu) if quick else _adapter_bytes(model, settings, size, on_gpu)
    )
    return model.layers * per_layer + hidden * norm_size + adapters


def _attention_bytes(model: ModelFacts, settings: RunSettings, size: int, on_gpu: bool) -> int:
    """Flash and memory-efficient attention keep their inputs, the output and one sum a head (Dao et al. 2022)."""
    length = row_length(model, settings)
    query, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    mask = 0
    if settings.training.batch_size > 1 and not settings.data.packing:
        # a batch of rows of several lengths has a mask: SDPA keeps it for each layer, as numbers, with keys and values
        # repeated for all heads
        keys, mask = query, length * size
    if model.attention_dropout and not on_gpu:
        # with dropout there is none on a CPU: scores, their softmax and the dropped ones, in float32
        return (query + 2 * keys) * 4 + query * size + 3 * 4 * model.heads * length
    inputs, sums = (query + 2 * keys) * size + mask, 4 * model.heads
    if not settings.data.packing or on_gpu:
        return inputs + query * size + sums
    # row by row (segments.py): the output projection's input is put together from the rows' outputs, which SDPA keeps
    # too, and bf16's own product does not, but the softmax
    own = query * size + sums if size == 4 else model.heads * min(length, PACKED_ROW) * size
    return inputs + query * size + own


def _mlp_bytes(model: ModelFacts, size: int, *, raised: bool) -> int:
    """Gated: the activation's input, and both factors. Else the activation's input, or those of its operations."""
    inner = model.intermediate_size
    if model.is_gated:
        return 3 * inner * size
    if model.activation not in COMPOSED_ACTIVATIONS:
        return inner * size
    # pow's input, tanh's result and the two factors; autocast on a GPU raises pow, and all after it, to float32
    return inner * (4 + 4 + size + 4) if raised else 4 * inner * size


def _quick_adapter_bytes(model: ModelFacts, settings: RunSettings, size: int, on_gpu: bool) -> int:
    """What lora_forward.py keeps: products, and inputs, shared by the layers that have the same.

    With dropout it is a copy with zeros, and a mask in bytes. What attention made is then one more input, unless its rows
    are put together for it, or it is no SDPA's own, which _attention_bytes counts.
    """
    adapted = model.adapted(settings.lora)
    shared, products = _shared_inputs(adapted), len(adapted) * settings.lora.r
    if not settings.lora.lora_dropout:
        return (products + shared) * size
    inputs = {(*name.rpartition(".")[::2], shape.inputs) for name, shape in adapted.items()}
    masks = sum({(block, name in READS_ATTENTION, width): width for block, name, width in inputs}.values())
    counted = not on_gpu and (settings.data.packing or model.attention_dropout)
    return (products + shared) * size + masks + (0 if counted else (masks - shared) * size)


def _adapter_bytes(model: ModelFacts, settings: RunSettings, size: int, on_gpu: bool) -> int:
    """The same with peft's arithmetic. In half precision or after dropout each layer keeps its own copy, else they share."""
    adapted, dropped = model.adapted(settings.lora), settings.lora.lora_dropout > 0
    # a GPU keeps dropout's mask in bytes, a CPU as float32 noise
    mask = (1 if on_gpu else 4) if dropped else 0
    kept = sum(settings.lora.r * size + shape.inputs * mask for shape in adapted.values())
    own = sum(shape.inputs for shape in adapted.values())
    # DoRA multiplies what the base and the adapter made by a trained factor each, and keeps both
    kept += 2 * 4 * sum(shape.outputs for shape in adapted.values()) * settings.lora.use_dora
    return kept + (own if dropped or size < 4 else _shared_inputs(adapted)) * size


def _shared_inputs(adapted: dict[str, Shape]) -> int:
    """The widths of all inputs; layers of one block with the same width have the same, or one that is kept anyway."""
    return sum(inputs for _, inputs in {(name.rpartition(".")[0], shape.inputs) for name, shape in adapted.items()})


def _step_peak_bytes(model: ModelFacts, settings: RunSettings, strategy: Strategy, size: int, again: int) -> int:
    """Held beside the activations at once: the loss over the vocabulary, or the backward pass through one layer.

    `again` are the activations that this layer computes once more.
    """
    tokens = settings.training.batch_size * row_length(model, settings)
    logits = (tokens - settings.training.batch_size) * model.vocab_size
    trains_head = not {"lm_head", "embed_out"}.isdisjoint(settings.lora.modules_to_save)
    if model.changes_logits or strategy == "device-map" or trains_head:
        loss = LOGIT_BYTES * logits
    else:
        # in float32, with a half-precision copy before and after
        chunk = min(logits, CHUNK_LOGITS) * (4 if size == 4 else 4 + size)
        loss = chunk + 2 * tokens * model.hidden_size * size  # hidden states of the trained tokens, and their gradient
    one_layer = (3 * model.intermediate_size + 3 * model.hidden_size) * size * tokens
    largest = max((shape.inputs * shape.outputs for shape in model.linear_layers.values()), default=0)
    if settings.lora.use_dora:  # the layer's weight in float32, its update, their sum and its square
        one_layer += 4 * 4 * largest
    if settings.model.quantization != "none":  # the layer's weight as it is computed with
        one_layer += size * largest
    return max(loss, again + one_layer)


def quantized_savings(model: ModelFacts, settings: RunSettings, size: int) -> int:
    """Bytes that model.quantization takes off weights of `size` bytes each."""
    kept = KEPT_BYTES.get(settings.model.quantization, size)
    return int(model.quantized_parameters() * (size - kept))


def weight_bytes(model: ModelFacts, strategy: Strategy, share: int, size: int) -> int:
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
