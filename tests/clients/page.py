"""The examples of the API page: what they are called, and the code as it is printed.

Knows how the page's text is laid out (a table of contents, headings, code after a line `sh`); runs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent / "api_page.md"
BASE_URL = "https://api.gmi-serving.com/v1"
KEYS = ("<gmi-api-key>", "*************")
"""What stands where a key belongs; the curl examples read `$GMI_API_KEY`."""

_SECTIONS = {"Create chat completion": "chat", "Create a model response": "responses"}
_CODE = "sh"
"""The label above every code block, whatever its language."""


@dataclass(frozen=True, slots=True)
class Example:
    """One code block: of which API, under which heading, in `curl` or `python`."""

    api: str
    kind: str
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.api} {self.kind} {self.language}"

    def pointed_at(self, base_url: str, key: str) -> str:
        """The code with another base URL and a key, otherwise unchanged."""
        code = self.code.replace(BASE_URL, base_url)
        for placeholder in KEYS:
            code = code.replace(placeholder, key)
        return code


def contents(lines: list[str]) -> list[tuple[str, str]]:
    """API and kind of every entry of the page's table of contents."""
    start, end = lines.index("Create chat completion"), lines.index("Web search") + 1
    api, found = "", []
    for title in lines[start:end]:
        if title in _SECTIONS:
            api = _SECTIONS[title]
        else:
            found.append((api, title.removesuffix(" (Responses)")))
    return found


def examples() -> list[Example]:
    """All code blocks in the page's order."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    kinds = {kind for _, kind in contents(lines)}
    body = lines[lines.index("Web search") + 1 :]
    return [Example(api, kind, _language(code), code) for api, kind, code in _blocks(body, kinds)]


def _blocks(lines: list[str], kinds: set[str]) -> Iterator[tuple[str, str, str]]:
    api, kind, code, in_code = "", "", list[str](), False
    for line in [*lines, _CODE]:
        if line not in kinds and line not in _SECTIONS and line != _CODE:
            code += [line] if in_code else []
            continue
        if in_code:
            yield api, kind, "\n".join(code).strip("\n") + "\n"
        api, code, in_code = _SECTIONS.get(line, api), [], line == _CODE
        kind = line if line in kinds else kind


def _language(code: str) -> str:
    return "curl" if code.startswith("curl ") else "python"
