"""The GPUs this process may use, found without torch: NVIDIA's through nvidia-smi, AMD's through the kernel.

AMD's part follows the kernel's documentation and has not been run on such a machine.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict

from lft.core.rank import HIP_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES, visible_gpus

NVIDIA_SMI_TIMEOUT_SECONDS = 20
NVIDIA_SMI_FIELDS = "index,uuid,name,memory.total,compute_cap,mig.mode.current"
BF16_COMPUTE_CAPABILITY = 8.0  # Ampere
BF16_AMD = (90008, 110000)  # gfx908 (CDNA 1) and later of its line; gfx11 (RDNA 3) and later
KFD_NODES = "sys/class/kfd/kfd/topology/nodes"
KFD_DEVICE_MEMORY = ("1", "2")  # heap types: frame buffer, seen by the CPU or not


class Gpu(BaseModel):
    """One GPU. `token` is its entry in CUDA_VISIBLE_DEVICES, or its index where that is not set."""

    model_config = ConfigDict(frozen=True)

    token: str
    name: str
    memory_bytes: int
    """0 where the driver does not tell."""
    computes_bf16: bool


class Device(NamedTuple):
    """A GPU or a part of one, and what CUDA_VISIBLE_DEVICES may call it: an index, or the start of a UUID."""

    ordinal: str
    uuid: str
    gpu: Gpu
    is_part: bool = False


def find_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """The GPUs that CUDA or HIP would show this process, in its order. Empty where there are none, or no driver."""
    visible = visible_gpus()
    if visible == ():
        return ()
    table = _ask_nvidia_smi(f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits")
    if table:
        has_parts = "Enabled" in table or any(token.startswith("MIG") for token in visible or ())
        return parse_nvidia_smi(table, visible, _ask_nvidia_smi("-L") if has_parts else "")
    return _amd_gpus(root, visible)


def parse_nvidia_smi(table: str, visible: tuple[str, ...] | None, listing: str = "") -> tuple[Gpu, ...]:
    """GPUs out of `nvidia-smi --query-gpu=NVIDIA_SMI_FIELDS --format=csv,noheader,nounits`, and of `nvidia-smi -L`.

    `visible` are the tokens of CUDA_VISIBLE_DEVICES. A card in MIG mode stands for its first part, and of several parts
    a process sees the first only (NVIDIA's MIG User Guide, "CUDA Device Enumeration"). A part that is not listed has a
    memory of 0.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.count(",") == 5]
    cards = [Device(row[0], row[1], _nvidia_gpu(row)) for row in rows]
    if not cards:
        return ()
    parts = parse_mig_listing(listing, {card.uuid: card.gpu for card in cards})
    whole = {row[1]: row[5] != "Enabled" for row in rows}
    if visible is None:
        found = [card for card in cards if whole[card.uuid]] or [part for _, part in parts]
    else:
        known = [*cards, *(part for _, part in parts)]
        found = []
        for token in visible:
            device = _named(token, known) or _unlisted_part(token, cards[0])
            if device is None:
                break  # CUDA ignores everything after a token that names no device
            if not device.is_part and not whole[device.uuid]:
                device = next((part for card, part in parts if card == device.uuid), device)
            found.append(device._replace(gpu=device.gpu.model_copy(update={"token": token})))
    if any(device.is_part for device in found):
        found = found[:1]
    return tuple(device.gpu for device in found)


def parse_mig_listing(listing: str, cards: Mapping[str, Gpu]) -> list[tuple[str, Device]]:
    """UUID of the card and the part, for each line `MIG 1g.5gb Device 0: (UUID: MIG-...)` below a card of `cards`."""
    found: list[tuple[str, Device]] = []
    card = ""
    for line in listing.splitlines():
        match = re.match(r"\s*(GPU \d+|MIG (\S+)).*\(UUID: ([^)]+)\)", line)
        if match is None:
            continue
        _, profile, uuid = match.groups()
        if profile is None:
            card = uuid
        elif card in cards:
            gigabytes = re.search(r"(\d+)gb", profile)
            facts = {
                "token": uuid,
                "name": f"{cards[card].name} MIG {profile}",
                "memory_bytes": int(gigabytes[1]) * 10**9 if gigabytes else 0,
            }
            found.append((card, Device("", uuid, cards[card].model_copy(update=facts), is_part=True)))
    return found


