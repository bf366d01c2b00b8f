"""What lft generate is asked: prompts from the command line, a file or standard input."""

import json
import sys
from pathlib import Path

from lft.core.errors import SettingsError

HOW = 'a prompt is expected: lft generate OUTPUT_DIR "PROMPT", --file FILE, or - for standard input'


def read_prompts(prompt: str | None, file: Path | None) -> list[str]:
    """One prompt a line of a file, of JSON lines their `prompt`; all of standard input as one prompt. Raises SettingsError."""
    if (prompt is None) == (file is None):
        raise SettingsError([HOW if prompt is None else "a prompt and --file are given; one of them is expected"])
    if file is not None:
        return _from_file(file)
    text = sys.stdin.read().strip() if prompt == "-" else str(prompt).strip()
    if not text:
        raise SettingsError(["the prompt is empty"])
    return [text]


def _from_file(file: Path) -> list[str]:
    try:
        lines = file.expanduser().read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise SettingsError([f"{file}  text in UTF-8 is expected"]) from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise SettingsError([f"{file}  is empty; a prompt a line is expected"])
    if file.suffix != ".jsonl":
        return [line for _, line in numbered]
    found = [_prompt_of(line) for _, line in numbered]
    mistakes = [
        f'{file}:{number}  {{"prompt": "..."}} is expected'
        for (number, _), prompt in zip(numbered, found, strict=True)
        if prompt is None
    ]
    if mistakes:
        raise SettingsError(mistakes, source=str(file))
    return [prompt for prompt in found if prompt is not None]


def _prompt_of(line: str) -> str | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    prompt = row.get("prompt") if isinstance(row, dict) else None
    return prompt.strip() or None if isinstance(prompt, str) else None
