"""torch, the driver and the GPUs judged together: most broken set-ups are two of them that do not fit. Pure."""

import re
from collections.abc import Iterator, Sequence

from lft.core.words import counted, data_size, percent
from lft.doctor.facts import Facts, TorchFacts
from lft.doctor.finding import Finding, fail, ok, warn

SLOW_IMPORT_SECONDS = 15.0
MOST_USED = 0.1
"""Of a GPU's memory, by others, without a word."""
TORCH_PAGE = "the line of https://pytorch.org/get-started/locally for"


def judge_torch(facts: Facts) -> Iterator[Finding]:
    """Whether torch is there, works, and is the build for this machine."""
    torch = facts.torch
    if not torch.version:
        if "No module named 'torch'" in torch.error:
            yield fail("torch", "is not installed", "pip install torch")
        else:
            fix = f"pip install --force-reinstall torch; then: {facts.executable} -c 'import torch'"
            yield fail("torch", f"cannot be imported: {torch.error}", fix)
        return
    build = f"for CUDA {torch.cuda}" if torch.cuda else f"for ROCm {torch.hip}" if torch.hip else "for the CPU"
    took = f"imported in {torch.import_seconds:.1f} s"
    if torch.import_seconds > SLOW_IMPORT_SECONDS:
        fix = "put the environment on a local disk; every rank imports it"
        yield warn("torch", f"{torch.version}, {build}, {took}: every start of a run waits for that", fix)
    else:
        yield ok("torch", f"{torch.version}, {build}, {took}")
    yield from _build(facts)
    yield from _kernels(torch)
    if torch.flash_attention_error:
        text = f"flash-attn is installed and cannot be imported: {torch.flash_attention_error}"
        yield warn("torch", text, "pip uninstall flash-attn, or install it again, built for this torch")


def _build(facts: Facts) -> Iterator[Finding]:
    """Whether this build of torch is for these GPUs and their driver."""
    torch, driver, machine = facts.torch, facts.driver, facts.machine
    count = len(driver.cards) or len(machine.gpus)
    if count and not (torch.cuda or torch.hip):
        wanted = f"CUDA {driver.cuda or '12'}" if driver.cards else "ROCm"
        text = f"{counted(count, 'GPU')} here, and this torch is built for the CPU: none of them is used"
        yield fail("torch", text, f"pip install --force-reinstall torch, by {TORCH_PAGE} {wanted}")
    elif torch.cuda and driver.cuda and _major(torch.cuda) > _major(driver.cuda):
        # within a major version any driver will do (CUDA Compatibility, "Minor Version Compatibility")
        text = f"it is built for CUDA {torch.cuda}, and driver {driver.version} runs CUDA {driver.cuda} at most"
        yield fail("torch", text, f"update the driver, or take {TORCH_PAGE} CUDA {driver.cuda}")
    elif count and not torch.gpus and not machine.hides_gpus:
        said = torch.error or "it does not say why"
        fix = "nvidia-smi; in a container: --gpus all; after a driver update: restart the machine"
        yield fail("torch", f"sees none of {counted(count, 'GPU')}: {said}", fix)
    elif 0 < len(torch.gpus) < len(machine.gpus):
        text = f"sees {len(torch.gpus)} of {len(machine.gpus)} GPUs: {torch.error or 'it does not say why'}"
        yield fail("torch", text, "nvidia-smi; dmesg | grep -i nvrm; or leave it out by CUDA_VISIBLE_DEVICES")
    elif torch.gpus and not machine.gpus:
        text = (
            f"torch sees {counted(len(torch.gpus), 'GPU')}, and nvidia-smi, by which lft finds them, does not work here"
        )
        fix = "install it; in a container: -e NVIDIA_DRIVER_CAPABILITIES=compute,utility"
        yield fail("torch", text, fix)


