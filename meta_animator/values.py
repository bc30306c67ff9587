"""Texts to the values of config fields. The field's type decides how a text is read; for a text, it stands as it is."""

import re
from collections.abc import Iterable
from typing import Any, get_args, get_origin

import yaml

from meta_animator.errors import UserError

TRUE, FALSE = ("true", "yes", "on", "1", "y", "t"), ("false", "no", "off", "0", "n", "f")
EXPECTED = {
    str: "a text", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list such as [a, b]", dict: "a mapping such as {name: value}",
}  # fmt: skip
ELEMENT = re.compile(r"""\s*((?:"[^"]*"|'[^']*')(?=\s*(?:[,:]|$))[^,]*|[^,]*)(?:,|$)""")


class Texts(yaml.SafeLoader):
    """YAML whose scalars all stay texts as they are written, but for null; a key that comes twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"key '{twice[0]}' comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


Texts.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_yaml(text: str) -> Any:
    """None, a text, or lists and mappings of them. Raises UserError for what is not YAML, with the line."""
    try:
        return yaml.load(text, Texts)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(f"line {mark.line + 1}: {error.problem}" if mark else str(error.problem)) from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise UserError(str(error).strip().splitlines()[0]) from error


def from_yaml(value: Any, kind: Any) -> Any:
    """What `read_yaml` gives, as a value of a field's type: str, int, float, bool, list[...] or dict[str, ...].

    Nothing at all is an empty text. Raises UserError for a value that is none of this type.
    """
    if get_origin(kind) is list:
        (element,) = get_args(kind)
        return [_element(entry, element) for entry in _of(list, value)]
    if get_origin(kind) is dict:
        _, element = get_args(kind)
        return {str(name): _entry(name, entry, element) for name, entry in _of(dict, value).items()}
    if kind is str and value is None:
        return ""
    if value is None or isinstance(value, list | dict | set | bytes):
        advice = "; put it into quotes" if kind is str else ""
        raise UserError(f"expected {EXPECTED[kind]}, got {_shown(value)}{advice}")
    return _scalar(str(value), kind)


def from_argument(text: str, kind: Any) -> Any:
    """The value of `key=text` on a command line for a field of this type. A text is taken literally, without the quotes
    where all of it is in a pair of them; so are the elements of a list [a, b] and the names of a mapping {a: 1}."""
    if kind is str:
        return _unquoted(text)
    bare = text.strip()
    if get_origin(kind) is list:
        (element,) = get_args(kind)
        return [_scalar(_unquoted(entry), element) for entry in _flow(bare, "[]", list)]
    if get_origin(kind) is dict:
        _, element = get_args(kind)
        pairs = [_pair(entry) for entry in _flow(bare, "{}", dict)]
        return {name: _entry(name, value or None, element) for name, value in pairs}
    return _scalar(_unquoted(bare), kind)


def list_argument(texts: Iterable[object]) -> str:
    """A list of texts as `from_argument` reads it. Raises UserError for one that holds both kinds of quotes."""
    quoted = []
    for text in map(str, texts):
        quote = "'" if '"' in text else '"'
        if quote in text:
            raise UserError(f"{text}: holds both kinds of quotes, which no argument can; rename it")
        quoted.append(f"{quote}{text}{quote}")
    return f"[{', '.join(quoted)}]"


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise UserError(f"expected {EXPECTED[kind]}, got {_shown(value)}")
    return value


def _element(value: Any, kind: Any) -> Any:
    if value is None:
        raise UserError("holds an element without a value")
    return from_yaml(value, kind)


def _entry(name: Any, value: Any, kind: Any) -> Any:
    if value is None:
        hint = "; YAML wants a space after a colon" if ":" in str(name) else ""
        raise UserError(f"'{name}' has no value, expected {{name: value}}{hint}")
    try:
        return from_yaml(value, kind)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _scalar(text: str, kind: type) -> Any:
    word = text.strip().lower()
    try:
        if kind is str:
            return text
        if kind is bool:
            return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[word]
        number = kind(word.replace(".inf", "inf") if kind is float else word)
        if number != number:
            raise ValueError
        return number
    except (KeyError, ValueError):
        raise UserError(f"expected {EXPECTED[kind]}, got {_shown(text)}") from None


def _flow(text: str, brackets: str, kind: type) -> list[str]:
    """The elements of "[a, 'b, c']" or "{a: 1, b: 2}", quotes kept."""
    if len(text) < 2 or text[0] != brackets[0] or text[-1] != brackets[1]:
        raise UserError(f"expected {EXPECTED[kind]}, got {_shown(text)}")
    found = [match[1].strip() for match in ELEMENT.finditer(text[1:-1])]
    while found and not found[-1]:  # a comma may end the list
        found.pop()
    if "" in found:
        raise UserError(f"{text} holds an element without a value")
    return found


def _pair(entry: str) -> tuple[str, str]:
    if quoted := re.fullmatch(r"""("[^"]*"|'[^']*')\s*:\s*(.*)""", entry):
        return _unquoted(quoted[1]), quoted[2]
    name, found, value = entry.rpartition(": ")
    return (name.strip(), _unquoted(value.strip())) if found else (_unquoted(entry), "")


def _unquoted(text: str) -> str:
    whole = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]
    return text[1:-1] if whole else text


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'}"
    return f"'{value}'"
