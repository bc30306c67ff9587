"""Names of code, for what is kept of its results: another name as soon as the code would do something else."""

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

PLAIN = (int, float, complex, str, bytes, bool, slice, range, type(None))


def code_version(*things: Any) -> str:
    """8 hex digits of functions or classes, and of every function, class and constant of their packages that they use,
    directly or not. Comments, docstrings and layout do not count, neither does what other packages do."""
    packages = {_package(thing) for thing in map(_bare, things)}
    told: dict[str, str] = {}
    waiting = [(f"root {k}", thing) for k, thing in enumerate(things)]
    while waiting:
        name, thing = waiting.pop()
        if name not in told:
            told[name], used = _describe(thing, packages)
            waiting += used
    return hashlib.sha256("\n".join(f"{name}: {told[name]}" for name in sorted(told)).encode()).hexdigest()[:8]


def _describe(thing: Any, packages: set[str]) -> tuple[str, list[tuple[str, Any]]]:
    """What is said of a thing itself, and the (name, thing) that it uses."""
    thing = _bare(thing)
    if isinstance(thing, functools.partial):
        return "partial", list(_inside("partial", [thing.func, thing.args, thing.keywords]))
    if not isinstance(thing, FunctionType | type):
        return _value(thing), list(_inside("value", thing))
    if _package(thing) not in packages:
        return f"{thing.__module__}.{thing.__qualname__}", []
    where = f"{thing.__module__}.{thing.__qualname__}"
    if isinstance(thing, FunctionType):
        return _text(thing), [*_used_by(thing, packages), *_inside(where, [thing.__defaults__, thing.__kwdefaults__])]
    parts = {name: part for name, part in vars(thing).items() if not name.startswith("__") or name == "__init__"}
    methods = [(f"{where}.{name}", _bare(part)) for name, part in parts.items()]
    written = [(name, part) for name, part in methods if not (isinstance(part, FunctionType) and _is_generated(part))]
    return _text(thing), [*written, *((f"{base.__module__}.{base.__qualname__}", base) for base in thing.__bases__)]


def _used_by(function: FunctionType, packages: set[str]) -> Iterator[tuple[str, Any]]:
    """The globals and enclosed variables of a function; of a module of its packages, the names that may be read from it."""
    names = set(_names(function.__code__))
    space = dict(function.__globals__)
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        yield f"{function.__module__}.{function.__qualname__}: {name}", cell.cell_contents
    for name in sorted(names & space.keys()):
        value = space[name]
        if isinstance(value, ModuleType):
            if value.__name__.partition(".")[0] in packages:
                yield from ((f"{value.__name__}.{other}", vars(value)[other]) for other in sorted(names & vars(value).keys()))
        elif isinstance(_bare(value), FunctionType | type):
            yield f"{_bare(value).__module__}.{_bare(value).__qualname__}", value
        else:
            yield f"{function.__module__}.{name}", value


def _inside(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Functions and classes that a container holds."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for k, one in enumerate(value):
            yield from _inside(f"{where}[{k}]", one)
    elif isinstance(_bare(value), FunctionType | type | functools.partial):
        yield where, value


def _value(value: Any) -> str:
    """A constant as text that is the same in every process; of an object without one, its type."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_value(k)}:{_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ",".join(sorted(map(_value, value))) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _bare(thing: Any) -> Any:
    """The function below decorators that say what they wrap, and below static methods, class methods and properties."""
    while True:
        inner = getattr(thing, "__func__", None) or getattr(thing, "fget", None) or getattr(thing, "__wrapped__", None)
        if inner is None or isinstance(thing, type):
            return thing
        thing = inner


def _text(thing: Any) -> str:
    """The source without comments, docstrings and layout; for what has none, the compiled code."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, SyntaxError):
        return repr(list(_compiled(thing.__code__))) if isinstance(thing, FunctionType) else thing.__qualname__
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:]
    return ast.unparse(tree)


def _compiled(code: CodeType) -> Iterator[Any]:
    yield code.co_code.hex()
    for constant in code.co_consts:
        yield from _compiled(constant) if isinstance(constant, CodeType) else [_value(constant)]


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_generated(function: FunctionType) -> bool:
    return function.__code__.co_filename.startswith("<")


def _package(thing: Any) -> str:
    return (getattr(thing, "__module__", None) or "").partition(".")[0]
