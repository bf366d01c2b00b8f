"""Which project a configuration is of, and its translation."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from lft.core.errors import SettingsError
from lft.core.settings import RunSettings
from lft.foreign import axolotl, llamafactory, trl
from lft.foreign.accelerate import ACCELERATE
from lft.foreign.deepspeed import DEEPSPEED
from lft.foreign.document import ForeignFile, read_foreign
from lft.foreign.draft import Draft, Table, note_repeated, translate_keys
from lft.foreign.fsdp import fsdp_section


class Project(NamedTuple):
    """A kind of file."""

    name: str
    marks: set[str]
    """Keys that it is recognised by; those of several projects do not say anything."""
    table: Table
    finish: Callable[[Draft], None]
    """What follows from all keys together: the project's own defaults."""


def _nothing(draft: Draft) -> None:
    """Model and data, and how to train on them, are not in such a file."""


PROJECTS = (
    Project("axolotl", axolotl.RECOGNISED_BY, axolotl.AXOLOTL, axolotl.axolotl_defaults),
    Project("LLaMA-Factory", llamafactory.RECOGNISED_BY, llamafactory.LLAMAFACTORY, llamafactory.llamafactory_defaults),
    Project("TRL", trl.RECOGNISED_BY, trl.TRL, trl.trl_defaults),
    Project(
        "accelerate",
        {"compute_environment", "distributed_type", "mixed_precision", "num_machines"},
        ACCELERATE,
        _nothing,
    ),
    Project(
        "DeepSpeed",
        {"zero_optimization", "train_micro_batch_size_per_gpu", "train_batch_size", "zero_allow_untested_optimizer"},
        DEEPSPEED,
        _nothing,
    ),
)


def translate(path: Path, ranks: int) -> Draft:
    """What a file asks for, as lft's settings, and what became of each of its keys.

    `ranks` is how many will train here. Raises SettingsError for a file of no known project, one that cannot be read, and
    one that asks for another kind of training, with the lines that do.
    """
    file = read_foreign(path)
    project = recognise(file)
    draft = Draft(project.name, file, ranks, find=lambda name: _beside(path, name))
    translate_keys(draft, project.table, file.values)
    fsdp_section(draft)
    project.finish(draft)
    note_repeated(draft)
    if draft.refused:
        raise SettingsError([str(note) for note in draft.refused], source=path.name)
    return draft


def recognise(file: ForeignFile) -> Project:
    """The project with the most marks among the keys."""
    best = max(PROJECTS, key=lambda project: len(project.marks & file.values.keys()))
    if best.marks & file.values.keys():
        return best
    keys, own = list(file.values), RunSettings.model_fields
    if isinstance(file.values.get("model"), dict) and set(keys) <= set(own):
        raise SettingsError(
            [f"{file.path}  is a run file of lft already"], source=file.path.name, next_step=f"lft plan {file.path}"
        )
    known = ", ".join(project.name for project in PROJECTS)
    what = f"{file.path}  is of no project that is known ({known}); its keys are {', '.join(keys[:8])}"
    raise SettingsError([what + (", ..." if len(keys) > 8 else "")], source=file.path.name)


def _beside(path: Path, name: str) -> ForeignFile | None:
    """Another file, from here, or from the folder of the first one or one around it, as a clone of the project has them."""
    for folder in (Path(), *path.absolute().parents):
        found = folder / name
        if found.is_file():
            return read_foreign(found)
    return None
