"""Compiles and renders one template file within limits, whatever is written in it.

Jinja2's sandbox keeps a template away from Python's insides, but not from time and memory.  Here each turn of a loop is
counted, each value and the output are measured, and processor time is the backstop.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence, Sized
from decimal import Decimal
from typing import Any

from jinja2 import (
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    Undefined,
    UndefinedError,
    meta,
    pass_context,
)
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from dispatcher.content import language
from dispatcher.content.filters import MAX_ITEMS, MAX_VALUE_CHARS, SCALARS, LimitReached, Sample, items_of, own_filters
from dispatcher.errors import DispatcherError

MAX_OUTPUT_CHARS = 1_000_000
MAX_STEPS = 200_000  #: turns of loops, each times the size of what the loop repeats
MAX_CPU_SECONDS = 1.0  #: of this thread, so that a busy machine does not fail a good template
_BINARY = frozenset({"+", "-", "*", "/", "//", "%", "**"})
_MAX_BITS = 256


class TemplateInvalid(DispatcherError):  # noqa: N818 - named for what it says
    """A file of a template cannot be used; says where and why."""

    def __init__(self, file: str, line: int, reason: str) -> None:
        super().__init__(f"{file}:{line}: {reason}")
        self.file, self.line, self.reason = file, line, reason


class RenderFailed(DispatcherError):  # noqa: N818 - named for what it says
    """A template could not be rendered for one contact; names file, line and variable, never a value."""

    def __init__(self, reason: str, *, file: str | None = None, line: int | None = None) -> None:
        super().__init__(": ".join(filter(None, (f"{file}:{line}" if line else file, reason))))
        self.reason, self.file, self.line = reason, file, line


class _Missing(StrictUndefined):
    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return str(self._undefined_name)


class _MeteredContext(Context):
    """The values of one rendering, and how much work it has done."""

    steps_left = MAX_STEPS
    deadline = 0.0

    def spend(self, steps: int) -> None:
        self.steps_left -= steps
        now = time.thread_time()
        self.deadline = self.deadline or now + MAX_CPU_SECONDS
        if self.steps_left < 0 or now > self.deadline:
            raise LimitReached("the loops of this template take too many turns")


class _Turns:
    """What a loop goes through, one paid turn after the other."""

    __slots__ = ("context", "cost", "items")

    def __init__(self, context: _MeteredContext, items: list[Any], cost: int) -> None:
        self.context, self.items, self.cost = context, items, cost

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            self.context.spend(self.cost)
            yield item


@pass_context
def _turns(context: _MeteredContext, values: Any, cost: int) -> _Turns:
    context.spend(1)
    return _Turns(context, items_of(values), cost)


@pass_context
def _metered(context: _MeteredContext, value: Any) -> Any:
    """Return what a filter is given, once its length is paid for."""
    if not isinstance(value, (str, int, float, Undefined)):
        context.spend(1 + len(value) // 10 if isinstance(value, Sized) else 1)
    return value


def _range(*limits: int) -> range:
    found = range(*limits)
    if len(found) > MAX_ITEMS:
        raise LimitReached(f"range() makes at most {MAX_ITEMS:,} numbers")
    return found


def _shown(value: Any) -> Any:
    """Return what `{{ value }}` prints; nothing for None."""
    if value is None:
        return ""
    if not isinstance(value, SCALARS):
        raise LimitReached("only texts and numbers can be printed; loop over a list, or name a field")
    return value


class _Sandbox(ImmutableSandboxedEnvironment):
    """Values are data: a mapping has its keys, a list its items, and nothing has methods."""

    context_class = _MeteredContext
    intercepted_binops = _BINARY

    def __init__(self, *, html: bool) -> None:
        super().__init__(
            autoescape=html, undefined=_Missing, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
            finalize=_shown, cache_size=0,
        )  # fmt: skip
        self.filters = own_filters(html=html) | {"_turns": _turns, "_metered": _metered}
        self.globals = {"range": _range, "namespace": Namespace}

    def getattr(self, obj: Any, attribute: str) -> Any:
        if type(obj) is dict:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, (LoopContext, Namespace, Undefined)):
            return super().getattr(obj, attribute)
        return self.getitem(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Sample):
            return obj.part(argument)
        if isinstance(obj, Mapping) or (isinstance(argument, int) and isinstance(obj, (str, list, tuple))):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                return self.undefined(obj=obj, name=argument)
        if isinstance(obj, Undefined):
            str(obj)  # raises, naming the variable
        return self.undefined(obj=obj, name=argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        left, right = (1 if isinstance(value, Sample) else value for value in (left, right))
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            if len(left) + len(right) > MAX_VALUE_CHARS:
                raise LimitReached(f"a text made in a template may have at most {MAX_VALUE_CHARS:,} characters")
        elif not isinstance(left, Undefined) and not isinstance(right, Undefined):
            _check_numbers(operator, left, right)
        return super().call_binop(context, operator, left, right)


def _check_numbers(operator: str, left: Any, right: Any) -> None:
    for value in (left, right):
        if not isinstance(value, (int, float, Decimal)):
            raise LimitReached(f"{operator} is for numbers; join texts with ~")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise LimitReached("this number is out of range")
    if operator == "**" and (abs(left) > 1_000_000 or abs(right) > 12):
        raise LimitReached("this number is out of range")


_SANDBOXES = {html: _Sandbox(html=html) for html in (True, False)}


class Compiled:
    """One part of a template, ready to render."""

    def __init__(self, file: str, source: str, *, html: bool, places: Sequence[tuple[str, int]] = ()) -> None:
        """Raises TemplateInvalid with the first line that cannot be used.

        `places`: of each line of the source, the file and line it is written in, where that is not all of `file`.
        """
        self.file, self.source, self._places = file, source, places
        sandbox = _SANDBOXES[html]
        if source.count("{{") + source.count("{%") > language.MAX_NODES:  # parsing alone would take seconds
            raise TemplateInvalid(file, 1, language.TOO_LONG)
        try:
            tree = sandbox.parse(source)
            for line, reason in sorted(language.objections(tree)):
                raise TemplateInvalid(*self.place(line), reason)
            self.paths = language.paths(tree)
            self.variables = frozenset(meta.find_undeclared_variables(tree)) - set(sandbox.globals)
            tree = language.Bounded().visit(tree)
            tree.set_environment(sandbox)
            self._template = Template.from_code(sandbox, sandbox.compile(tree, file, file), dict(sandbox.globals))
        except TemplateSyntaxError as error:
            raise TemplateInvalid(*self.place(error.lineno), error.message or "cannot be read") from None
        except (RecursionError, SyntaxError, MemoryError, OverflowError, ValueError):
            raise TemplateInvalid(file, 1, "is nested too deeply to be read") from None

    def place(self, line: int) -> tuple[str, int]:
        """Return the file and line in which a line of the source is written."""
        return self._places[line - 1] if 0 < line <= len(self._places) else (self.file, line)

    def render(self, values: dict[str, Any]) -> str:
        """Return the text for these values; raises RenderFailed."""
        chunks: list[str] = []
        size = 0
        try:
            for chunk in self._template.root_render_func(self._template.new_context(values)):
                size += len(chunk)
                if size > MAX_OUTPUT_CHARS:
                    raise LimitReached(f"the text is longer than {MAX_OUTPUT_CHARS:,} characters")
                chunks.append(chunk)
        except Exception as error:
            file, line = self.place(self._line(error) or 0)
            raise RenderFailed(self._reason(error), file=file, line=line or None) from None
        return "".join(chunks)

    def _reason(self, error: Exception) -> str:
        if isinstance(error, UndefinedError):
            path = next((path for _, path in self.paths if path.split(".")[-1] == str(error)), None)
            return f"{path} is not known" if path else "a value that is not known is used"
        if isinstance(error, LimitReached):
            return str(error)
        if isinstance(error, TemplateError):
            return "uses what templates may not use"
        return f"these values do not go together ({type(error).__name__})"

    def _line(self, error: Exception) -> int | None:
        line, trace = None, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_globals.get("__jinja_template__") is self._template:
                line = self._template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


def tokens(source: str) -> list[tuple[int, str, str]]:
    """Return line, kind and text of every piece of a template, which joined are the source; TemplateSyntaxError."""
    return [*_SANDBOXES[True].lex(source)]
