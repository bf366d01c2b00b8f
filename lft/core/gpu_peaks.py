"""The most that known GPUs multiply and add, without sparsity: what model FLOPs utilisation is measured against.

As NVIDIA's data sheets and architecture white papers (Volta to Blackwell) and AMD's data sheets (Instinct) give it, for sums in
float32, which consumer cards form at half their headline figure. None of it has been measured here.
"""

import re
from typing import NamedTuple

from lft.core.settings import Precision


class Peak(NamedTuple):
    """TFLOP/s of matrix products, dense: in half precision, and in float32, as TF32 where the GPU has it."""

    half: float
    single: float


# the first pattern found in the name counts, as nvidia-smi and torch write names
PEAKS: tuple[tuple[str, Peak], ...] = (
    (r"B200", Peak(2250, 1125)),
    (r"H200", Peak(989, 495)),
    (r"H100 PCIe", Peak(756, 378)),
    (r"H100 NVL", Peak(835, 418)),
    (r"H100|H800|GH200", Peak(989, 495)),
    (r"A100|A800", Peak(312, 156)),
    (r"A40\b", Peak(150, 75)),
    (r"A30\b", Peak(165, 82)),
    (r"A10G", Peak(70, 35)),
    (r"A10\b", Peak(125, 62.5)),
    (r"RTX A6000", Peak(155, 77)),
    (r"L40S", Peak(362, 183)),
    (r"L40\b", Peak(181, 90)),
    (r"L4\b", Peak(121, 60)),
    (r"RTX 6000 Ada", Peak(364, 182)),
    (r"RTX 5090", Peak(210, 105)),
    (r"RTX 4090", Peak(165, 83)),
    (r"RTX 3090", Peak(71, 36)),
    (r"V100.*PCI", Peak(112, 14)),
    (r"V100", Peak(125, 15.7)),
    (r"T4\b", Peak(65, 8.1)),
    (r"MI300X", Peak(1307, 163)),
    (r"MI250X", Peak(192, 48)),  # one of its two dies, as which it is seen
)


def peak_flops(name: str, precision: Precision) -> float | None:
    """FLOP/s of the GPU of this name; None where it is not known, and for a part of one (MIG)."""
    if "MIG" in name or "Laptop" in name:
        return None
    peak = next((peak for pattern, peak in PEAKS if re.search(pattern, name)), None)
    if peak is None:
        return None
    return 1e12 * (peak.single if precision == "fp32" else peak.half)
