"""How conversations are written: what is trained of them, for templates in the manner of each family and for odd texts."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lft.core.errors import DataError
from lft.data.example import BadRow, Example
from lft.data.template import TODAY
from lft.data.writing import LossOn, Writing, choose_writing, render_prompt
from tests.data.chats import ENDLESS, HEADERS, INSTRUCTIONS, MODEL_TURNS, SPECIAL, TEMPLATES, THINKING, byte_level

BYTES = byte_level()
SMALL = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
AWKWARD = (
    *SPECIAL,
    *(
        "</think>",
        "<think>",
        "<think>\nhm\n</think>\n\nyes",
        "{0}",
        "{{ x }}",
        "{% raw %}",
        "\r\n",
        "\n",
        " ",
        "\u200b",
        "\ufeff",
    ),
    *(
        "e\u0301",
        "\u202eabc",
        "\u05e9\u05dc\u05d5\u05dd",
        "\U0001d11e",
        "\U00020000",
        "\ue0000\ue001",
        "\x00",
        "a",
        "user",
        "%s",
    ),
)
TEXTS = st.lists(
    st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=["Cs"]), max_size=8)), max_size=5
).map("".join)
ROLES = st.tuples(st.booleans(), st.integers(1, 3)).map(
    lambda drawn: (("system",) if drawn[0] else ()) + ("user", "assistant") * drawn[1]
)
CHATS = ROLES.flatmap(
    lambda roles: st.tuples(*[TEXTS] * len(roles)).map(lambda texts: Example(roles, texts, len(roles) - 1))
)


def messages(example: Example) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(example.roles, example.contents, strict=True)]


def chat(*contents: str, completion_from: int | None = None) -> Example:
    roles = ("user", "assistant") * (len(contents) // 2)
    return Example(roles, contents, len(roles) - 1 if completion_from is None else completion_from)


def with_system(text: str, *contents: str) -> Example:
    example = chat(*contents)
    return Example(("system", *example.roles), (text, *contents), example.completion_from + 1)


def trained(writing: Writing, example: Example) -> list[str]:
    return [piece.text for piece in writing.write(example).pieces if piece.trained]


def writing(template: str, loss_on: LossOn = "auto") -> Writing:
    return Writing(BYTES, "chat", loss_on, template)


def rendered(template: str, chat_messages: list[dict[str, str]], *, ask: bool = False) -> str:
    text = BYTES.apply_chat_template(chat_messages, chat_template=template, tokenize=False, add_generation_prompt=ask)
    return str(text)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["auto", "completion", "all"])
def test_every_answer_and_its_end_are_trained_and_nothing_else(name: str, loss_on: LossOn) -> None:
    template, end = TEMPLATES[name]
    found = trained(writing(template, loss_on), chat("What?", "First.", "And?", "Second."))
    before = {"thinking": ("", "<think>\n\n</think>\n\n"), "instructions": (" ", " "), "endless": ("", "")}.get(
        name, ("", "")
    )
    ends = ("", end) if name == "endless" else (end, end)
    expected = [f"{before[0]}First.{ends[0]}", f"{before[1]}Second.{ends[1]}"]
    if loss_on == "all":
        assert expected[0] in "".join(found)
        assert "".join(found).endswith(expected[1])
        assert "What?" in "".join(found)
    else:
        assert found == (expected if loss_on == "auto" else expected[1:])


@pytest.mark.parametrize("name", TEMPLATES)
@SMALL
@given(example=CHATS)
def test_the_text_is_the_template_s_own_and_each_answer_follows_what_asks_for_it(name: str, example: Example) -> None:
    template, end = TEMPLATES[name]
    try:
        written = writing(template).write(example)
    except BadRow:
        assert not all(text.strip() for text in example.contents) or name in ("model turns", "thinking")
        return
    text = "".join(piece.text for piece in written.pieces)
    if name != "dated":
        whole = rendered(template, messages(example))
        assert text.removesuffix(end).rstrip() == whole.rstrip().removesuffix(end).rstrip()
    assert text.endswith(end)
    assert written.answer is not None
    before = "".join(piece.text for piece in written.pieces[: written.answer])
    if name not in ("dated", "thinking") and not (name == "instructions" and "system" in example.roles):
        assert before == rendered(template, messages(example)[:-1], ask=True)
    answers = [text for role, text in zip(example.roles, example.contents, strict=True) if role == "assistant"]
    spans = [piece.text for piece in written.pieces if piece.trained]
    assert len(spans) == len(answers)
    for answer, span in zip(answers, spans, strict=True):
        assert name == "thinking" or answer.strip() in span


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("loss_on", ["auto", "completion", "all"])
@SMALL
@given(example=CHATS)
def test_filling_in_a_shape_gives_what_the_template_gives(name: str, loss_on: LossOn, example: Example) -> None:
    compiled = writing(TEMPLATES[name][0], loss_on)
    shape = compiled.shape(example)
    if shape is None:
        return
    written = compiled.write(example)
    texts = tuple(piece.text for piece in written.pieces)
    assert (tuple(shape.slots.fill(example.contents)), shape.trained, shape.answer) == (
        texts,
        tuple(piece.trained for piece in written.pieces),
        written.answer,
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_one_of_these_templates_can_be_compiled(name: str) -> None:
    assert writing(TEMPLATES[name][0]).shape(chat("What is it?\n\nSay.", "The first line.\nThe second.")) is not None


@pytest.mark.parametrize("answer", ["", " \n", "<think>a</think>b", "so </think>"])
def test_texts_that_a_template_treats_specially_are_left_to_it(answer: str) -> None:
    assert writing(THINKING).shape(chat("What?", answer)) is None


def test_a_template_that_changes_texts_in_its_own_way_is_not_compiled() -> None:
    template = HEADERS.replace("| trim", "| replace(' ', '_')")
    assert writing(template).shape(chat("What?", "that")) is None


def test_thoughts_are_trained_where_the_template_shows_them() -> None:
    example = chat("What?", "<think>\nhm\n</think>\n\nThat.", "And?", "<think>\nso\n</think>\n\nThis.")
    assert trained(writing(THINKING), example) == ["That.<|im_end|>", "<think>\nso\n</think>\n\nThis.<|im_end|>"]


@pytest.mark.parametrize(
    ("template", "example", "words"),
    [
        (MODEL_TURNS, with_system("Be brief.", "a", "b"), "System role not supported"),
        (INSTRUCTIONS, Example(("user", "user", "assistant"), ("a", "b", "c"), 2), "roles must alternate"),
        ("{{ messages[0]['content'] }}", chat("a", "b"), "does not show where turn 2 is answered"),
    ],
)
def test_what_a_template_refuses_is_a_bad_row_in_its_own_words(template: str, example: Example, words: str) -> None:
    with pytest.raises(BadRow, match=words):
        writing(template).write(example)


def test_a_system_text_that_moves_to_the_last_question_hides_no_answer() -> None:
    example = with_system("Be brief.", "a", "b", "c", "d")
    assert rendered(INSTRUCTIONS, messages(example)) == "<s>[INST] a[/INST] b</s>[INST] Be brief.\n\nc[/INST] d</s>"
    assert trained(writing(INSTRUCTIONS), example) == [" b</s>", " d</s>"]


def test_an_answer_that_repeats_its_question_is_found_where_it_stands() -> None:
    written = writing(ENDLESS).write(chat("same", "same"))
    assert [piece.text for piece in written.pieces] == ["USER: same\nASSISTANT: ", "same</s>"]


def test_an_empty_answer_before_the_last_hides_no_other() -> None:
    example = chat("a", "", "b", "c")
    assert "".join(trained(writing(ENDLESS), example)) == "c</s>"
    assert trained(writing(HEADERS), example) == ["<|eot_id|>", "c<|eot_id|>"]


@pytest.mark.parametrize("call", ['strftime_now("%d %b %Y")', "strftime_now( '%d %b %Y' )", "strftime_now(format)"])
def test_a_template_that_prints_the_date_always_prints_the_same(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = "{% set format = '%d %b %Y' %}{{ " + call + " }}" + HEADERS
    first = "".join(piece.text for piece in writing(template).write(chat("a", "b")).pieces)
    assert first.startswith("26 Jul 2024<s>")
    assert datetime.now().date() != TODAY.date()


def test_generation_meets_the_text_that_stood_before_the_answer() -> None:
    tokenizer = byte_level()
    for style, template in [("chat", TEMPLATES["dated"][0]), ("pair", None)]:
        tokenizer.chat_template = template
        written = Writing(tokenizer, style, "auto").write(chat("What?", "That."))  # type: ignore[arg-type]
        assert written.pieces[0].text == render_prompt(tokenizer, style, "What?")  # type: ignore[arg-type]


def test_calls_of_tools_are_trained_with_their_end() -> None:
    template = (
        "{% if tools %}{{ tools | tojson }}\n{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }}</call>{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    calls: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "weather"}}]},
        {"role": "tool", "content": "sunny"},
        {"role": "assistant", "content": "Sunny."},
    ]
    roles = tuple(message["role"] for message in calls)
    example = Example(roles, tuple(message["content"] for message in calls), 3, calls, [{"name": "weather"}])
    assert trained(writing(template), example) == ["<call>weather</call><|im_end|>", "Sunny.<|im_end|>"]
    assert "".join(piece.text for piece in writing(template).write(example).pieces).startswith('[{"name": "weather"}]')


def test_the_style_follows_the_rows_and_the_tokenizer() -> None:
    tokenizer, text = byte_level(), Example(("text",), ("a",), 0)
    turns = chat("a", "b", "c", "d")
    choose: Callable[..., Any] = choose_writing
    assert choose(tokenizer, [text]).style == "text"
    assert choose(tokenizer, [chat("a", "b")]).style == "pair"
    plain = choose(tokenizer, [turns])
    assert (plain.style, "plain chat template" in plain.words) == ("chat", True)
    assert trained(writing(plain.chat_template), turns) == [" b</s>", " d</s>"]
    assert choose(tokenizer, [chat("a", "b")], HEADERS).chat_template == HEADERS
    tokenizer.chat_template = HEADERS
    assert choose(tokenizer, [turns])[:2] == ("chat", None)


def test_a_template_that_is_no_jinja_is_said_with_its_line() -> None:
    with pytest.raises(DataError, match="line 2"):
        writing("{{ messages }}\n{% if %}")


@pytest.mark.parametrize(
    ("body", "is_plain"),
    [
        ("{{ message.content }}", True),
        ("{{ message['content'] | trim }}", True),
        ("{% if message.content is string %}{{ 'x' + message.content }}{% endif %}", True),
        ("{% if '</think>' in message.content %}{{ message.content.split('</think>')[-1] }}{% endif %}", True),
        ("{% set text = message.content %}{{ text.strip() }}", True),
        ("{% set mark = '</think>' %}{% if mark in message.content %}x{% endif %}{{ message.content }}", False),
        ("{{ message.content[:60] }}", False),
        ("{% set text = message.content %}{{ text[:60] }}", False),
        ("{% if message.content | length > 30 %}x{% endif %}{{ message.content }}", False),
        ("{{ message.content | upper }}", False),
        ("{{ message.content.title() }}", False),
        ("{{ message | tojson }}", False),
        ("{% if message.content == messages[0].content %}x{% endif %}{{ message.content }}", False),
        ("{% macro show(text) %}{{ text | truncate(5) }}{% endmacro %}{{ show(message.content) }}", False),
        ("{{ '%s' % message.content }}", False),
    ],
)
def test_a_template_is_filled_in_only_if_contents_reach_the_text_in_known_ways(body: str, is_plain: bool) -> None:
    from jinja2 import Environment

    from lft.data.plain_template import only_writes_contents

    tree = Environment().parse("{% for message in messages %}" + body + "{% endfor %}")
    assert only_writes_contents(tree) == is_plain
