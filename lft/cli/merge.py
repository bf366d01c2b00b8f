"""lft merge: an adapter and its base model as one model."""

from pathlib import Path

import click

from lft.cli.libraries import expect_libraries, tell
from lft.cli.run_argument import run_argument
from lft.cli.verb import option
from lft.core.adapter_folder import find_tuned
from lft.core.errors import PreflightError


@click.command("merge")
@run_argument()
@option("What", "--output", type=click.Path(path_type=Path), metavar="FOLDER", help="Default: OUTPUT_DIR/merged.")
@option("What", "--model", metavar="NAME", words="file", help="Where the base model is now.")
@option("How", "--no-check", is_flag=True, help="Do not compare it with base and adapter, which loads both.")
@option("How", "--trust-remote-code", is_flag=True, help="Run model code that comes with the weights.")
def command(output_dir: Path, output: Path | None, model: str | None, no_check: bool, trust_remote_code: bool) -> None:
    """Write the base model with the adapter of OUTPUT_DIR merged into it, file by file, in the memory of one file.

    \b
    lft merge runs/support
    lft merge runs/support --output models/support --no-check
    """
    folder = find_tuned(output_dir, model)
    if not folder.has_adapter:
        raise PreflightError(f"{output_dir} holds a whole model, and no adapter to merge")
    expect_libraries()
    from lft.train.merged_model import merge

    done = merge(
        folder,
        (output or folder.folder / "merged").expanduser(),
        tell,
        check=not no_check,
        trust_remote_code=trust_remote_code,
    )
    if done.likeness is not None:
        alike = done.likeness
        click.echo(
            f"checked    logits differ by at most {alike.largest:.2g} ({100 * alike.share:.2g} % of their norm); the likeliest "
            f"token is the same in {alike.same} of {alike.places} places"
        )
    click.echo(f"merged     {done.changed} of {done.tensors} tensors, {done.size_bytes / 1e6:,.0f} MB: {done.folder}")
