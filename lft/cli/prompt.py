"""Asking a question on the terminal."""


def get_user_input(prompt: str, default: str | None = None) -> str:
    """Ask `prompt [default]: ` and return the answer without surrounding space, or the default for an empty one.

    Without a default an empty answer is an empty text. Raises EOFError at the end of the input, as `input` does.
    """
    suffix = f" [{default}]" if default is not None else ""
    return input(f"{prompt}{suffix}: ").strip() or default or ""
