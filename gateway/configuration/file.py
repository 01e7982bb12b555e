"""The settings file: which one, and its text.

Knows the file system; what the text means is `yaml_text`'s business.
"""

from collections.abc import Mapping
from pathlib import Path as FilePath

from gateway.configuration.layers import Layer
from gateway.configuration.problems import Origin, Problem
from gateway.configuration.yaml_text import BadTextError, YamlReader

DEFAULT_FILE = FilePath("config/gateway.yaml")
FILE_VARIABLE = "GATEWAY_CONFIG"
PRICES_FILE = FilePath("config/prices.yaml")
"""The prices, where there is no settings file; else they are beside that."""
_MAX_BYTES = 16 * 1024 * 1024


def settings_file(path: FilePath | None, environ: Mapping[str, str]) -> FilePath | None:
    """The file to read: `path`, else `GATEWAY_CONFIG`, else `config/gateway.yaml` if it is there."""
    if path is not None:
        return path
    if named := environ.get(FILE_VARIABLE):
        return FilePath(named)
    return DEFAULT_FILE if _may_be_there(DEFAULT_FILE) else None


def _may_be_there(path: FilePath) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        return True  # settings that this user may not read are no reason to do without them


def read_file(path: FilePath, environ: Mapping[str, str], rank: int) -> Layer:
    """The layer of a YAML file, UTF-8 with or without a byte order mark. An empty file says nothing."""
    origin = Origin(str(path), None, rank)
    try:
        return _read_text(_text_of(path, origin), YamlReader(origin, environ))
    except BadTextError as error:
        return Layer(problems=[error.problem])


def _text_of(path: FilePath, origin: Origin) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError as error:
        cure = f"give the path of a YAML file by --config or {FILE_VARIABLE}"
        raise BadTextError(Problem((), f"cannot be read: {error.strerror}", cure, origin)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = Origin(origin.where, data.count(b"\n", 0, error.start) + 1, origin.rank)
        raise BadTextError(Problem((), "is not UTF-8 text", "save it as UTF-8", where)) from None


def _read_text(text: str, reader: YamlReader) -> Layer:
    value = reader.read(text)
    layer = reader.layer
    top = layer.origins.pop((), None)
    if isinstance(value, dict):
        layer.values = value
    elif value is not None:
        cure = "begin with a section, as in `server:`"
        layer.problems.append(Problem((), "is not a table of sections at its top", cure, top))
    return layer
