"""The card's tables, from report.json: results, data, training, how it was made. What was not measured is left out."""

from collections.abc import Iterator
from typing import Any

from lft.core.throughput import Speed
from lft.core.words import clock, counted, data_size, percent, rounded
from lft.publish.base_model import License
from lft.publish.card_data import is_hub_data_set, shown_source, source_names
from lft.publish.markdown import code, plain, table
from lft.publish.metrics import metric, shown_metrics, verdict

WRITTEN_AS = {"chat": "a chat template", "pair": "prompt, line feed, answer", "text": "plain text"}
LORA = {"r": "LoRA r", "lora_alpha": "LoRA alpha", "lora_dropout": "LoRA dropout", "target_modules": "layers"}
ASKED = {
    "learning_rate": "learning rate",
    "lr_scheduler": "schedule",
    "warmup_steps": "warm-up steps",
    "optimizer": "optimizer",
    "weight_decay": "weight decay",
    "max_grad_norm": "gradients clipped to",
    "label_smoothing": "label smoothing",
    "seed": "seed",
}
"""Settings that a reader needs to repeat the run, and what they are called."""


def result_section(report: dict[str, Any]) -> list[str]:
    """Base against tuned model, with the intervals of the differences, and what they mean."""
    benchmark = report.get("benchmark")
    if not benchmark:
        return []
    names = shown_metrics(benchmark)
    rows = []
    for name in names:
        change = benchmark["difference"][name]
        values = (f"{benchmark[model][name]:.3f}" for model in ("base", "tuned"))
        span = f"{change['low']:+.3f} to {change['high']:+.3f}"
        rows.append((plain(metric(name).label), *values, f"{change['mean']:+.3f}", span, verdict(name, change)))
    lower = ", ".join(plain(metric(name).label) for name in names if metric(name).lower_is_better)
    words = (
        f"{counted(benchmark['prompts'], 'row')} kept out of training{_shared(report)}, answered greedily. The interval is "
        "that of the difference, tuned minus base, by a paired bootstrap over the prompts; it says nothing of other data."
    )
    words += f" Lower is better: {lower}." if lower else ""
    head = ("on held-out rows", "base", "tuned", "difference", "95 % interval", "")
    return ["## Results", table(head, rows), words]


def _shared(report: dict[str, Any]) -> str:
    shared = ((report.get("training") or {}).get("data") or {}).get("shared_prompts") or 0
    return f" (prompts of {shared:,} held-out rows are in training too, with another answer)" if shared else ""


def data_section(report: dict[str, Any], style: str) -> list[str]:
    """What it was trained on: names, rows, tokens, how they were written."""
    settings = (report.get("settings") or {}).get("data") or {}
    if not settings:
        return []
    rows = [("sources", ", ".join(_source(name, settings) for name in source_names(report)))]
    audit = (report.get("training") or {}).get("data")
    if audit:
        share = percent(audit["trained"], audit["tokens"])
        rows.append(("rows", f"{audit['rows']:,} trained on, {audit['held_out']:,} held out"))
        rows.append(("tokens", f"{audit['tokens']:,} an epoch, {share} of them trained"))
        left_out = audit["empty"] + audit["bad"]
        rows += [("left out", f"{counted(left_out, 'row')} that cannot be used")] if left_out else []
    written = WRITTEN_AS.get(style)
    rows += [("written as", written)] if written else []
    packed = ", several rows in one sequence, which do not see each other" if settings.get("packing") else ""
    cut = f"; {counted(audit['cut'], 'row')} cut to that" if audit and audit["cut"] else ""
    rows.append(("length", f"at most {settings.get('max_length')} tokens{cut}{packed}"))
    return ["## Data", table(("", ""), rows)]


def _source(name: str, settings: dict[str, Any]) -> str:
    if not is_hub_data_set(name):
        return code(shown_source(name))
    parts = [f"{key} {code(settings[key])}" for key in ("config", "split", "revision") if settings.get(key)]
    return f"[{code(name)}](https://huggingface.co/datasets/{name})" + (f" ({', '.join(parts)})" if parts else "")


def training_section(report: dict[str, Any]) -> list[str]:
    """The hyperparameters."""
    training, settings = report.get("training"), report.get("settings") or {}
    if not training:
        return []
    asked = settings.get("training") or {}
    rows = [
        ("steps", f"{training['steps']:,} of {training['global_batch_size']:,} {_unit(settings)}"),
        ("epochs", _epochs(asked)),
        ("base model in", str(training["precision"])),
    ]
    lora = settings.get("lora") or {}
    rows += [(words, _value(lora[key])) for key, words in LORA.items() if lora.get(key, "auto") != "auto"]
    rows += [
        (words, _value(asked[key])) for key, words in ASKED.items() if key == "seed" or asked.get(key) not in (None, 0)
    ]
    return ["## Training", table(("", ""), rows)]


def _epochs(asked: dict[str, Any]) -> str:
    limit = asked.get("max_steps")
    return f"{asked.get('num_epochs')}" + (f", at most {counted(limit, 'step')}" if limit else "")


def _unit(settings: dict[str, Any]) -> str:
    return "packs" if (settings.get("data") or {}).get("packing") else "rows"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(code(str(each)) for each in value)
    return f"{value:g}" if isinstance(value, float) else plain(str(value))


def making_section(report: dict[str, Any], license: License | None) -> list[str]:
    """On what and with what it was made, and the license of what it was made from."""
    training, versions = report.get("training"), report.get("versions")
    parts = ["; ".join(facts) + "."] if training and (facts := list(_facts(training))) else []
    if versions:
        parts.append(
            "Versions: " + ", ".join(f"{plain(name)} {plain(str(each))}" for name, each in versions.items()) + "."
        )
    if license:
        name = plain(license.license_name or license.license)
        shown = f"[{name}]({license.license_link})" if license.license_link else name
        parts.append(f"License of the base model: {shown}.")
    return ["## How it was made", *parts] if parts else []


def _facts(training: dict[str, Any]) -> Iterator[str]:
    """Size, time and place, as far as a report of any version has them."""
    if "parameters" in training:
        yield f"{rounded(training['trainable_parameters'])} of {rounded(training['parameters'])} parameters trained"
    peaks = training.get("peak_memory_bytes_by_rank") or []
    if "strategy" in training and peaks:
        where = f"{counted(len(peaks), 'rank')} ({training['strategy']}, {training['device']})"
        yield f"{clock(training['seconds'])} on {where}"
    if speed := Speed.model_validate(training, extra="ignore").describe():
        yield speed
    if peaks:
        yield f"at most {data_size(max(peaks))} of memory a rank"