def judge_gpus(facts: Facts) -> Iterator[Finding]:
    """The driver and its cards, whoever uses them."""
    driver, machine = facts.driver, facts.machine
    if driver.error:
        fix = "restart the machine after a driver update; dmesg | grep -i nvrm shows the kernel's word"
        yield fail("gpus", f"nvidia-smi fails: {driver.error}", fix)
    elif machine.hides_gpus and driver.cards:
        text = f"{counted(len(driver.cards), 'GPU')}, all hidden by CUDA_VISIBLE_DEVICES: runs are on the CPU"
        yield warn("gpus", text, "unset CUDA_VISIBLE_DEVICES")
    elif machine.gpus:
        names = ", ".join(sorted({gpu.name for gpu in machine.gpus}))
        memory = min(gpu.memory_bytes for gpu in machine.gpus)
        hidden = len(driver.cards) - len(machine.gpus)
        text = f"{len(machine.gpus)} x {names}, {data_size(memory)} each"
        text += f"; {hidden} more not shown by CUDA_VISIBLE_DEVICES" if hidden > 0 else ""
        yield ok("gpus", text)
    else:
        unused = f": {machine.unused_gpu} is not used" if machine.unused_gpu else ""
        yield ok("gpus", f"none{unused}; runs are on the CPU")
    if driver.version:
        yield ok("driver", f"{driver.version}, runs CUDA {driver.cuda or 'of unknown version'}")
    for card in driver.cards:
        if card.compute_mode == "Prohibited":
            fix = f"sudo nvidia-smi -i {card.index} -c DEFAULT"
            yield fail("gpus", f"GPU {card.index} is in compute mode Prohibited: nothing can run on it", fix)
        if card.memory_bytes and card.used_bytes > MOST_USED * card.memory_bytes:
            text = (
                f"GPU {card.index}: {data_size(card.used_bytes)} ({percent(card.used_bytes, card.memory_bytes)}) in use"
            )
            yield warn("gpus", f"{text} by others", "nvidia-smi shows by whom; or leave it out by CUDA_VISIBLE_DEVICES")
    if len(machine.gpus) > 1 and facts.torch.version:
        yield from _nccl(facts.torch)


def judge_precision(facts: Facts) -> Finding:
    """What the base model can be computed in here."""
    gpus, flags = facts.machine.gpus, facts.cpu_flags
    if gpus:
        have = all(gpu.computes_bf16 for gpu in gpus)
        words = "bf16, fp16 and TF32" if have else "fp16, not bf16 or TF32 (those came with NVIDIA's Ampere)"
        return ok("precision", f"{words}; decided by the checkpoint")
    natively = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in flags]
    if natively:
        return ok("precision", f"float32, and bf16 by {natively[0]}; measured at the start of each run")
    wide = next((name for name in ("avx512f", "avx2") if name in flags), "")
    return ok("precision", f"float32{f' by {wide}' if wide else ''}; this CPU has no instructions for bf16")


def _nccl(torch: TorchFacts) -> Iterator[Finding]:
    if torch.nccl:
        yield ok("nccl", torch.nccl)
    elif torch.cuda:
        fix = "pip install --force-reinstall torch, a build for Linux"
        yield fail("nccl", "this torch has none, and several GPUs talk through it", fix)


def _kernels(torch: TorchFacts) -> Iterator[Finding]:
    """GPUs that are newer or older than the kernels of this torch, or that do not compute."""
    for problem in torch.broken:
        yield fail("torch", f"does not compute on {problem}", "nvidia-smi; or leave it out by CUDA_VISIBLE_DEVICES")
    if torch.broken or not torch.architectures or torch.hip:
        return
    for name, capability in dict(zip(torch.gpus, torch.capabilities, strict=False)).items():
        if not runs_on(capability, torch.architectures):
            compiled = ", ".join(torch.architectures)
            text = f"has no kernels for {name} (sm_{capability[0]}{capability[1]}), only for {compiled}"
            yield fail("torch", text, f"install a build for it, by {TORCH_PAGE} a newer CUDA")


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether kernels run on a GPU: binaries of its major version up to its minor one, or code compiled when it is loaded.

    CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility"; sm_90a and the like run on sm_90 only.
    """
    for text in architectures:
        found = re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", text)
        if found is None:
            continue
        kind, major, minor, alone = found[1], int(found[2]), int(found[3]), bool(found[4])
        if (major, minor) == capability:
            return True
        if not alone and kind == "sm" and major == capability[0] and minor < capability[1]:
            return True
        if not alone and kind == "compute" and (major, minor) < capability:
            return True
    return False


def _major(version: str) -> int:
    return int(version.partition(".")[0])
