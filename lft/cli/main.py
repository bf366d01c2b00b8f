"""The command line: all verbs, and the one place where errors become exit codes."""

import os
import signal
import sys
import traceback

import click

from lft.cli.lazy_group import LazyGroup
from lft.cli.lines import echo_lines
from lft.cli.verbosity import everywhere, forget_verbosity, verbosity
from lft.core.errors import BUG, DONE, FORCED, NEXT, PREFLIGHT, SETTINGS, STOPPED, LftError

VERBS = {
    "init": "Write a run file from a few answers, or from another project's.",
    "launch": "Plan, start, watch and finish a run.",
    "submit": "Submit a run to SLURM.",
    "sweep": "Make a run of every combination of lists of values.",
    "doctor": "Check this machine, or the nodes of a SLURM allocation.",
    "plan": "Show what a run would do, and why.",
    "data": "Prepare, inspect and free data ahead of a run.",
    "status": "Say how far a run is, and how its attempts ended.",
    "logs": "Show what the ranks of a run print.",
    "why": "Tell the whole story of a failure.",
    "stop": "Let a run save, and stop it.",
    "resume": "Go on with a run by its folder alone.",
    "benchmark": "Compare base and tuned model of a finished run again.",
    "report": "Show a run, or several side by side, on one page.",
    "generate": "Answer prompts with a tuned model.",
    "chat": "Talk with a tuned model.",
    "merge": "Merge an adapter into its base model.",
    "upload": "Upload a finished run's adapter to the Hugging Face Hub.",
    "selftest": "Try on this machine what a long run relies on.",
    "schema": "Print the run file's JSON Schema, for editors.",
    "completion": "Complete verbs and options at a press of Tab.",
}
"""Verb -> its line in --help, kept here so that --help imports no verb."""
SECTIONS = {
    "Before a run": ("init", "doctor", "plan", "data"),
    "Runs": ("launch", "submit", "sweep", "status", "logs", "why", "stop", "resume"),
    "After a run": ("report", "benchmark", "generate", "chat", "merge", "upload"),
}
"""How --help groups them."""
MISSING = "lft doctor     names all that is missing, with the line that installs it"


def _show_version(context: click.Context, _: click.Parameter, is_given: bool) -> None:
    if is_given:
        from lft.cli.version import version_lines

        click.echo("\n".join(version_lines()))
        context.exit()


@click.group(
    cls=LazyGroup,
    verbs=VERBS,
    modules="lft.cli.",
    sections=SECTIONS,
    params=everywhere(),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Versions that a bug report needs.",
)
def cli() -> None:
    """Fine-tune language models with LoRA on whatever is there.

    \b
    lft launch --demo    see it work, in minutes, on two CPU ranks
    """


def main() -> None:
    """Run the command line and exit with the code of core/errors.py."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code. Whatever happens is said in words."""
    forget_verbosity()
    try:
        code = cli.main(arguments, prog_name="lft", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return DONE
    except click.ClickException as error:
        error.show()
        return SETTINGS
    except LftError as error:
        if verbosity() == "verbose":
            click.echo(traceback.format_exc(), err=True)
        echo_lines([str(error)], err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        return STOPPED
    except BrokenPipeError:
        # whoever read the output has left; what is still buffered must not fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FORCED + signal.SIGPIPE
    except OSError as error:
        click.echo(f"{error.filename or 'the system'}: {error.strerror or error}", err=True)
        return PREFLIGHT
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("lft"):
            echo_lines([f"the package {error.name} is not installed for {sys.executable}{NEXT}{MISSING}"], err=True)
            return PREFLIGHT
        click.echo(traceback.format_exc(), err=True)
        click.echo("this is a bug in lft; the lines above say where", err=True)
        return BUG
    return code if isinstance(code, int) else DONE


if __name__ == "__main__":
    main()
