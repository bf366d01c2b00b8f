"""axolotl's data sets: what their types mean by the names of columns."""

from collections.abc import Callable
from typing import Any

from lft.foreign.draft import EMPTY, OFF, Draft
from lft.foreign.values import is_off, names, text

RECOGNISED = "lft recognises rows by their columns and writes them in the tokenizer's chat template"

NEEDLESS = {
    "ds_type": "the suffix of the file says it",
    "trust_remote_code": "lft runs no code of data sets",
    "preprocess_shards": "lft cuts files into blocks itself",
    "roles": "the roles of published data sets are known: human, gpt, bot, ...",
    "message_field_role": "messages are recognised: role and content, or from and value",
    "message_field_content": "messages are recognised: role and content, or from and value",
    "message_property_mappings": "messages are recognised: role and content, or from and value",
    "field_thinking": "the template is given whole messages, with reasoning_content",
    "template_thinking_key": "the template is given whole messages, with reasoning_content",
    "split_thinking": "the template is given whole messages, with reasoning_content",
    "field_tools": "a column tools is given to the template",
    "train_on_eos": "lft trains the end of each answer",
    "train_on_eot": "lft trains the end of each answer",
    "conversation": "the tokenizer's chat template is used",
    "chat_template": "the tokenizer's chat template is used; data.chat_template takes one of your own (Jinja)",
}
MISSING = {
    "shards": "all rows are used; data.num_samples takes the first ones, a weight below 1 a share",
    "drop_system_message": "system texts stay",
}
UNKNOWN = "lft does not know this key of a data set; lft data inspect shows what becomes of the rows"
"""Of a data set."""
ALPACA_LIKE = (
    "alpaca",
    "oasst",
    "gpteacher",
    "reflection",
    "explainchoice",
    "concisechoice",
    "summarizetldr",
    "context_qa",
)


def datasets(draft: Draft, value: Any) -> None:
    """A list of data sets, or one."""
    found = value if isinstance(value, list) else [value]
    key = draft.key
    sources: list[dict[str, Any]] = []
    for number, each in enumerate(found):
        inside = (*key, str(number)) if isinstance(value, list) else key
        if not isinstance(each, dict):
            each = {"path": each}
        sources.append({"source": _one(draft, each, inside, alone=len(found) == 1)})
    draft.key = key
    if len({str(each.get("type")) for each in found if isinstance(each, dict)}) > 1:
        draft.lack(
            "several types of rows: lft reads all sources in one form; write them alike, for example as messages"
        )
    set_sources(draft, sources)


def pretraining(draft: Draft, value: Any) -> None:
    """Plain texts, streamed."""
    datasets(draft, value)
    if draft.values.get("max_steps") and not any(
        str(source).startswith((".", "/")) for source in [draft.settings.get("data.source")]
    ):
        draft.set("data.streaming", True)


def set_sources(draft: Draft, sources: list[dict[str, Any]]) -> None:
    """One name, or a list with weights."""
    if len(sources) == 1 and sources[0].get("weight", 1) == 1:
        draft.set("data.source", sources[0]["source"])
    elif sources:
        draft.set("data.source", sources)
        draft.sources["data.source"] = f"{draft.file.place(draft.key)} {draft.key[-1]}"


def _one(draft: Draft, each: dict[str, Any], inside: tuple[str, ...], *, alone: bool) -> str:
    """Note what becomes of each key of a data set; returns its name."""
    for name, value in each.items():
        draft.key = (*inside, str(name))
        if value is None:
            draft.drop(EMPTY)
        elif name in _READ:
            _READ[name](draft, each, value, alone)
        elif name in NEEDLESS:
            draft.drop(NEEDLESS[name])
        elif is_off(value):
            draft.drop(OFF)
        else:
            draft.lack(MISSING.get(name, UNKNOWN))
    return _source(each)


def _path(draft: Draft, each: dict[str, Any], value: Any, alone: bool) -> None:
    draft.agree("data.source", _source(each))


def _source(each: dict[str, Any]) -> str:
    """`path: json` with `data_files` means the files."""
    path, files = text(each.get("path", "")), each.get("data_files")
    if path in ("json", "csv", "text", "parquet", "arrow") and files:
        return _local(names(files)[0])
    return _local(path) if each.get("ds_type") and "." in path.rsplit("/", 1)[-1] else path


def _local(path: str) -> str:
    return path if path.startswith((".", "/", "~")) or "://" in path else f"./{path}"


def _files(draft: Draft, each: dict[str, Any], value: Any, alone: bool) -> None:
    files = names(value)
    if each.get("path") in ("json", "csv", "text", "parquet", "arrow"):
        draft.agree("data.source", _local(files[0]))
        if len(files) > 1:
            draft.lack(f"only {files[0]} is used; make data.source a list of {{source}}, or a pattern")
    elif len(files) == 1:
        draft.set("data.data_files", files[0])
    else:
        draft.lack("data.data_files takes one name or pattern; all files are used")


