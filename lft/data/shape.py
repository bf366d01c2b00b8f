"""Templates compiled: all conversations with the same roles have the same constant text, so it is learned once.

Rendering with Jinja costs 20 us a row and finding the answers several times that; filling in costs 1 us. The texts are learned
by rendering marks in place of the contents and cutting the result at the marks. What a template would treat otherwise than the
marks is odd and left to the template: contents that are empty or hold a constant which the template looks for.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser

from lft.core.errors import DataError
from lft.data.plain_template import only_writes_contents
from lft.data.template import MARK

LEFT, RIGHT = " \n\t", "\t \n \t"
"""White space around marks, to see what the template does with it. Their lengths tell which one was kept."""

_AT_THE_EDGES = {"strip", "lstrip", "rstrip", "trim"}
_NOT_ABOUT_CONTENTS = {"get", "join", "default", "raise_exception", "strftime_now", "namespace", "map", "selectattr"}
_NO_CONTENTS = {"role", "type"}


class Slots(NamedTuple):
    """The texts of a row's pieces, to be filled with contents. `strips` is what the template does to each of them."""

    texts: tuple[tuple[str | int, ...], ...]
    """By piece: constant text, and numbers of contents."""
    strips: tuple[Callable[[str], str], ...] | None
    """None where all are taken as they are."""

    def stripped(self, contents: Sequence[str]) -> Sequence[str]:
        """The contents as they stand in the text."""
        if self.strips is None:
            return contents
        return [strip(content) for strip, content in zip(self.strips, contents, strict=True)]

    def fill(self, contents: Sequence[str]) -> list[str]:
        """The pieces of the row with these contents."""
        shown = self.stripped(contents)
        return ["".join(part if isinstance(part, str) else shown[part] for part in text) for text in self.texts]


class Shape(NamedTuple):
    """What rows with the same roles have in common; the fields are as in Written."""

    slots: Slots
    trained: tuple[bool, ...]
    answer: int | None


def learn_slots(render: Callable[[Sequence[str]], list[str]], marks: Sequence[str]) -> Slots | None:
    """The slots of a row whose pieces `render` gives for contents; None where the template treats white space in its own way.

    Raises whatever `render` raises.
    """
    texts = tuple(tuple(_parts(piece)) for piece in render(marks))
    spaced = [f"{LEFT}{each}{RIGHT}" for each in marks]
    shown = render(spaced)
    seen = "".join(shown)
    strips = tuple(_strip(f"{LEFT}{each}" in seen, f"{each}{RIGHT}" in seen) for each in marks)
    slots = Slots(texts, None if all(strip is str for strip in strips) else strips)
    return slots if slots.fill(spaced) == shown else None


def _parts(text: str) -> Iterator[str | int]:
    for index, part in enumerate(MARK.split(text)):
        if index % 2:
            yield int(part)
        elif part:
            yield part


def _strip(keeps_left: bool, keeps_right: bool) -> Callable[[str], str]:
    if keeps_left:
        return str if keeps_right else str.rstrip
    return str.lstrip if keeps_right else str.strip


class Odd:
    """Tells contents that a template may treat specially, by the constants in it; `also` are others to be looked for."""

    def __init__(self, template: str, also: Sequence[str] = ()) -> None:
        inside, edges = set(also), set[str]()
        tree = _parsed(template)
        self._always = not only_writes_contents(tree)
        for name, constant in _constants(tree):
            (edges if name in _AT_THE_EDGES else inside).add(constant)
        self._inside = tuple(sorted(each for each in inside if each))
        self._edges = tuple(sorted({character for each in edges for character in each}))

    def any(self, contents: Sequence[str]) -> bool:
        """Whether one of the contents is odd."""
        edges = self._edges
        if self._always:
            return True
        for content in contents:
            if not content or content.isspace():
                return True
            for constant in self._inside:
                if constant in content:
                    return True
            if edges and (content.startswith(edges) or content.endswith(edges)):
                return True
        return False


class _Generation(Extension):
    """Lets templates with generation markers be parsed."""

    tags = {"generation"}  # noqa: RUF012  as the base class has it

    def parse(self, parser: Parser) -> nodes.Node:
        """The block is what it holds."""
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _parsed(template: str) -> nodes.Template:
    environment = jinja2.Environment(extensions=[loopcontrols, _Generation])  # parsed only, never rendered
    try:
        return environment.parse(template)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(f"the chat template is no Jinja template: line {error.lineno}: {error.message}") from None


def _constants(tree: nodes.Template) -> Iterator[tuple[str, str]]:
    """Texts that the template compares contents with or passes to a function, method or filter, and that one's name."""
    for compare in tree.find_all(nodes.Compare):
        if not _names(compare) & _NO_CONTENTS:
            yield from (("", each.value) for each in compare.find_all(nodes.Const) if isinstance(each.value, str))
    calls: list[nodes.Call | nodes.Filter] = [*tree.find_all(nodes.Call), *tree.find_all(nodes.Filter)]
    for call in calls:
        name = _name(call)
        if name not in _NOT_ABOUT_CONTENTS:
            arguments = [*call.args, *(keyword.value for keyword in call.kwargs)]
            for argument in arguments:
                found = [argument] if isinstance(argument, nodes.Const) else argument.find_all(nodes.Const)
                yield from ((name, each.value) for each in found if isinstance(each.value, str))


def _name(call: nodes.Call | nodes.Filter) -> str:
    if isinstance(call, nodes.Filter):
        return call.name
    return str(getattr(call.node, "attr", "") or getattr(call.node, "name", ""))


def _names(node: nodes.Node) -> set[str]:
    """Attributes and keys that an expression reads."""
    attributes = {each.attr for each in node.find_all(nodes.Getattr)}
    return attributes | {
        str(each.arg.value) for each in node.find_all(nodes.Getitem) if isinstance(each.arg, nodes.Const)
    }
