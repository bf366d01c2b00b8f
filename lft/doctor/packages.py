"""Installed packages judged: what lft needs, what its libraries need of each other, and what is known to clash. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from lft.doctor.facts import Facts, PackageFacts
from lft.doctor.finding import Finding, fail, ok, warn

OPTIONAL = {
    "deepspeed": ("deepspeed", "strategies zero2 and zero3"),
    "gguf": ("gguf", "models in .gguf files"),
    "bitsandbytes": ("bitsandbytes", "8-bit optimizers"),
    "liger-kernel": ("liger", "Liger's kernels"),
    "gigatoken": ("fast", "faster tokenizing"),
}
"""Package -> lft's extra, and what it is for."""
STACK = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "huggingface-hub",
    "tokenizers",
    "evaluate",
    *OPTIONAL,
)
"""The libraries whose requirements of each other are looked at."""
NCCL = re.compile(r"nvidia-nccl-cu\d+")


class Clash(NamedTuple):
    """Two packages that install together and do not work together, though neither says so."""

    package: str
    versions: str
    other: str
    other_versions: str
    what: str
    fix: str
    source: str


CLASHES_OF = "2026-11-28"
CLASHES = (
    Clash(
        "peft",
        "<0.18",
        "transformers",
        ">=5",
        "peft imports HybridCache, which transformers 5 has not",
        "pip install --upgrade 'peft>=0.18'",
        "https://github.com/huggingface/peft/issues/3333",
    ),
    Clash(
        "bitsandbytes",
        "<0.45.2",
        "torch",
        ">=2.6",
        "bitsandbytes imports triton.ops, which the triton of torch 2.6 has not",
        "pip install --upgrade bitsandbytes",
        "https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1492",
    ),
)
"""Those seen in reports up to CLASHES_OF, for versions that lft's requirements let in."""


def judge_packages(facts: Facts) -> Iterator[Finding]:
    """What is required, what clashes, what could be added."""
    packages = facts.packages
    missing = [text for text in packages.required if (name := _required(text)) and name not in packages.installed]
    old = [text for text in packages.required if _required(text) and _is_too_old(text, packages.installed)]
    wrong = missing + old
    if wrong:
        named = ", ".join(_without_marker(text) for text in wrong)
        fix = "pip install " + " ".join(f"'{_without_marker(text)}'" for text in wrong)
        yield fail("packages", f"missing or too old: {named}", fix)
    for line in packages.broken:
        yield fail("packages", line, f"pip install --upgrade {line.split()[0]} {_needed(line)}")
    for text in packages.required:
        name = _name(text)
        if name in OPTIONAL and _is_too_old(text, packages.installed):
            needed = f"{_without_marker(text)} is needed for {OPTIONAL[name][1]}"
            yield warn(
                "packages", f"{name} {packages.installed[name]}: {needed}", f"pip install '{_without_marker(text)}'"
            )
    yield from _clashes(packages.installed)
    if not wrong and not packages.broken:
        count = sum(bool(_required(text)) for text in packages.required)
        yield ok(
            "packages", f"all {count} that lft requires" if count else "lft is not installed, it runs from its folder"
        )
    yield _optional(packages)


def broken_requirements(installed: Mapping[str, str], requires: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """`peft 0.21.2 needs accelerate>=0.21, and 0.20 is installed`, for lft's libraries. Nothing without `packaging`."""
    try:
        from packaging.requirements import InvalidRequirement, Requirement
    except ImportError:  # it comes with transformers, which is then missing too
        return
    for name in [*STACK, "lft"]:
        for text in requires.get(name, ()):
            try:
                needed = Requirement(text)
                if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
                    continue
            except InvalidRequirement:
                continue
            version = installed.get(normalized(needed.name))
            if version is not None and name != "lft" and not needed.specifier.contains(version, prereleases=True):
                yield f"{name} {installed[name]} needs {needed.name}{needed.specifier}, and {version} is installed"


def normalized(name: str) -> str:
    """As package indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def matches(version: str, condition: str) -> bool:
    """Whether the release of a version fulfils `<0.18`, `<=0.7.0` or `>=5`; what stands behind the numbers is left out."""
    sign, wanted = re.fullmatch(r"(<=?|>=)([\d.]+)", condition).groups()  # type: ignore[union-attr]
    mine, bound = _release(version), _release(wanted)
    return {"<": mine < bound, "<=": mine <= bound, ">=": mine >= bound}[sign]


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"[\d.]*\d", version)
    numbers = [int(part) for part in found[0].split(".") if part] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _clashes(installed: Mapping[str, str]) -> Iterator[Finding]:
    for clash in CLASHES:
        mine, theirs = installed.get(clash.package), installed.get(clash.other)
        if mine and theirs and matches(mine, clash.versions) and matches(theirs, clash.other_versions):
            text = f"{clash.package} {mine} clashes with {clash.other} {theirs}: {clash.what} ({clash.source})"
            yield fail("packages", text, clash.fix)
    nccl = sorted(name for name in installed if NCCL.fullmatch(name))
    if len(nccl) > 1:
        text = f"{' and '.join(nccl)} write to the same folder, and torch may load the wrong one"
        source = "https://github.com/pytorch/pytorch/issues/186591"
        yield fail("packages", f"{text} ({source})", f"pip uninstall {' '.join(nccl)}; then install torch again")


def _optional(packages: PackageFacts) -> Finding:
    have = [f"{name} {packages.installed[name]}" for name in OPTIONAL if name in packages.installed]
    lack = {name: use for name, (_, use) in OPTIONAL.items() if name not in packages.installed}
    text = ", ".join(have) or "none"
    if lack:
        text += f"; not installed: {', '.join(f'{name} ({use})' for name, use in lack.items())}"
    extras = ",".join(OPTIONAL[name][0] for name in lack)
    return ok("optional", text, f"pip install 'lft[{extras}]'" if lack else "")


def _required(text: str) -> str:
    """The name of a requirement that is no extra; nothing for one."""
    return "" if "extra ==" in text else _name(text)


def _name(text: str) -> str:
    found = re.match(r"[\w.-]+", text)
    return normalized(found[0]) if found else ""


def _is_too_old(text: str, installed: Mapping[str, str]) -> bool:
    name, bound = _name(text), re.search(r">=[\d.]+", _without_marker(text))
    return bool(bound and name in installed and not matches(installed[name], bound[0]))


def _without_marker(text: str) -> str:
    return text.partition(";")[0].strip()


def _needed(line: str) -> str:
    found = re.search(r" needs (\S+),", line)
    return f"'{found[1]}'" if found else ""
