"""The card's snippets: programs that run as they stand, with plain peft and transformers."""

from pathlib import Path

from lft.publish.base_model import is_public
from lft.publish.markdown import code, literal

_LOAD = """\
from peft import {imports}
from transformers import AutoModelForCausalLM, AutoTokenizer

adapter = {adapter}
base = AutoModelForCausalLM.from_pretrained({base}, dtype="auto", device_map="auto")
model = PeftModel.from_pretrained(base, adapter{at})
tokenizer = AutoTokenizer.from_pretrained(adapter{at})

{prompt}
answer = model.generate(**inputs, max_new_tokens=128, do_sample=False)
print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""

_PROMPTS = {
    "chat": """\
messages = [{"role": "user", "content": "What is machine learning?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
inputs = inputs.to(model.device)""",
    "pair": r"""inputs = tokenizer("What is machine learning?\n", return_tensors="pt").to(model.device)""",
    "text": """inputs = tokenizer("Machine learning is", return_tensors="pt").to(model.device)""",
}
_WORDS = {
    "chat": "It was trained with the chat template of the tokenizer that lies beside it.",
    "pair": "It was trained on a prompt, a line feed, and the answer.",
    "text": "It was trained on plain text, and goes on with yours.",
}

_MERGE = """\
To have one model without peft:

```python
merged = model.merge_and_unload()
merged.save_pretrained("merged")
tokenizer.save_pretrained("merged")
```"""


def usage_here(folder: Path, style: str) -> str:
    """A program that asks the adapter in `folder`; it runs as it stands."""
    return _program(style, str(folder))


def _program(style: str, adapter: str, base: str = "", revision: str | None = None) -> str:
    """`base` are the arguments that load it; without them it is the one that the adapter names."""
    named = base or "PeftConfig.from_pretrained(adapter).base_model_name_or_path"
    imports, prompt = "PeftModel" if base else "PeftConfig, PeftModel", _PROMPTS[_known(style)]
    at = f", revision={literal(revision)}" if revision else ""
    return _LOAD.format(imports=imports, adapter=literal(adapter), base=named, prompt=prompt, at=at)


def _known(style: str) -> str:
    return style if style in _PROMPTS else "pair"


def usage_section(
    base: str, base_revision: str | None, style: str, repo_name: str | None, revision: str | None = None
) -> list[str]:
    """How to load the adapter, ask it, and merge it: from the Hub, or in its folder where it has no repository yet."""
    is_gguf, name, named = base.lower().endswith(".gguf"), Path(base).name, ""
    needed = "peft transformers gguf" if is_gguf and repo_name else "peft transformers"
    words = [_WORDS[_known(style)], f"It needs `pip install {needed}`."]
    if is_public(base):
        named = literal(base) + (f", revision={literal(base_revision)}" if base_revision else "")
    elif repo_name and is_gguf:
        named = f'".", gguf_file={literal(name)}'
        words.append(f"The base model is a GGUF file: {code(name)} has to lie beside the program.")
    elif repo_name:
        named = literal(name)
        words.append(f"The base model is not on the Hub: {code(name)} stands for its folder.")
    if repo_name is None:
        words.append("In this folder:")
    program = f"```python\n{_program(style, repo_name or '.', named, revision if repo_name else None)}\n```"
    # transformers keeps a GGUF file's model marked as quantized, and does not save it
    return ["## Use", " ".join(words), program, *([] if repo_name and is_gguf else [_MERGE])]
