"""What rows are, by their columns, and the turns each becomes."""

from typing import Any

import pytest
from datasets import Dataset

from lft.core.errors import DataError
from lft.core.settings import DataSettings
from lft.data.example import BadRow, Example
from lft.data.formats import RowFormat, recognise, text_columns, unused_columns

ASK = {"role": "user", "content": " 2+2? "}
ANSWER = {"role": "assistant", "content": "4"}
PLAIN_CHAT = Example(("user", "assistant"), (" 2+2? ", "4"), 1)


def format_of(*rows: dict[str, Any], **settings: Any) -> RowFormat:
    """The format of rows under settings of the data section."""
    return recognise(rows, DataSettings(source="someone/data", **settings))


def only(row: dict[str, Any], **settings: Any) -> Example | None:
    """The example of a row in the format it alone suggests."""
    return format_of(row, **settings).example(row)


@pytest.mark.parametrize(
    ("columns", "described"),
    [
        (["text"], "{text}"),
        (["content", "id"], "{content}"),
        (["titel"], "{titel}"),
        (["prompt", "response"], "{prompt} -> {response}"),
        (["Question", "Answer"], "{Question} -> {Answer}"),
        (["output", "input", "instruction"], "{instruction}\\n{input} -> {output}"),
        (["prompt", "completion", "notes"], "{prompt} -> {completion}"),
        (["instruction", "input", "output", "text"], "{instruction}\\n{input} -> {output}"),
        (["system_prompt", "question", "response"], "system {system_prompt}, {question} -> {response}"),
    ],
)
def test_columns_that_ask_and_answer_are_recognised_by_name(columns: list[str], described: str) -> None:
    assert format_of(dict.fromkeys(columns, "x")).describe() == described


@pytest.mark.parametrize(
    ("row", "described", "example"),
    [
        ({"messages": [ASK, ANSWER]}, "chat in messages (OpenAI form)", PLAIN_CHAT),
        ({"conversations": [ASK, ANSWER]}, "chat in conversations (OpenAI form)", PLAIN_CHAT),
        (
            {"conversations": [{"from": "human", "value": " 2+2? "}, {"from": "gpt", "value": "4"}]},
            "chat in conversations (ShareGPT form)",
            PLAIN_CHAT,
        ),
        (
            {"messages": [ASK, ANSWER], "system": "Be brief."},
            "chat in messages (OpenAI form), with system",
            Example(("system", "user", "assistant"), ("Be brief.", " 2+2? ", "4"), 2),
        ),
        (
            {"messages": [ASK, ANSWER, ASK, ANSWER, ASK]},
            "chat in messages (OpenAI form)",
            Example(("user", "assistant", "user", "assistant", "user"), (" 2+2? ", "4", " 2+2? ", "4", " 2+2? "), 3),
        ),
        (
            {"prompt": [ASK], "completion": [ANSWER]},
            "chat in prompt -> completion (OpenAI or ShareGPT form)",
            PLAIN_CHAT,
        ),
        (
            {"messages": [ASK | {"tool_calls": None}, ANSWER | {"tool_calls": None}]},
            "chat in messages (OpenAI form)",
            PLAIN_CHAT,
        ),
    ],
)
def test_conversations_are_recognised_and_their_contents_left_as_they_are(
    row: dict[str, Any], described: str, example: Example
) -> None:
    row_format = format_of(row)
    assert row_format.describe() == described
    assert row_format.example(row) == example
    assert set(row_format.columns) == set(row)


