"""The batch script of a run: what SLURM is asked for, one agent a node, and a requeue only for what can be continued. Pure.

sbatch expands nothing in its directives, so every value is final; whatever may hold a blank or a quote (paths) stands in the
shell's part, quoted, or nowhere. The script is submitted from its own folder, which is where its log is written.
"""

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lft.core.errors import SettingsError
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.slurm_settings import SlurmSettings
from lft.core.words import counted

CPUS_PER_GPU = 4
"""For the rank, its data and the kernel's work; slurm.cpus_per_task changes it."""
WARNING_SECONDS = 30
"""--signal: SLURM's own warning before the time limit, the net below the agent's stop, which comes 60 s before it at the
latest. SLURM looks every 30 s, and so warns 30 to 60 s before."""
SHORT_WARNING = 8
"""In a short job, not before the last eighth of its time."""
LEAVE_SECONDS = 300
"""srun --wait: the first node's agent leaves last, so that whoever is still there so long after another is stuck."""
ELEMENT = "$SLURM_ARRAY_TASK_ID"
SCRIPT, SETTINGS, JOBS = "job.sbatch", "settings.yaml", "jobs.jsonl"
"""Files of a job's folder: the script, the run's settings, and a line for each job submitted."""


@dataclass(frozen=True, slots=True)
class JobShape:
    """What a run takes of a cluster; GPUs and cores are those of each node."""

    nodes: int
    gpus: int
    cpus: int

    def __str__(self) -> str:
        each = " each" if self.nodes > 1 else ""
        what = counted(self.gpus, "GPU") if self.gpus else counted(self.cpus, "CPU core")
        return f"{counted(self.nodes, 'node')} with {what}{each}"


def job_shape(settings: RunSettings) -> JobShape:
    """What the settings ask for. Raises SettingsError where they leave it to the machine, which is not known yet."""
    launch = settings.launch
    if launch.gpus == "auto" and launch.cpu_procs == "auto":
        raise SettingsError(
            ["launch.gpus  is auto, and what a cluster's nodes have is not known here: a number is expected"],
            source="a job",
            next_step="lft submit ... --gpus 8   (per node), or --cpu-procs 2 where there are none",
        )
    gpus = launch.gpus if isinstance(launch.gpus, int) else 0
    ranks = launch.cpu_procs if isinstance(launch.cpu_procs, int) else 2
    return JobShape(launch.nodes, gpus, settings.slurm.cpus_per_task or (CPUS_PER_GPU * gpus or ranks))


def sbatch_script(
    settings: RunSettings,
    python: str,
    elements: int | None = None,
    *,
    explicit: bool = False,
    requeue_exit: bool = False,
) -> str:
    """The script of one run, or of a job array whose elements are runs in the folders 0, 1, ... of output_dir.

    `python` is the interpreter of the nodes that has lft; `explicit`: the run goes on also where changes of its settings make
    that inexact; `requeue_exit`: exit code 75 is enough for SLURM to requeue a job here. Raises SettingsError as `job_shape`
    does.
    """
    shape, slurm = job_shape(settings), settings.slurm
    run = quoted(RunDir(settings.output_dir).slurm)
    if elements is not None:
        inner = RunDir(settings.output_dir / ELEMENT).slurm
        run = quoted(settings.output_dir) + "/" + str(inner.relative_to(settings.output_dir))
    python = slurm.python or ("python3" if slurm.container else python)
    agent = f'{shlex.quote(python)} -m lft.cli.main launch "$run/{SETTINGS}"{" --explicit" if explicit else ""}'
    lines = [
        "#!/bin/bash",
        f"# Made by lft submit: {counted(elements, 'run') + ', each on ' if elements else ''}{shape}.",
        *(f"#SBATCH {directive}" for directive in _directives(settings, shape, elements)),
        "",
        f"run={run}",
        # an element's own job id may be that of the whole array
        "job=$SLURM_JOB_ID" if elements is None else "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        *(['exec >> "$SLURM_SUBMIT_DIR/job-$job.log" 2>&1'] if _misleads_slurm(settings.output_dir) else []),
        *([f"module load {' '.join(slurm.modules)}"] if slurm.modules else []),
        *slurm.setup,
        "",
        "# One agent a node. This shell only outlives the signals, which SLURM sends to the step as well: agents save and end.",
        "trap ':' TERM USR1 USR2",
        *_step(shape, slurm, settings.output_dir),
        f"  {agent} &",
        "step=$!",
        'while kill -0 "$step" 2>/dev/null; do wait "$step"; done  # a trapped signal ends a wait early',
        'wait "$step"',
        "code=$?",
        *(_requeue(elements is not None, requeue_exit) if slurm.requeue else ['exit "$code"']),
    ]
    return "\n".join(lines) + "\n"


def job_name(output_dir: Path) -> str:
    """`lft-support`: of the folder's name, what no program between here and the node takes for something else."""
    return "lft-" + (re.sub(r"[^\w.-]+", "-", output_dir.name, flags=re.ASCII).strip("-")[:40] or "run")


