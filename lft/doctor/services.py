"""What a run may need around it: the Hub, SLURM, and the tools DeepSpeed compiles with. Pure."""

from collections.abc import Iterator
from pathlib import Path

from lft.doctor.facts import Facts
from lft.doctor.finding import Finding, ok, warn

LOCAL_WORKS = "local folders and what is in the cache work"


def judge_hub(facts: Facts) -> Finding:
    """Whether the Hub can be reached, and as whom; never the token."""
    hub = facts.hub
    kept = "; logged in" if hub.has_token else ""
    if hub.offline == "--offline":
        return ok("hub", "not asked (--offline)")
    if hub.offline:
        return ok("hub", f"not asked: {hub.offline}; {LOCAL_WORKS}{kept}")
    if "huggingface-hub" not in facts.packages.installed:
        return warn("hub", f"not asked: its client is not installed; {LOCAL_WORKS}", "pip install huggingface_hub")
    if hub.refused:
        return warn("hub", "the token is not valid, or no longer", "hf auth login; or unset HF_TOKEN")
    if hub.error:
        text = f"{hub.endpoint or 'the Hub'} cannot be reached: {hub.error}; {LOCAL_WORKS}{kept}"
        return warn("hub", text, "export HF_HUB_OFFLINE=1 saves waiting; behind a proxy: export HTTPS_PROXY=...")
    if hub.user:
        return ok("hub", f"logged in as {hub.user} at {hub.endpoint}")
    return ok("hub", "reached, not logged in: enough but for uploads and private or gated models", "hf auth login")


def judge_slurm(facts: Facts) -> Finding:
    """Whether jobs can be submitted from here."""
    slurm, job = facts.slurm, facts.machine.slurm
    if not slurm.version:
        return ok("slurm", "not here; lft submit needs it, nothing else does")
    inside = f"; {job.describe()}" if job else ""
    if not slurm.is_up:
        return warn("slurm", f"{slurm.version}, but: {slurm.controller}{inside}", "sinfo; or ask who runs the cluster")
    check = "" if job else "lft doctor --slurm --nodes 2   checks nodes themselves"
    return ok("slurm", f"{slurm.version}, {slurm.controller}{inside}", check)


def judge_deepspeed(facts: Facts) -> Iterator[Finding]:
    """Whether DeepSpeed could compile its operators; they are not compiled here, which takes a minute."""
    version, tools = facts.packages.installed.get("deepspeed"), facts.tools
    if version is None:
        return  # said among the optional packages
    problems = []
    if not tools.compiler:
        problems.append(("there is no C++ compiler", "apt-get install g++, or load the site's gcc module"))
    if not tools.ninja and tools.ninja_of_environment:
        folder = Path(tools.ninja_of_environment).parent
        problems.append((f"ninja is in {folder}, which is not on the PATH", f"source {folder}/activate"))
    elif not tools.ninja:
        problems.append(("there is no ninja", "pip install ninja"))
    built = facts.torch.cuda
    if built and tools.nvcc and built.partition(".")[0] != tools.nvcc.partition(".")[0]:
        text = f"nvcc is of CUDA {tools.nvcc} and torch of {built}"
        problems.append((text, f"load CUDA {built}, or set CUDA_HOME to it"))
    for problem, fix in problems:
        yield warn("deepspeed", f"{version} cannot compile its operators: {problem}", fix)
    if not problems:
        nvcc = f", nvcc {tools.nvcc}" if tools.nvcc else ""
        yield ok("deepspeed", f"{version}; compiles with {tools.compiler}, ninja{nvcc}")
