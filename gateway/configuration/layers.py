"""Settings as one source gives them, and how sources lie on each other.

Knows text and where it stood; knows nothing of types: a scalar stays the text
that a person wrote until the models in `gateway.settings` read it, so that
`off` can be a word in one place and a boolean in another.
"""

from dataclasses import dataclass, field
from typing import Any

from gateway.configuration.problems import Origin, Path, Problem
from gateway.settings import SECTIONS

LIMIT_TABLES: tuple[Path, ...] = (("limits", "each_key"), ("limits", "each_team"), ("limits", "endpoint"))
"""The settings that have limits by name."""

COLLECTIONS: tuple[Path, ...] = (
    ("keys",),
    ("models", "aliases"),
    ("server", "trusted_proxies"),
    *LIMIT_TABLES,
    ("limits", "shadow"),
)
"""The settings that are lists or tables of names."""


@dataclass(slots=True)
class Layer:
    """What one source says: nested `values`, the `origins` of all paths in them, and what was wrong."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Origin] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def origin_of(self, path: Path) -> Origin | None:
        """The origin of the longest known part of `path`."""
        for length in range(len(path), 0, -1):
            if (origin := self.origins.get(path[:length])) is not None:
                return origin
        return None

    def drop(self, path: Path) -> None:
        """Take the value at `path` (a section's key, or a top-level one) out again."""
        if len(path) > 1:
            self.values.get(str(path[0]), {}).pop(path[1], None)
        else:
            self.values.pop(str(path[0]), None)
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]


def merge(layers: list[Layer]) -> Layer:
    """All layers in one, the last one on top. A list or a table of names is replaced as a whole."""
    merged = Layer()
    for layer in layers:
        merged.problems += layer.problems
        for name, content in layer.values.items():
            _lay(merged, layer, name, content)
    return merged


def _lay(merged: Layer, layer: Layer, name: str, content: Any) -> None:
    if name not in SECTIONS:
        _replace(merged, layer, (name,), content)
    elif isinstance(content, dict):
        merged.values.setdefault(name, {})
        for key, value in content.items():
            _replace(merged, layer, (name, key), value)
    elif content is not None:
        cure = "write its keys below it, indented, each as `key: value`"
        merged.problems.append(Problem((name,), "is not a table of keys", cure, layer.origin_of((name,))))


def _replace(merged: Layer, layer: Layer, path: Path, value: Any) -> None:
    if value is None and path in COLLECTIONS:
        return  # `keys:` with nothing, or only comments, below it
    merged.drop(path)
    holder = merged.values if len(path) == 1 else merged.values[str(path[0])]
    holder[str(path[-1])] = value
    merged.origins |= {known: layer.origins[known] for known in layer.origins if known[: len(path)] == path}
