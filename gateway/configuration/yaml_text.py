"""YAML text to nested values, with the line of each.

Reads YAML 1.1 as PyYAML's safe loader composes it. Scalars stay text (null
apart); `${NAME}`, `${NAME:-default}` and `$$` are expanded in values, never in
keys. Refuses duplicate keys, tags, what is not UTF-8, and aliases that multiply. No message quotes the
text, which may hold a secret: PyYAML's own do.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from gateway.configuration.layers import Layer
from gateway.configuration.problems import Origin, Path, Problem, showable

_MAX_DEPTH = 8
_MAX_REPEATS = 10_000
"""Nodes that aliases may bring in again: some for each of thousands of keys, and read in well under a second."""
_NULL = "tag:yaml.org,2002:null"
_STANDARD = "tag:yaml.org,2002:"
_REFERENCE = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\}|(\{))")
_BARE_REFERENCE = re.compile(r"\$[A-Za-z_][A-Za-z0-9_]*")
_SURROGATE = re.compile("[\ud800-\udfff]")
_AT_END = re.compile("(?:found|got) '<stream end>'|found unexpected end of stream")
_QUOTED = re.compile(r"'[^']*'")
_LONGEST_QUOTE = 8
_TOO_DEEP = ("is nested too deep", "no setting has so many levels")
_MULTIPLIED = ("repeats too much through aliases (`*name`)", "write it out, or in fewer levels")
_NO_CHARACTER = ("is not YAML: an escape that is no character", "write `\\U` with a code point up to 0010FFFF")
_UNSET = object()
"""Stands for a value that is not there: a reference to an empty variable, or one that was refused."""


class BadTextError(Exception):
    """The text cannot be read at all; holds the one problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class YamlReader:
    """Reads one text of one source.

    `environ` is what references are looked up in; without it, dollars are plain text. Lines are counted from
    1, and left out where `has_lines` is false (an environment variable).
    """

    def __init__(self, origin: Origin, environ: Mapping[str, str] | None = None, *, has_lines: bool = True) -> None:
        self._origin = origin
        self._environ = environ
        self._has_lines = has_lines
        self._seen: set[int] = set()
        self._repeats = 0
        self.layer = Layer()

    def read(self, text: str, path: Path = ()) -> Any:
        """The value of `text`, which stands at `path`. Raises `BadTextError`; others go to `layer`."""
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise BadTextError(Problem(path, *self._explain(error, text))) from None
        except RecursionError:
            raise BadTextError(Problem(path, *_TOO_DEEP, self._origin)) from None
        except (OverflowError, ValueError):  # PyYAML asks for the character of any number of "\U"
            raise BadTextError(Problem(path, *_NO_CHARACTER, self._origin)) from None
        if node is None:
            return None
        value = self._value(node, path)
        return None if value is _UNSET else value

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self.layer.origins[path] = self._at(node.start_mark.line)
        self._count(node, path)
        if len(path) > _MAX_DEPTH:
            return self._refuse(path, *_TOO_DEEP)
        if not node.tag.startswith(_STANDARD):
            return self._refuse(path, "has a tag", "take the `!tag` out; write ${NAME} to read the environment")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
        return None if node.tag == _NULL else self._scalar(str(node.value), path)

    def _count(self, node: yaml.Node, path: Path) -> None:
        self._repeats += id(node) in self._seen
        self._seen.add(id(node))
        if self._repeats > _MAX_REPEATS:
            raise BadTextError(Problem(path, *_MULTIPLIED, self.layer.origins[path]))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key, content in node.value:
            line = key.start_mark.line
            if not isinstance(key, yaml.ScalarNode) or _SURROGATE.search(key.value):
                self._refuse(path, "has a key that is not text", "write `key: value`", line)
            elif key.value in first_lines:
                where = f"line {first_lines[key.value]}" if self._has_lines else "before"
                cure = "keep one of the two"
                self._refuse((*path, key.value), f"is there twice, the first time on {where}", cure, line)
            else:
                first_lines[key.value] = line + 1
                self._put(values, (*path, key.value), content)
                self.layer.origins[(*path, key.value)] = self._at(line)
        return values

    def _put(self, values: dict[str, Any], path: Path, node: yaml.Node) -> None:
        value = self._value(node, path)
        if value is not _UNSET:
            values[str(path[-1])] = value

    def _scalar(self, text: str, path: Path) -> Any:
        if self._environ is None or "$" not in text:
            return text
        if _BARE_REFERENCE.fullmatch(text):
            cure = "write ${NAME} to read the environment, or $$NAME for a dollar and a name"
            return self._refuse(path, "begins with a single dollar", cure)
        problems = len(self.layer.problems)
        expanded = _REFERENCE.sub(lambda found: self._look_up(found, path), text)
        return expanded if expanded and len(self.layer.problems) == problems else _UNSET

    def _look_up(self, found: re.Match[str], path: Path) -> str:
        dollar, name, default, broken = found.groups()
        if dollar:
            return "$"
        if broken:
            cure = "write ${NAME} or ${NAME:-default}, or $$ for a dollar sign"
            self._refuse(path, "has a `${` that does not begin a reference", cure)
            return ""
        if value := (self._environ or {}).get(name) or default:
            return value
        if default is None:
            cure = f"set it, or write ${{{name}:-default}}"
            self._refuse(path, f"reads the environment variable {showable(name)}, which is not set", cure)
        return ""

    def _refuse(self, path: Path, reason: str, cure: str, line: int | None = None) -> object:
        origin = self.layer.origins.get(path, self._origin) if line is None else self._at(line)
        self.layer.problems.append(Problem(path, reason, cure, origin))
        return _UNSET

    def _at(self, line: int) -> Origin:
        if not self._has_lines:
            return self._origin
        return Origin(self._origin.where, line + 1, self._origin.rank)

    def _explain(self, error: yaml.YAMLError, text: str) -> tuple[str, str, Origin]:
        if isinstance(error, yaml.reader.ReaderError):
            line = text.count("\n", 0, error.position)
            return "is not YAML: a control character", "take it out", self._at(line)
        if not isinstance(error, yaml.MarkedYAMLError):
            return "is not YAML", "see https://yaml.org/spec/1.1", self._origin
        mark = error.problem_mark or error.context_mark
        where = self._origin if mark is None else self._at(mark.line)
        problem = _AT_END.sub("the file ended", error.problem or "")
        return (*_reason_and_cure(problem if self._has_lines else problem.replace("the file", "it")), where)


def _reason_and_cure(problem: str) -> tuple[str, str]:
    if "'\\t'" in problem:
        return "is not YAML: a tab in the indentation", "indent with spaces"
    if "another document" in problem:
        return "is not one YAML document but several", "keep what stands before the second `---`"
    if "undefined alias" in problem:
        return "is not YAML: an alias (`*name`) without its anchor", "put text that begins with * in quotes"
    plain = _QUOTED.sub(lambda found: found[0] if len(found[0]) < _LONGEST_QUOTE else "…", problem)
    cure = "look at this line and the one before it: quotes, colons, brackets, indentation"
    return f"is not YAML: {plain or 'it cannot be read'}", cure
