"""A translation under way: settings with where they come from, what becomes of every key, and the rules of tables."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lft.core.setting import default_of, is_setting, refusal
from lft.foreign.document import ForeignFile, KeyPath
from lft.foreign.values import is_off, shown, text

AS_IN_LFT = "as in lft"
OFF = "not wanted, as by default"
EMPTY = "empty"


class Note(NamedTuple):
    """What became of a key."""

    place: str
    """`axolotl.yml:31`."""
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}  {self.key}: {self.text}"


@dataclass(slots=True)
class Draft:
    """Every key that was looked at is noted: `translated`, `needless` (with the reason) or `missing` (with what it changes)."""

    project: str
    file: ForeignFile
    ranks: int
    """Of the run here: others count batches per rank, lft over all."""
    find: Callable[[str], ForeignFile | None] = lambda name: None
    """Another file that the configuration names, if it can be read."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted name of a setting -> its value."""
    sources: dict[str, str] = field(default_factory=dict)
    """Dotted name of a setting -> where its value comes from, for the comment beside it."""
    translated: list[Note] = field(default_factory=list)
    needless: list[Note] = field(default_factory=list)
    missing: list[Note] = field(default_factory=list)
    refused: list[Note] = field(default_factory=list)
    """What makes the whole another kind of training than lft does."""
    defaults: list[str] = field(default_factory=list)
    """What the file leaves to its project, and lft would choose otherwise."""
    key: KeyPath = ()

    @property
    def values(self) -> dict[str, Any]:
        """What the file holds."""
        return self.file.values

    @property
    def noted(self) -> int:
        """How many notes there are."""
        return len(self.translated) + len(self.needless) + len(self.missing) + len(self.refused)

    def set(self, setting: str, value: Any, remark: str = "") -> bool:
        """Take a setting from the key looked at; a value it does not take is noted as missing. Whether it was taken."""
        problem = refusal(setting, value)
        if problem:
            self.lack(f"{setting} cannot be {shown(value)}: {problem}; its default stays")
            return False
        self.settings[setting] = value
        self.sources[setting] = f"{self.file.place(self.key)} {self.key[-1]}"
        self.translated.append(self._note(f"{setting}: {shown(value)}" + (f"   {remark}" if remark else "")))
        return True

    def agree(self, setting: str, remark: str) -> None:
        """The key looked at is part of a setting that is there already."""
        self.translated.append(self._note(f"{setting}   {remark}"))

    def drop(self, reason: str) -> None:
        """The key looked at is not needed."""
        self.needless.append(self._note(reason))

    def lack(self, effect: str) -> None:
        """The key looked at has no counterpart; `effect` says what is different without."""
        self.missing.append(self._note(effect))

    def refuse(self, reason: str) -> None:
        """The key looked at asks for what lft does not do at all."""
        self.refused.append(self._note(reason))

    def default(self, setting: str, value: Any, why: str) -> None:
        """What the project does where its file says nothing; noted where lft would do something else."""
        if setting in self.settings or not is_setting(setting) or value == default_of(setting):
            return
        self.settings[setting] = value
        self.sources[setting] = f"{self.project}'s default"
        self.defaults.append(f"{setting}: {shown(value)}   {why}")

    def _note(self, words: str) -> Note:
        return Note(self.file.place(self.key), ".".join(self.key), words)


Rule = Callable[[Draft, Any], None]
Table = Mapping[str, Rule]
"""Dotted key -> what becomes of it; `section.*` for the other keys of a section."""


def translate_keys(draft: Draft, table: Table, values: Mapping[str, Any], around: KeyPath = ()) -> None:
    """Apply a table to every key. A section without a rule of its own is looked at key by key."""
    for name, value in values.items():
        key = (*around, str(name))
        dotted = ".".join(key)
        draft.key = key
        rule = table.get(dotted) or table.get(".".join((*around, "*")))
        if value is None or (value == {} and rule is None):
            draft.drop(EMPTY)
        elif rule is not None and not (isinstance(value, dict) and _is_section(dotted, table)):
            _apply(rule, draft, key, value)
        elif isinstance(value, dict) and _is_section(dotted, table):
            translate_keys(draft, table, value, key)
        else:
            draft.lack(f"lft does not know this key; see what {draft.project} does with it")


def _apply(rule: Rule, draft: Draft, key: KeyPath, value: Any) -> None:
    """Whatever form the value has, something is noted of its key."""
    before = draft.noted
    try:
        rule(draft, value)
    except ValueError as error:
        draft.key = key
        draft.lack(f"{shown(value)} is not understood: {error}")
    except (TypeError, AttributeError, KeyError):  # a list where keys are expected, and the like
        draft.key = key
        draft.lack("is not understood: it has another form there")
    if draft.noted == before:
        draft.key = key
        draft.drop(EMPTY)


def _is_section(dotted: str, table: Table) -> bool:
    return dotted not in table and any(known.startswith(f"{dotted}.") for known in table)


def note_repeated(draft: Draft) -> None:
    """Keys that stand twice: the last one counts."""
    for key, line in draft.file.repeated:
        draft.needless.append(Note(f"{draft.file.path.name}:{line}", key, "stands again further down, where it counts"))


def to(setting: str, convert: Callable[[Any], Any] = text, remark: str = "", without: str = "") -> Rule:
    """Becomes a setting; `without` says what is different where lft has no such setting (yet)."""

    def rule(draft: Draft, value: Any) -> None:
        if is_setting(setting):
            draft.set(setting, convert(value), remark)
        elif is_off(value):
            draft.drop(OFF)
        else:
            draft.lack(without)

    return rule


def needless(reason: str) -> Rule:
    """Not needed, whatever it says."""
    return lambda draft, value: draft.drop(reason)


def missing(effect: str) -> Rule:
    """Without counterpart; not needed where it says that it is not wanted."""
    return lambda draft, value: draft.drop(OFF) if is_off(value) else draft.lack(effect)


def refused(reason: str) -> Rule:
    """Another kind of training."""
    return lambda draft, value: draft.drop(OFF) if is_off(value) else draft.refuse(reason)


def fixed(value_here: Any, effect: str) -> Rule:
    """Something lft has one value for."""
    return lambda draft, value: draft.drop(AS_IN_LFT) if str(value) == str(value_here) else draft.lack(effect)


def choice(setting: str, known: Mapping[str, Any], effect: str) -> Rule:
    """One of several words; `effect` says what is different with another one."""

    def rule(draft: Draft, value: Any) -> None:
        word = str(value).lower()
        if word in known:
            draft.set(setting, known[word])
        else:
            draft.lack(effect)

    return rule


def all_of(rule: Callable[[str], Rule], reasons: Mapping[str, str]) -> dict[str, Rule]:
    """A table of one kind of rule: reason -> the keys it holds for, separated by spaces."""
    return {key: rule(reason) for reason, keys in reasons.items() for key in keys.split()}
