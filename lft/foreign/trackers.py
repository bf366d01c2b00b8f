"""Which trackers a configuration tells its losses to, as names of training.trackers."""

from typing import Any, get_args

from lft.core.trackers import Tracker
from lft.foreign.draft import OFF, Draft, Rule
from lft.foreign.values import is_off, names

SETTING = "training.trackers"
KNOWN: tuple[Tracker, ...] = get_args(Tracker)


def report_to(draft: Draft, value: Any) -> None:
    """A name or several, as transformers' TrainingArguments have them."""
    for name in names(value):
        if is_off(name):
            draft.drop(OFF)
        elif name in KNOWN:
            _add(draft, name)
        else:
            draft.lack(f"no reports to {name}; {SETTING} can name {', '.join(KNOWN)}")


def tracker(name: Tracker, variable: str = "") -> Rule:
    """On where its key is set; a `variable` of the environment is where the tracker itself reads the key's value.

    The value is not shown: the address of a tracker may hold a password.
    """

    def rule(draft: Draft, value: Any) -> None:
        switch = (f"use_{name}", f"{name}_mode")
        if is_off(value) or any(is_off(draft.values[key]) for key in switch if draft.values.get(key) is not None):
            draft.drop(OFF)
        else:
            _add(draft, name, f"its value goes into {variable} of the environment" if variable else "")

    return rule


def _add(draft: Draft, name: str, remark: str = "") -> None:
    named = draft.settings.get(SETTING, [])
    if name in named:
        draft.agree(SETTING, remark or name)
    else:
        draft.set(SETTING, [*named, name], remark)
