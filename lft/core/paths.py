"""Telling a local path from a Hub name, and saying what is wrong with a path before anything starts."""

import difflib
import glob
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

DATA_SUFFIXES = (".json", ".jsonl", ".csv", ".txt", ".parquet", ".arrow")
MODEL_SUFFIXES = (".gguf", ".safetensors", ".bin", ".pt")


def expanded(name: str | Path) -> Path:
    """`~` and `~user` as the shell reads them: a user without a home stays as written."""
    return Path(os.path.expanduser(name))


def data_kind(path: Path) -> str:
    """The suffix that says how a data file is read, without .gz: `a.jsonl.gz` -> `.jsonl`."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def is_zipped(path: Path) -> bool:
    """Whether a data file is gzipped, by its name."""
    return path.name.lower().endswith(".gz")


def is_glob(source: str) -> bool:
    """Whether a source that is no existing path is a pattern."""
    return glob.has_magic(source) and not os.path.exists(expanded(source))


def looks_local(name: str) -> bool:
    """Whether a name can only mean a local path: it exists, starts like one, is a pattern, or ends in a file's suffix.

    A Hub name is `name` or `user/name`; `./name` is always local.
    """
    if os.path.exists(expanded(name)) or is_glob(name):
        return True
    starts = name.startswith(("./", "../", "~", "/")) or name in (".", "..") or "\\" in name
    return starts or name.count("/") > 1 or data_kind(Path(name)) in DATA_SUFFIXES + MODEL_SUFFIXES


def missing_path(name: str) -> str:
    """`NAME does not exist; in that folder: ...`, the likeliest first."""
    path = expanded(name)
    folder = path.parent
    while not os.path.isdir(folder):
        folder = folder.parent
    if not _readable(folder):
        return f"{name} cannot be looked for: no permission in {folder}"
    if folder != path.parent:
        return f"{name} does not exist, nor does its folder; {folder} does"
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    shown = near + [entry for entry in names if entry not in near and data_kind(Path(entry)) == data_kind(path)]
    return f"{name} does not exist; in that folder: {', '.join((shown or names)[:5]) or 'nothing'}"


def source_files(source: str) -> list[Path]:
    """The data files a local source means: itself, those directly in a folder, or those a pattern matches; sorted."""
    path = expanded(source)
    if path.is_file():
        return [path]
    found = [Path(name) for name in glob.glob(str(path), recursive=True)] if is_glob(source) else list(path.iterdir())
    return sorted(
        file for file in found if file.is_file() and data_kind(file) in DATA_SUFFIXES and not file.name.startswith(".")
    )


def local_files(names: Iterable[str]) -> list[Path]:
    """The data files that the local ones among several sources mean."""
    return [file for name in names if looks_local(name) for file in source_files(name)]


def input_mistakes(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs of setting and what is wrong with the path it holds, for values that are texts."""
    name = _text(values, "model", "name")
    if name and looks_local(name):
        problem = _model_problem(name)
        if problem:
            yield "model.name", problem
    for key, source in _sources(values):
        problem = source_problem(source) if looks_local(source) else None
        if problem:
            yield key, problem
    output_dir = values.get("output_dir", "finetuned_model")
    if output_dir == "":
        yield "output_dir", "is empty; a folder is expected"
    elif isinstance(output_dir, str):
        problem = unwritable(expanded(output_dir).absolute())
        if problem:
            yield "output_dir", problem
    token_file = _text(values, "upload", "token_file")
    if token_file and not _is_readable_file(expanded(token_file)):
        yield "upload.token_file", "is no file that this user may read"  # and is not shown: it may be the token itself


def source_problem(source: str) -> str | None:
    """Why a local data source cannot be read, or None."""
    path = expanded(source)
    kinds = ", ".join(DATA_SUFFIXES)
    if is_glob(source):
        return None if source_files(source) else f"{source} matches no file; {kinds} are read, each also gzipped (.gz)"
    if not os.path.exists(path):
        return missing_path(source)
    if not _readable(path):
        return f"{source} may not be read by this user"
    if path.is_dir():
        return (
            None if source_files(source) else f"{source} holds no data file; {kinds} are read, each also gzipped (.gz)"
        )
    if data_kind(path) not in DATA_SUFFIXES:
        return f"{source} ends in {path.suffix or 'nothing'}; {kinds} are read, each also gzipped (.gz)"
    return None


def unwritable(folder: Path) -> str | None:
    """Why nothing can be written into `folder`, which need not exist yet, or None."""
    existing = folder
    while not os.path.exists(existing):
        existing = existing.parent
    if not existing.is_dir():
        return f"{folder} cannot be a folder: {existing} is a file"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{folder} cannot be written: no permission in {existing}"
    return None


def _model_problem(name: str) -> str | None:
    path = expanded(name)
    if not os.path.exists(path):
        return missing_path(name)
    if not _readable(path):
        return f"{name} may not be read by this user"
    if path.is_dir() and not (path / "config.json").exists():
        return f"{name} holds no config.json; a model folder, a .gguf file or a Hub id is expected"
    if path.is_file() and path.suffix.lower() != ".gguf":
        return f"{name} is a file; a model folder, a .gguf file or a Hub id is expected"
    return None


def _is_readable_file(path: Path) -> bool:
    return os.path.isfile(path) and _readable(path)


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK | os.X_OK if path.is_dir() else os.R_OK)


def _sources(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of all sources, each with its key: data.source, or data.source.0.source and so on in a list."""
    data = values.get("data")
    given = data.get("source") if isinstance(data, Mapping) else None
    if isinstance(given, str) and given:
        yield "data.source", given
    elif isinstance(given, list | tuple):
        for number, part in enumerate(given):
            name = part.get("source") if isinstance(part, Mapping) else None
            if isinstance(name, str) and name:
                yield f"data.source.{number}.source", name


def _text(values: Mapping[str, Any], section: str, key: str) -> str | None:
    inner = values.get(section)
    value = inner.get(key) if isinstance(inner, Mapping) else None
    return value if isinstance(value, str) else None
