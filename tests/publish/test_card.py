"""The model card: made from what lies beside it, the same for everyone, and never over a card of the user's own."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from lft.core.settings import RunSettings
from lft.publish.base_model import License
from lft.publish.card import MARK, card_text, write_card
from lft.publish.card_data import eval_results
from tests.local_hub.cards import metadata_errors

BETTER = {"mean": 0.1, "low": 0.05, "high": 0.15, "significant": True}
UNSURE = {"mean": 0.1, "low": -0.05, "high": 0.25, "significant": False}
NAMES = ("rouge1", "rougeL", "loss", "my_metric")
SETTINGS = {
    "model": {"name": "someone/model"},
    "data": {"source": "openai/gsm8k", "config": "main"},
    "output_dir": "/elsewhere/out",
}
AUDIT = {"rows": 972, "held_out": 128, "tokens": 44695, "trained": 9359, "empty": 2, "bad": 1, "cut": 3}
TRAINED = {
    "steps": 30,
    "global_batch_size": 16,
    "precision": "bf16",
    "peak_memory_bytes_by_rank": [2**30, 2**29],
    "trainable_parameters": 921_600,
    "parameters": 135_436_608,
    "seconds": 312.0,
    "strategy": "ddp",
    "device": "cpu",
    "tokens_per_second": 1234.0,
    "data": AUDIT,
}
REPORT: dict[str, Any] = {
    "settings": RunSettings.model_validate(SETTINGS).model_dump(mode="json"),
    "versions": {"lft": "0.1.0", "torch": "2.9.0"},
    "training": TRAINED,
    "benchmark": {
        "prompts": 50,
        "base": dict.fromkeys(NAMES, 0.25),
        "tuned": dict.fromkeys(NAMES, 0.35),
        "difference": dict.fromkeys(NAMES, BETTER) | {"my_metric": UNSURE},
    },
}
HOSTILE = 'a|b`c``\n---\nx: <script>alert(1)</script> [l](javascript:0) \u202e\x1b[2J" + 1 #'


def finished(folder: Path, base: str, report: dict[str, Any] | None = None) -> Path:
    """The output_dir of a run on `base`."""
    adapter = {"r": 8, "lora_alpha": 32, "target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": base}
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "lft.json").write_text(json.dumps({"base_model": base}))
    if report is not None:
        (folder / "run" / "report.json").write_text(json.dumps(report))
    return folder


def metadata(text: str) -> dict[str, Any]:
    """The YAML at the top of a card."""
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_card_of_a_public_model_names_it_with_the_numbers_of_the_run(tmp_path: Path) -> None:
    text = card_text(finished(tmp_path, "someone/model", REPORT), "me/support-lora", License("apache-2.0"))
    found = metadata(text)
    assert {
        key: found[key] for key in ("base_model", "base_model_relation", "library_name", "pipeline_tag", "tags")
    } == {
        "base_model": "someone/model",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "lft"],
    }
    assert (found["datasets"], found["license"]) == (["openai/gsm8k"], "apache-2.0")
    for words in (
        "# support-lora\n",
        "r=8, alpha=32, on `q_proj`, `v_proj`",
        '"someone/model", dtype="auto"',
        'adapter = "me/support-lora"',
        "| ROUGE-L | 0.250 | 0.350 | +0.100 | +0.050 to +0.150 | better |",
        "| held-out loss | 0.250 | 0.350 | +0.100 | +0.050 to +0.150 | worse |",
        "| my\\_metric | 0.250 | 0.350 | +0.100 | -0.050 to +0.250 | no significant change |",
        "50 rows kept out of training",
        "Lower is better: held-out loss.",
        "| sources | [`openai/gsm8k`](https://huggingface.co/datasets/openai/gsm8k) (config `main`, split `train`) |",
        "| rows | 972 trained on, 128 held out |",
        "| tokens | 44,695 an epoch, 21 % of them trained |",
        "| left out | 3 rows that cannot be used |",
        "| length | at most 512 tokens; 3 rows cut to that |",
        "| steps | 30 of 16 rows |",
        "| epochs | 3 |",
        "| learning rate | 0.0002 |",
        "922 k of 135 M parameters trained; 0:05:12 on 2 ranks (ddp, cpu); 1,230 tok/s; at most 1.0 GiB of memory a rank.",
        "Versions: lft 0.1.0, torch 2.9.0.",
        "License of the base model: apache-2.0.",
    ):
        assert words in text


def test_the_hub_and_its_client_read_the_metadata_as_it_was_meant(tmp_path: Path) -> None:
    text = card_text(finished(tmp_path, "someone/model", REPORT), "me/support-lora")
    assert metadata_errors(text) == []
    data: Any = ModelCard(text).data
    assert data.eval_results == eval_results(REPORT)
    assert data.model_name == "support-lora"
    first = data.eval_results[0]
    assert (first.dataset_type, first.dataset_config, first.metric_name) == ("openai/gsm8k", "main", "held-out loss")
    assert metadata(text)["metrics"] == ["rouge", "my_metric"]


def test_a_number_that_is_none_is_no_result(tmp_path: Path) -> None:
    benchmark = REPORT["benchmark"] | {"tuned": dict.fromkeys(NAMES, 0.35) | {"loss": float("nan")}}
    text = card_text(finished(tmp_path, "someone/model", REPORT | {"benchmark": benchmark}), None)
    assert [each.metric_type for each in vars(ModelCard(text).data)["eval_results"]] == ["rouge", "rouge", "my_metric"]


def test_names_that_would_be_markup_are_shown_and_obeyed_by_nobody(tmp_path: Path) -> None:
    data = REPORT["settings"]["data"] | {"source": [{"source": f"/data/{HOSTILE}", "weight": 1.0}]}
    benchmark = {
        "prompts": 1,
        **{key: {HOSTILE: value} for key, value in (("base", 0.1), ("tuned", 0.2), ("difference", BETTER))},
    }
    changes = {"settings": REPORT["settings"] | {"data": data}, "benchmark": benchmark, "versions": {HOSTILE: HOSTILE}}
    folder = finished(tmp_path, f"/models/{HOSTILE}", REPORT | changes)
    for repo_name in ("me/x", f"me/{HOSTILE}", None):
        text = card_text(
            folder, repo_name, License.of(dict.fromkeys(("license", "license_name", "license_link"), HOSTILE))
        )
        assert metadata_errors(text) == []
        assert metadata(text)["library_name"] == "peft"
        assert vars(ModelCard(text).data)["eval_results"]
        assert not {"\u202e", "\x1b"} & set(text)
        blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
        assert len(blocks) == 2
        for block in blocks:
            ast.parse(block)
        page = MarkdownIt("commonmark").enable("table").render(text.split("\n---\n", 1)[1])
        tags = set(re.findall(r"<(\w+)", page))
        assert tags <= {"h1", "h2", "p", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}
        rows = [len(re.findall("<t[hd]", row)) for row in re.findall("<tr>.*?</tr>", page, re.S)]
        assert set(rows) == {2, 6}, "no name adds a cell"
        assert "javascript:0" in page, "the name is shown"


LICENSES = {
    "folder": "---\nlicense: mit\n---\n# base\n",
    "other": "---\nlicense: other\nlicense_name: my-terms\nlicense_link: https://example.com/terms\n---\n",
    "none": "# base\n",
    "broken": "---\nlicense: [\n---\n",
    "a list": "---\nlicense: [mit]\n---\n",
}


@pytest.mark.parametrize(("kind", "said"), [("folder", "mit"), ("other", "[my-terms](https://example.com/terms)")])
def test_the_license_of_a_local_base_model_is_that_of_its_own_card(kind: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text(LICENSES[kind])
    text = card_text(finished(tmp_path / "out", str(tmp_path / "base"), REPORT), None)
    assert metadata(text)["license"] == ("mit" if kind == "folder" else "other")
    assert f"License of the base model: {said}." in text


@pytest.mark.parametrize("kind", ["none", "broken", "a list"])
def test_a_license_that_is_not_known_is_not_named(kind: str, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text(LICENSES[kind])
    text = card_text(finished(tmp_path / "out", str(tmp_path / "base"), REPORT), None)
    assert "icense" not in text


def test_a_license_that_the_hub_has_told_once_stays_on_the_card(tmp_path: Path) -> None:
    folder = finished(tmp_path, "someone/model", REPORT)
    write_card(folder, "me/x", License("gemma"))
    write_card(folder, "me/x")
    assert metadata((folder / "README.md").read_text())["license"] == "gemma"


def test_the_loss_picture_is_shown_where_there_is_one(tmp_path: Path) -> None:
    folder = finished(tmp_path, "someone/model", REPORT)
    assert "loss.png" not in card_text(folder, None)
    (folder / "run" / "loss.png").write_bytes(b"png")
    assert "\n![loss while training](loss.png)\n" in card_text(folder, None)


@pytest.mark.parametrize("base", ["{here}/models/llama", "./models/llama", "~/models/llama", "models/deep/llama"])
def test_the_card_of_a_local_model_names_no_path_of_this_machine(base: str, tmp_path: Path) -> None:
    local = base.replace("{here}", str(tmp_path))
    data = REPORT["settings"]["data"] | {"source": str(tmp_path / "data" / "support.jsonl")}
    report = REPORT | {"settings": REPORT["settings"] | {"data": data}}
    for repo_name in ("me/x", None):
        text = card_text(finished(tmp_path / "out", local, report), repo_name)
        assert "base_model" not in metadata(text)
        assert ('from_pretrained("llama"' in text) is bool(repo_name)
        assert ("PeftConfig.from_pretrained(adapter).base_model_name_or_path" in text) is (repo_name is None)
        assert "| sources | `support.jsonl` |" in text
        assert str(tmp_path) not in text
        assert "models/" not in text
        assert "elsewhere" not in text


def test_the_same_adapter_and_report_give_the_same_card_anywhere(tmp_path: Path) -> None:
    first, second = (finished(tmp_path / name, "someone/model", REPORT) for name in ("a", "b"))
    write_card(first, "me/x")
    before = (first / "README.md").read_bytes()
    write_card(first, "me/x")
    write_card(second, "me/x")
    assert (first / "README.md").read_bytes() == (second / "README.md").read_bytes() == before


@pytest.mark.parametrize(("mark", "is_replaced"), [("", False), (MARK, True)])
def test_a_card_that_its_user_made_their_own_is_left_alone(mark: str, is_replaced: bool, tmp_path: Path) -> None:
    folder = finished(tmp_path, "someone/model", REPORT)
    (folder / "README.md").write_bytes(b"# mine \xff\n" + mark.encode())
    write_card(folder)
    assert (b"# mine" not in (folder / "README.md").read_bytes()) is is_replaced


@pytest.mark.parametrize("report", [None, {"training": None, "benchmark": None}, REPORT | {"benchmark": None}])
def test_a_run_without_numbers_has_a_card_without_them(report: dict[str, Any] | None, tmp_path: Path) -> None:
    text = card_text(finished(tmp_path, "someone/model", report), None)
    assert "## Results" not in text
    assert ("## Training" in text) is bool(report and report["training"])
    assert "None" not in text
