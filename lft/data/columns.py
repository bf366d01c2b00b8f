"""Which columns of a data set are text, and which of them ask and which answer."""

from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset, Value

from lft.core.errors import DataError

COMMON_NAMES = (
    *("text", "content", "input", "output", "prompt", "response", "instruction", "question", "answer", "completion"),
)
ASKING = ("instruction", "prompt", "question", "input")
ANSWERING = ("output", "response", "completion", "answer")


@dataclass(frozen=True, slots=True)
class RowFormat:
    """How the columns of a row are combined: `prompt_columns` ask, `answer_column` answers; without one all is text."""

    prompt_columns: tuple[str, ...]
    answer_column: str | None

    @property
    def columns(self) -> list[str]:
        """All columns used, those that ask first."""
        return [*self.prompt_columns, *([self.answer_column] if self.answer_column else [])]

    def describe(self) -> str:
        """The template, for people."""
        prompt = "\\n".join(f"{{{name}}}" for name in self.prompt_columns)
        return f"{prompt} -> {{{self.answer_column}}}" if self.answer_column else prompt

    def combine(self, row: dict[str, object]) -> tuple[str, str]:
        """Prompt and answer of a row, columns joined by line feeds, empty ones left out; plain text is all answer."""
        texts = [str(row[name]).strip() for name in self.prompt_columns if row.get(name) is not None]
        joined = "\n".join(text for text in texts if text)
        if self.answer_column is None:
            return "", joined
        answer = row.get(self.answer_column)
        return joined, "" if answer is None else str(answer).strip()


def text_columns(rows: Dataset) -> list[str]:
    """Text columns with a common name, in the order of the data set; if there are none, all text columns."""
    texts = [name for name, feature in rows.features.items() if _is_text(feature)]
    return [name for name in texts if name.lower() in COMMON_NAMES] or texts


def recognise(rows: Dataset, columns: Sequence[str] | None) -> RowFormat:
    """The format of the rows, from `columns` or, if None, from the text columns found.

    Columns that ask (instruction, prompt, question, input) followed by one that answers (output, response, completion,
    answer) make a prompt and an answer; anything else is combined into plain text.
    Raises DataError for a column that does not exist and for rows without text.
    """
    columns = [columns] if isinstance(columns, str) else list(dict.fromkeys(columns or ()))
    missing = [name for name in columns if name not in rows.column_names]
    if missing:
        raise DataError(f"there is no column {', '.join(missing)}; the columns are {', '.join(rows.column_names)}")
    chosen = columns or text_columns(rows)
    if not chosen:
        kinds = ", ".join(f"{name} ({_kind(rows, name)})" for name in rows.column_names)
        raise DataError(f"no column holds text; the columns are {kinds}")
    asking = [name for want in ASKING for name in chosen if name.lower() == want]
    answering = [name for want in ANSWERING for name in chosen if name.lower() == want]
    if asking and len(answering) == 1 and len(asking) + 1 == len(chosen):
        return RowFormat(tuple(asking), answering[0])
    unread = [name for name in rows.column_names if name.lower() in ANSWERING and name not in chosen]
    if asking and not answering and not columns and unread:
        raise DataError(
            f"column {unread[0]} should answer {asking[0]}, but holds {_kind(rows, unread[0])}; text is expected",
            next_step="make it text, or name the columns to use: text_columns",
        )
    return RowFormat(tuple(chosen), None)


def _kind(rows: Dataset, name: str) -> str:
    feature = rows.features[name]
    return str(getattr(feature, "dtype", feature))


def _is_text(feature: object) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "string_view")