def test_what_roles_and_contents_do_not_say_is_kept_in_whole_messages() -> None:
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "add"}}]}
    row = {
        "messages": [ASK, call, {"role": "tool", "content": "4", "name": "add"}, ANSWER],
        "tools": '[{"name": "add"}]',
    }
    example = only(row)
    assert example is not None
    assert example.messages == [ASK, call | {"content": ""}, row["messages"][2], ANSWER]
    assert example.tools == [{"name": "add"}]
    assert (example.roles[1], example.contents[1], example.completion_from) == ("assistant", "", 3)
    parts = [{"type": "text", "text": "2+2"}, {"type": "text", "text": "?"}]
    parted = only({"messages": [{"role": "user", "content": parts}, ANSWER]})
    assert parted is not None
    assert parted.contents == ("2+2?", "4")
    assert parted.messages == [{"role": "user", "content": parts}, ANSWER]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"messages": None}, "messages is null; a list of messages is expected"),
        ({"other": 1}, "messages is missing; a list of messages is expected"),
        ({"messages": []}, "messages is empty; a list of messages is expected"),
        ({"messages": "hello"}, "messages is no list; a list of messages is expected"),
        ({"messages": [ASK]}, "messages has no turn of the assistant"),
        ({"messages": [ASK, "no"]}, "messages turn 2 is no message; an object with role and content is expected"),
        ({"messages": [ASK, {"role": "assistant"}]}, "messages turn 2 has no content"),
        ({"messages": [{"content": "x"}]}, "messages turn 1 has no role"),
        (
            {"messages": [ASK, {"role": "wizard", "content": ""}]},
            'messages turn 2 has the role "wizard"; known are system',
        ),
        (
            {"messages": [ASK, {"role": "assistant", "content": None}]},
            "messages turn 2: content is null; text is expected",
        ),
        ({"messages": [ASK, {"role": "assistant", "content": 4}]}, "messages turn 2: content is int; text is expected"),
    ],
)
def test_what_is_wrong_with_a_conversation_is_said_with_the_turn(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRow) as raised:
        format_of({"messages": [ASK, ANSWER]}).example(row)
    assert str(raised.value).startswith(problem)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a"}, "response is missing; text is expected"),
        ({"prompt": "a", "response": None}, "response is null; text is expected"),
        ({"prompt": ["a"], "response": "b"}, "prompt is a list; text is expected"),
        ({"prompt": {}, "response": "b"}, "prompt is an object; text is expected"),
    ],
)
def test_a_column_without_text_makes_a_bad_row(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRow) as raised:
        format_of({"prompt": "a", "response": "b"}).example(row)
    assert str(raised.value) == problem


def test_columns_are_joined_as_described_numbers_as_written_and_empty_ones_left_out() -> None:
    row_format = format_of({"instruction": "a", "input": "b", "output": "c"})
    pair = ("user", "assistant")
    assert row_format.example({"instruction": " Add. ", "input": "1 2", "output": 3}) == Example(
        pair, ("Add.\n1 2", "3"), 1
    )
    assert row_format.example({"instruction": "Add.", "input": None, "output": "3"}) == Example(pair, ("Add.", "3"), 1)
    assert row_format.example({"instruction": "Add.", "output": "3 "}) == Example(pair, ("Add.", "3"), 1)
    assert only({"text": " a "}) == Example(("text",), ("a",), 0)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "response": " "},
        {"text": "\n"},
        {"messages": [ASK, {"role": "assistant", "content": " "}]},
        {"prompt": [ASK], "completion": [{"role": "assistant", "content": ""}]},
    ],
)
def test_a_row_with_nothing_to_learn_is_no_example(row: dict[str, Any]) -> None:
    assert only(row) is None


def test_templates_name_their_columns_in_braces_and_a_doubled_brace_is_one() -> None:
    row = {"title": "Sum", "question": "2+2", "answer": 4}
    asked = {"prompt_template": "{{{title}}}: {question}?\n", "completion_template": "={answer}"}
    assert only(row, **asked) == Example(("user", "assistant"), ("{Sum}: 2+2?", "=4"), 1)
    assert format_of(row, **asked).columns == ["title", "question", "answer"]
    assert only(row, completion_template="{question}={answer}") == Example(("text",), ("2+2=4",), 0)


