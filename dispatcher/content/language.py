"""What a template may say: a part of Jinja2 small enough to be bounded.

Texts, `if`, `for`, `set` and `with`; filters from a list; no macros, includes, blocks or calls into Python.  So the
only way to do much work is a loop, and every loop counts its turns (`sandbox`).
"""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

_SPOKEN = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.With,
    nodes.Name, nodes.NSRef, nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword,
    nodes.Compare, nodes.Operand, nodes.BinExpr, nodes.UnaryExpr, nodes.Concat, nodes.CondExpr,
    nodes.Filter, nodes.Test, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call,
)  # fmt: skip
MAX_NODES = 5_000  #: of one file; a long mail has a few hundred
TOO_LONG = f"is too long: a file may have at most {MAX_NODES:,} expressions and their parts"
_CALLABLE = {"range", "namespace"}
_LOOP_METHODS = {"cycle", "changed"}
_TAGS: dict[type[nodes.Node], str] = {
    nodes.CallBlock: "call",
    nodes.FilterBlock: "filter",
    nodes.AssignBlock: "set ... endset",
    nodes.FromImport: "from",
    nodes.ScopedEvalContextModifier: "autoescape",
}


def objections(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    """Return line and reason for everything in the tree that templates do not have."""
    for count, node in enumerate(tree.find_all(nodes.Node)):
        line = node.lineno or 1  # a few kinds of nodes have none
        if count == MAX_NODES:
            yield line, TOO_LONG
            return
        if not isinstance(node, _SPOKEN):
            tag = _TAGS.get(type(node), type(node).__name__.lower())
            yield line, f"{tag!r} is not available in templates"
        elif isinstance(node, nodes.For) and node.recursive:
            yield line, "a recursive loop is not available in templates"
        elif isinstance(node, nodes.Call) and not _may_be_called(node):
            yield line, "only range(), namespace(), loop.cycle() and loop.changed() can be called; use a filter"
        elif isinstance(node, (nodes.Getattr, nodes.Name)) and _name_of(node).startswith("_"):
            yield line, f"{_name_of(node)!r}: names that begin with _ are not available in templates"
        elif isinstance(node, nodes.Filter) and node.name.startswith("_"):
            yield line, f"No filter named {node.name!r}."


def _may_be_called(call: nodes.Call) -> bool:
    if isinstance(call.node, nodes.Name):
        return call.node.name in _CALLABLE
    return isinstance(call.node, nodes.Getattr) and dotted(call.node) in {f"loop.{method}" for method in _LOOP_METHODS}


def _name_of(node: nodes.Getattr | nodes.Name) -> str:
    return node.attr if isinstance(node, nodes.Getattr) else node.name


def dotted(node: nodes.Node) -> str | None:
    """Return `contact.first_name` for that expression, None for what is not a plain path."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        name = node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
        name = node.arg.value
    else:
        return None
    owner = dotted(node.node)
    return f"{owner}.{name}" if owner else None


def paths(tree: nodes.Template) -> list[tuple[int, str]]:
    """Return line and dotted path of every value the template reads, the longest path of each expression."""
    inner: set[int] = set()
    found = []
    for node in tree.find_all((nodes.Getattr, nodes.Getitem, nodes.Name)):  # outer before inner
        path = None if id(node) in inner else dotted(node)
        if isinstance(node, nodes.Name) and node.ctx != "load":
            continue
        if path:
            found.append((node.lineno, path))
            _remember(node, inner)
    return found


def _remember(node: nodes.Node, inner: set[int]) -> None:
    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        node = node.node
        inner.add(id(node))


class Bounded(NodeTransformer):
    """Puts a counter into each loop, and a limit on everything that joins values."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - as jinja2 calls them
        self.generic_visit(node)
        cost = sum(1 for _ in node.find_all(nodes.Node))
        node.iter = _filtered(node.iter, "_turns", nodes.Const(cost))
        return node

    def visit_Filter(self, node: nodes.Filter) -> nodes.Filter:  # noqa: N802 - as jinja2 calls them
        self.generic_visit(node)
        if node.node is not None:
            node.node = _filtered(node.node, "_metered")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - as jinja2 calls them
        self.generic_visit(node)
        return _filtered(node.nodes[0], "_glued", *node.nodes[1:])

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802 - as jinja2 calls them
        self.generic_visit(node)
        return _filtered(node, "_flat")

    visit_Dict = visit_List  # noqa: N815 - as jinja2 calls them

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802 - as jinja2 calls them
        self.generic_visit(node)
        return _filtered(node, "_flat") if node.ctx == "load" else node


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(arguments), [], None, None, lineno=node.lineno)
