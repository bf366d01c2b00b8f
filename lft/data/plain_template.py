"""Whether a chat template only writes contents out, so that it may be filled in instead of rendered.

A template that measures, slices or transforms contents would write another text for contents that nobody has tried. Known to
be harmless: writing and joining them, stripping them, and looking for constants in them (contents that hold such a constant
are rendered; see Odd in shape.py). Everything else is taken to be harmful.
"""

from collections.abc import Iterator

from jinja2 import nodes

HARMLESS_FILTERS = {"trim", "string", "safe"}
HARMLESS_METHODS = {
    "strip",
    "lstrip",
    "rstrip",
    "startswith",
    "endswith",
    "split",
    "rsplit",
    "replace",
    "get",
    "append",
}
HARMLESS_TESTS = {
    "string",
    "defined",
    "undefined",
    "none",
    "iterable",
    "sequence",
    "mapping",
    "true",
    "false",
    "boolean",
}


def only_writes_contents(tree: nodes.Template) -> bool:
    """Whether the contents of messages reach the text only in ways that are known to be harmless."""
    aliases = _aliases(tree)
    return not any(_is_harmful(node, aliases) for node in tree.find_all(nodes.Expr))


def _aliases(tree: nodes.Template) -> set[str]:
    """Names that stand for contents: set from them, looped over them, or parameters of macros called with them."""
    macros = {macro.name: [argument.name for argument in macro.args] for macro in tree.find_all(nodes.Macro)}
    aliases: set[str] = set()
    while True:
        found = {name for name in _named_after(tree, aliases, macros) if name not in aliases}
        if not found:
            return aliases
        aliases |= found


def _named_after(tree: nodes.Template, aliases: set[str], macros: dict[str, list[str]]) -> Iterator[str]:
    for assign in tree.find_all(nodes.Assign):
        if _is_about(assign.node, aliases):
            yield from (name.name for name in _targets(assign.target))
    for block in tree.find_all(nodes.AssignBlock):
        if any(_is_about(part, aliases) for part in block.body):
            yield from (name.name for name in _targets(block.target))
    for loop in tree.find_all(nodes.For):
        if _is_about(loop.iter, aliases):
            yield from (name.name for name in _targets(loop.target))
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in macros:
            yield from (
                name
                for name, given in zip(macros[call.node.name], call.args, strict=False)
                if _is_about(given, aliases)
            )
            yield from (each.key for each in call.kwargs if _is_about(each.value, aliases))


def _targets(target: nodes.Node) -> Iterator[nodes.Name]:
    if isinstance(target, nodes.Name):
        yield target
    yield from target.find_all(nodes.Name)


def _is_about(node: nodes.Node, aliases: set[str]) -> bool:
    """Whether an expression holds a content, or a whole message."""
    return any(
        _is_content(each, aliases) for each in (node, *node.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)))
    )


def _is_content(node: nodes.Node, aliases: set[str]) -> bool:
    if isinstance(node, nodes.Name):
        return node.name in aliases
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"


def _is_harmful(node: nodes.Expr, aliases: set[str]) -> bool:
    if isinstance(node, nodes.Getitem):
        return isinstance(node.arg, nodes.Slice) and _is_about(node.node, aliases)
    if isinstance(node, nodes.Filter):
        whole_message = isinstance(node.node, nodes.Name) and node.node.name in ("message", "messages")
        about = node.node is not None and (_is_about(node.node, aliases) or (whole_message and node.name == "tojson"))
        return about and node.name not in HARMLESS_FILTERS
    if isinstance(node, nodes.Test):
        return _is_about(node.node, aliases) and node.name not in HARMLESS_TESTS
    if isinstance(node, nodes.Compare):
        operands: list[nodes.Expr] = [node.expr, *(operand.expr for operand in node.ops)]
        contents = [operand for operand in operands if _is_about(operand, aliases)]
        constant = [operand for operand in operands if isinstance(operand, nodes.Const)]
        return bool(contents) and (len(contents) > 1 or len(contents) + len(constant) < len(operands))
    if isinstance(node, nodes.Call):
        method = node.node
        return (
            isinstance(method, nodes.Getattr)
            and _is_about(method.node, aliases)
            and method.attr not in HARMLESS_METHODS
        )
    if isinstance(node, nodes.Mul | nodes.Mod | nodes.Sub | nodes.Div):
        return _is_about(node, aliases)
    return False