@pytest.mark.parametrize(
    ("row", "settings", "said"),
    [
        ({"a": 1}, {}, r"no column holds text; the columns are a \(number\)"),
        (
            {"question": "x", "answer": ["a"]},
            {},
            "column answer should answer question, but holds list; text is expected",
        ),
        ({"a": "x"}, {"text_columns": ["b", "c"]}, "there is no column b, c; the columns are a"),
        ({"question": "x"}, {"text_columns": ["qestion"]}, "did you mean question"),
        ({"question": "x", "answer": "y", "response": "z"}, {}, "columns answer, response could all answer question"),
        ({"messages": [ASK], "conversations": [ASK]}, {}, "columns messages and conversations both hold conversations"),
        (
            {"a": "x"},
            {"completion_template": "{b}"},
            "data.completion_template: there is no column b; the columns are a",
        ),
        ({"a": "x"}, {"completion_template": "{a"}, "data.completion_template is no template"),
        ({"a": "x"}, {"completion_template": "{}"}, "data.completion_template is no template"),
        ({"a": "x"}, {"prompt_template": "{a}"}, "completion_template is not"),
        ({"a": "x"}, {"text_columns": ["a"], "completion_template": "{a}"}, "both given"),
    ],
)
def test_none_or_several_possibilities_are_refused_with_the_columns_and_what_to_set(
    row: dict[str, Any], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=f"(?s){said}"):
        format_of(row, **settings)


def test_named_columns_are_used_whatever_else_there_is() -> None:
    row = {"prompt": "a", "question": "b", "answer": "c", "chat": [ASK, ANSWER]}
    assert format_of(row, text_columns=["question", "answer"]).describe() == "{question} -> {answer}"
    assert format_of(row, text_columns=["prompt", "question"]).describe() == "{prompt}\\n{question}"
    assert only(row, text_columns=["chat"]) == PLAIN_CHAT
    assert format_of(row, text_columns=["question", "question"]).columns == ["question"]
    assert unused_columns([row], format_of(row, text_columns=["question", "answer"])) == ["prompt", "chat"]


def test_the_head_is_looked_at_beyond_nulls_and_numbers() -> None:
    rows: list[dict[str, Any]] = [{"question": None, "answer": 1}, {"question": 2, "answer": None}, {"question": "x"}]
    assert format_of(*rows).describe() == "{question} -> {answer}"
    assert (
        format_of({"instruction": "a", "input": None, "output": "b"}).describe()
        == "{instruction}\\n{input} -> {output}"
    )


def test_the_text_columns_of_a_data_set_are_those_with_a_common_name_or_else_all() -> None:
    rows = Dataset.from_list([{"id": "7", "prompt": "a", "response": "b", "score": 0.5}])
    assert text_columns(rows) == ["prompt", "response"]
    assert text_columns(Dataset.from_list([{"id": 1, "titel": "a", "inhalt": "b"}])) == ["titel", "inhalt"]


def test_formats_that_read_rows_otherwise_have_other_reprs() -> None:
    """The repr of a format is part of the name of what is made with it."""
    pair = {"prompt": "a", "response": "b"}
    formats = [
        format_of(pair),
        format_of(pair, completion_template="{response}"),
        format_of({"text": "a"}),
        format_of({"messages": [ASK]}),
        format_of({"conversations": [{"from": "human", "value": ""}]}),
        format_of({"conversations": [ASK]}),
    ]
    assert len(set(map(repr, formats))) == len(formats)


@pytest.mark.parametrize(
    ("row", "described"),
    [
        ({"titel": "x", "inhalt": "y"}, "{titel}\\n{inhalt}"),
        ({"prompt": "x", "question": "y", "answer": "z"}, "{prompt}\\n{question} -> {answer}"),
        ({"instruction": "x", "input": "y", "output": "z"}, "{instruction}\\n{input} -> {output}"),
    ],
)
def test_several_columns_of_text_are_combined_as_the_documented_api_says(row: dict[str, str], described: str) -> None:
    assert recognise([row], DataSettings(source="a/b")).describe() == described