def _of_hub(draft: Draft, each: dict[str, Any], value: Any, alone: bool) -> None:
    """There is one configuration, split and revision for all sources."""
    name = draft.key[-1]
    setting = "data.config" if name == "name" else f"data.{name}"
    if draft.settings.get(setting, "train" if setting == "data.split" else None) == value:
        draft.agree(setting, text(value))
    elif alone or setting not in draft.settings:
        draft.set(setting, text(value), "" if alone else "for all sources")
    else:
        draft.lack(f"{setting} is one for all sources: {draft.settings[setting]}")


def _column(draft: Draft, each: dict[str, Any], value: Any, alone: bool) -> None:
    if alone:
        draft.set("data.text_columns", [text(value)])
    else:
        draft.lack("recognised by its name and content alone: data.text_columns is one for all sources")


def _roles(draft: Draft, each: dict[str, Any], value: Any, alone: bool) -> None:
    trained = {role.lower() for role in names(value)}
    if trained <= {"assistant", "gpt", "model"}:
        draft.drop("lft trains every turn of the assistant, too")
    else:
        draft.lack("lft trains the assistant's turns, or with data.loss_on: all everything")


def _type(draft: Draft, each: dict[str, Any], value: Any, alone: bool) -> None:
    """How rows become text."""
    if isinstance(value, dict):
        _own_prompts(draft, value, alone=alone)
        return
    word, _, style = text(value).partition(":")
    family = word.split(".")[0].split("_")[0]
    if word in ("chat_template", "sharegpt") or word.startswith("chat_template."):
        draft.drop(RECOGNISED + (f"; not {style}" if style else ""))
    elif word in ("completion", "pretrain") or family == "completion":
        draft.drop("rows with a text alone are trained whole")
    elif word == "input_output":
        draft.lack("segments that say themselves whether they are trained; write them as messages with weight 0 or 1")
    elif family in ALPACA_LIKE:
        draft.lack(
            "instruction, input and output are recognised, and written in the tokenizer's chat template, not in the"
            " words "
            "'Below is an instruction ...'; data.prompt_template takes words of your own"
        )
    else:
        draft.lack(
            f"axolotl's own form of prompts; {RECOGNISED}, or by data.prompt_template and data.completion_template"
        )


def _own_prompts(draft: Draft, given: dict[str, Any], *, alone: bool) -> None:
    """Templates of the configuration's own: fields in braces, as data.prompt_template has them."""
    instruction, given_input = given.get("field_instruction") or "instruction", given.get("field_input")
    output = given.get("field_output") or "output"
    form = given.get("format") if given_input else given.get("no_input_format") or given.get("format")
    system = text(given.get("system_prompt") or "")
    prompt = text(form or ("{instruction}\n{input}" if given_input else "{instruction}"))
    key = draft.key
    draft.key = (*key, "format" if "format" in given else next(iter(given), "format"))
    prompt = _doubled(prompt)
    for name, column in {
        "instruction": f"{{{instruction}}}",
        "input": f"{{{given_input}}}" if given_input else "",
    }.items():
        prompt = prompt.replace(f"{{{{{name}}}}}", column)
    prompt = prompt.replace("{{system}}", _doubled(system))
    if not alone:
        draft.lack("templates are one for all sources: data.prompt_template, data.completion_template")
    else:
        draft.set("data.prompt_template", prompt)
        draft.settings["data.completion_template"] = f"{{{output}}}"
        draft.sources["data.completion_template"] = f"{draft.file.place(draft.key)} field_output"
    for name, value in given.items():
        draft.key = (*key, str(name))
        if value is None or name.startswith("field_") or name in ("format", "no_input_format"):
            draft.agree("data.prompt_template" if name != "field_output" else "data.completion_template", "")
        elif name in ("system_prompt", "system_format"):
            draft.drop("empty") if is_off(value) else draft.lack(
                "stands in the prompt only where the format says {system}"
            )
        else:
            draft.lack("lft does not know this key of a prompt")
    draft.key = key


def _doubled(words: str) -> str:
    """Braces that name no column, as templates have them."""
    return words.replace("{", "{{").replace("}", "}}")


_READ: dict[str, Callable[[Draft, dict[str, Any], Any, bool], None]] = {
    "path": _path,
    "data_files": _files,
    **dict.fromkeys(("name", "split", "revision"), _of_hub),
    "type": _type,
    **dict.fromkeys(("field_messages", "field", "text_column"), _column),
    "roles_to_train": _roles,
}
"""Keys of a data set that become settings; each with the data set, the value, and whether it is the only data set."""
