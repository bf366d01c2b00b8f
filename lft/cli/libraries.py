"""Getting the libraries that compute into this process, for the few verbs that need them there."""

import warnings

import click

from lft.cli.verbosity import verbosity
from lft.core.rank import use_defaults

DEFAULTS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "true"}


def expect_libraries() -> None:
    """Before torch and transformers are imported: say so, since it takes seconds, and keep their developers' warnings back.

    What is said goes to standard error: on standard output are answers alone.
    """
    if verbosity() != "verbose":
        use_defaults(DEFAULTS)
        for kind in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
    tell("loading    libraries")


def tell(line: str) -> None:
    """Progress, unless --quiet."""
    if verbosity() != "quiet":
        click.echo(line, err=True)