def limit_seconds(time: str) -> int:
    """A time limit as sbatch reads it: M, M:S, H:M:S, D-H, D-H:M or D-H:M:S."""
    days, dash, rest = time.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, (minutes, seconds) = 0, (*parts, 0)[:2]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def quoted(path: Path) -> str:
    """A path as bash reads it, whatever is in it, on one line: a line of its own could look like a directive."""
    text = str(path)
    if text.isprintable():
        return shlex.quote(text)
    bytes_ = "".join(
        chr(byte) if (byte < 128 and chr(byte).isalnum()) or byte in b"/.-_ " else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )
    return f"$'{bytes_}'"


def _directives(settings: RunSettings, shape: JobShape, elements: int | None) -> Iterator[str]:
    slurm = settings.slurm
    yield f"--job-name={job_name(settings.output_dir)}"
    yield f"--nodes={shape.nodes}"
    yield "--ntasks-per-node=1"
    yield f"--cpus-per-task={shape.cpus}"
    if shape.gpus:
        yield f"--gpus-per-node={shape.gpus}"
    yield from site_options(slurm)
    if elements is not None:
        yield f"--array=0-{elements - 1}"
    name = "job-%A_%a.log" if elements is not None else "job-%j.log"
    yield f"--output={'/dev/null' if _misleads_slurm(settings.output_dir) else name}"
    yield "--open-mode=append"
    yield "--requeue" if slurm.requeue else "--no-requeue"
    limit = limit_seconds(slurm.time) if slurm.time else 0
    yield f"--signal=USR1@{min(WARNING_SECONDS, limit // SHORT_WARNING) or WARNING_SECONDS}"
    yield from slurm.directives


def _step(shape: JobShape, slurm: SlurmSettings, output_dir: Path) -> Iterator[str]:
    """The step without its command. srun takes cores per task from nobody."""
    yield f"srun {' '.join(srun_options(shape))} \\"
    mounts = [quoted(output_dir), *slurm.container_mounts]
    if slurm.container and slurm.container_runtime == "apptainer":
        binds = " ".join(f"--bind {mount}" for mount in mounts)
        yield f"  apptainer exec {'--nv ' if shape.gpus else ''}{binds} {shlex.quote(slurm.container)} \\"
    elif slurm.container:
        mounts[0] = f"{mounts[0]}:{mounts[0]}"
        yield f"  --container-image={shlex.quote(slurm.container)} --container-mounts={','.join(mounts)} \\"


def site_options(slurm: SlurmSettings) -> Iterator[str]:
    """What a site wants to know, as sbatch, salloc and srun take it."""
    for option in ("mem", "time", "partition", "account", "qos", "constraint", "exclude", "reservation"):
        if (value := getattr(slurm, option)) is not None:
            yield f"--{option}={value}"


def srun_options(shape: JobShape) -> list[str]:
    """A step of one task a node that lets all tasks end by themselves."""
    sizes = [
        f"--nodes={shape.nodes}",
        f"--ntasks={shape.nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={shape.cpus}",
    ]
    gpus = [f"--gpus-per-node={shape.gpus}"] if shape.gpus else []
    return [*sizes, *gpus, "--kill-on-bad-exit=0", f"--wait={LEAVE_SECONDS}"]


def _misleads_slurm(folder: Path) -> bool:
    """SLURM takes % and \\ in the name of a job's folder for patterns of its log's name, and the job fails (22.05)."""
    return not {"%", "\\"}.isdisjoint(str(folder))


def _requeue(is_array: bool, requeue_exit: bool) -> Iterator[str]:
    """The exit code, and how a job that is to be continued is."""
    yield ""
    yield "# The first node's agent speaks for all; srun would speak for one that was killed. 75: saved, to be continued."
    yield 'said="$run/exit-$job.${SLURM_RESTART_COUNT:-0}"'
    yield '[ ! -r "$said" ] || read -r code < "$said"'
    if requeue_exit:
        yield 'exit "$code"  # RequeueExit is set here'
        return
    yield '[ "$code" = 75 ] || exit "$code"'
    yield "# A site may forbid that: then another job continues. A job that SLURM itself has requeued is not RUNNING any more."
    yield 'scontrol requeue "$job" || [ "$(squeue -h -j "$job" -o %T)" != RUNNING ] || {'
    element = '--array="$SLURM_ARRAY_TASK_ID" ' if is_array else ""
    yield f'  next=$(cd "$SLURM_SUBMIT_DIR" && sbatch --parsable {element}--dependency="afterany:$job" {SCRIPT}) &&'
    number = "_$SLURM_ARRAY_TASK_ID" if is_array else ""
    yield f'    printf \'{{"job_id": "%s"}}\\n\' "${{next%%;*}}{number}" >> "$run/{JOBS}"'
    yield "}"
    yield "exit 75"