def _nvidia_gpu(row: list[str]) -> Gpu:
    capability = float(row[4]) if row[4].replace(".", "").isdigit() else 0.0
    return Gpu(
        token=row[0],
        name=row[2],
        memory_bytes=int(float(row[3])) * 2**20 if row[3].replace(".", "").isdigit() else 0,
        computes_bf16=capability >= BF16_COMPUTE_CAPABILITY,
    )


def _named(token: str, devices: list[Device]) -> Device | None:
    """The one device a token names; a start of several UUIDs names none."""
    by_uuid = [device for device in devices if not token.isdigit() and device.uuid.startswith(token)]
    found = [device for device in devices if device.ordinal == token] or by_uuid
    return found[0] if len(found) == 1 else None


def _unlisted_part(token: str, card: Device) -> Device | None:
    """A MIG token that could not be looked up, as when the driver hides the listing from a container."""
    if not token.startswith("MIG"):
        return None
    return Device("", token, card.gpu.model_copy(update={"memory_bytes": 0}), is_part=True)


def _ask_nvidia_smi(*arguments: str) -> str:
    """What nvidia-smi prints, or nothing where it is missing, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        answer = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def _amd_gpus(root: Path, visible: tuple[str, ...] | None) -> tuple[Gpu, ...]:
    """GPUs of the kernel's list, as ROCR_VISIBLE_DEVICES leaves and then numbers them; HIP and CUDA choose of these."""
    nodes = sorted((root / KFD_NODES).glob("*/properties"), key=lambda path: int(path.parent.name))
    facts = [(path.parent, _numbers(path)) for path in nodes]
    devices = [
        Device(str(index), f"GPU-{int(numbers.get('unique_id', '0')):x}", _amd_gpu(node, numbers))
        for index, (node, numbers) in enumerate(
            (node, numbers) for node, numbers in facts if numbers.get("simd_count", "0") != "0"
        )
    ]
    left = visible_gpus(ROCR_VISIBLE_DEVICES)
    if left is not None:
        devices = [device._replace(ordinal=str(place)) for place, device in enumerate(_all_named(left, devices))]
    chosen = visible_gpus(HIP_VISIBLE_DEVICES)
    chosen = visible if chosen is None else chosen
    if chosen is not None:
        devices = _all_named(chosen, devices)
    return tuple(device.gpu.model_copy(update={"token": device.ordinal}) for device in devices)


def _all_named(tokens: tuple[str, ...], devices: list[Device]) -> list[Device]:
    """The devices tokens name, up to the first that names none."""
    found = [_named(token, devices) for token in tokens]
    return [device for device in found[: found.index(None) if None in found else None] if device]


def _amd_gpu(node: Path, numbers: Mapping[str, str]) -> Gpu:
    """gfx_target_version 90010 is gfx90a: major, minor and step, two digits each, the last two in hexadecimal."""
    version = int(numbers.get("gfx_target_version", "0"))
    banks = [_numbers(path) for path in node.glob("mem_banks/*/properties")]
    own = [int(bank["size_in_bytes"]) for bank in banks if bank.get("heap_type") in KFD_DEVICE_MEMORY]
    return Gpu(
        token="",
        name=f"AMD gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}",
        memory_bytes=sum(own),
        computes_bf16=BF16_AMD[0] <= version < 100000 or version >= BF16_AMD[1],
    )


def _numbers(path: Path) -> dict[str, str]:
    """The lines `name number` of a file of the kernel."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {words[0]: words[1] for line in lines if len(words := line.split()) == 2}
