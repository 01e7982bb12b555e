"""The OpenAPI page of the mirrored routes.

The proxy endpoint is no FastAPI route, so its rows are described here: from the route table alone for most, with the
bodies that people start from for chat completions and responses. Bodies are open: what OpenAI adds next year is valid.
"""

from typing import Any

from gateway.call import Body, Route
from gateway.http.routes import ROUTES

_MODEL = "openai/gpt-5.2"
_WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["location"],
}
_WEATHER_OF_RESPONSES: dict[str, Any] = {
    **_WEATHER,
    "properties": {
        **_WEATHER["properties"],
        "unit": {"type": "string", "description": "Temperature unit", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["location", "unit"],
}
_ABOUT_WEATHER = {"name": "get_current_weather", "description": "Get the current weather in a given location"}
_IMAGE_URL = "https://qianwen-res.oss-cn-beijing.aliyuncs.com/Qwen-VL/assets/demo.jpeg"
_FILE_URL = "https://www.berkshirehathaway.com/letters/2024ltr.pdf"
_GREETING = [
    {"role": "developer", "content": "You are a helpful assistant."},
    {"role": "user", "content": "Hello!"},
]

_CHAT_EXAMPLES: dict[str, dict[str, Any]] = {
    "Default": {"model": _MODEL, "messages": _GREETING},
    "Streaming": {"model": _MODEL, "messages": _GREETING, "stream": True},
    "Image Input": {
        "model": _MODEL,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is in this image?"},
                    {"type": "image_url", "image_url": {"url": _IMAGE_URL}},
                ],
            }
        ],
        "max_completion_tokens": 300,
    },
    "Functions": {
        "model": _MODEL,
        "messages": [{"role": "user", "content": "What is the weather like in Boston today?"}],
        "tools": [{"type": "function", "function": {**_ABOUT_WEATHER, "parameters": _WEATHER}}],
        "tool_choice": "auto",
    },
    "Python": {
        "model": _MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful AI assistant"},
            {"role": "user", "content": "List 3 countries and their capitals."},
        ],
        "temperature": 0,
        "max_completion_tokens": 500,
    },
}


def _asked(text: str, item: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_text", "text": text}, item]}]


_RESPONSES_EXAMPLES: dict[str, dict[str, Any]] = {
    "Default": {"model": _MODEL, "input": "Tell me a three sentence bedtime story about a unicorn."},
    "Streaming": {
        "model": _MODEL,
        "instructions": "You are a helpful assistant.",
        "input": "Hello!",
        "stream": True,
    },
    "Reasoning": {
        "model": _MODEL,
        "input": "How much wood would a woodchuck chuck?",
        "reasoning": {"effort": "low"},
    },
    "Functions": {
        "model": _MODEL,
        "input": "What is the weather like in Boston today?",
        "tools": [{"type": "function", **_ABOUT_WEATHER, "parameters": _WEATHER_OF_RESPONSES}],
        "tool_choice": "auto",
    },
    "Image Input": {
        "model": _MODEL,
        "input": _asked("what is in this image?", {"type": "input_image", "image_url": _IMAGE_URL}),
    },
    "File Input": {
        "model": _MODEL,
        "input": _asked("what is in this file?", {"type": "input_file", "file_url": _FILE_URL}),
    },
    "Web search": {
        "model": _MODEL,
        "tools": [{"type": "web_search_preview"}],
        "input": "What was a positive news story from today?",
    },
}

_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}

_CHAT_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "A model's name, or an alias of it."},
        "messages": {"type": "array", "items": {"type": "object"}},
        "stream": {"type": "boolean", "default": False},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {},
        "temperature": {"type": "number"},
        "max_completion_tokens": {"type": "integer"},
    },
    "required": ["model", "messages"],
    "additionalProperties": True,
}
_RESPONSES_BODY: dict[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "description": "A model's name, or an alias of it."},
        "input": {"description": "A text, or a list of input items."},
        "instructions": {"type": "string"},
        "stream": {"type": "boolean", "default": False},
        "reasoning": {"type": "object"},
        "tools": {"type": "array", "items": {"type": "object"}},
        "tool_choice": {},
        "previous_response_id": {"type": "string"},
    },
    "required": ["model", "input"],
    "additionalProperties": True,
}
_DESCRIBED = {
    "chat/completions": ("Create a chat completion", _CHAT_BODY, _CHAT_EXAMPLES),
    "responses": ("Create a model response", _RESPONSES_BODY, _RESPONSES_EXAMPLES),
}


def add_mirrored_routes(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document `schema` with the mirrored routes and their bearer key in it."""
    components = schema.setdefault("components", {})
    components.setdefault("securitySchemes", {})["key"] = {"type": "http", "scheme": "bearer"}
    components.setdefault("schemas", {})["Error"] = _ERROR_SCHEMA
    paths = schema.setdefault("paths", {})
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return schema


def _operation(route: Route) -> dict[str, Any]:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    operation: dict[str, Any] = {
        "tags": [route.group],
        "summary": f"{route.method} {route.path}",
        "operationId": f"{route.method.lower()}_{route.pattern}",
        "security": [{"key": []}],
        "parameters": _parameters(route),
        "responses": {
            "200": {"description": "Upstream's reply, unchanged."},
            "default": {"description": "An error, the gateway's or upstream's.", "content": error},
        },
    }
    if route.body is Body.JSON:
        operation["requestBody"] = _json_body(operation, route)
    elif route.body is Body.RAW:
        operation["requestBody"] = {"content": {"multipart/form-data": {"schema": {"type": "object"}}}}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in route.pattern.split("/") if part.startswith("{")]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _json_body(operation: dict[str, Any], route: Route) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "object"}}
    if route.method == "POST" and route.pattern in _DESCRIBED:
        operation["summary"], schema, examples = _DESCRIBED[route.pattern]
        content = {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}
    return {"required": True, "content": {"application/json": content}}
