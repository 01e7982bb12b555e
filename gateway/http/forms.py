"""Forms (`multipart/form-data`): streamed as they come, or read whole first where policy depends on their model.

Knows which keys' forms must be read first, and what is asked of limits and grants for either kind. How a form is read
is the business of `gateway.relay`: leniently for prices and sums, strictly for policy.
"""

import time
from collections.abc import AsyncIterator, Mapping, MutableMapping
from typing import Any

from gateway.access.grants import allows_model, check_model
from gateway.call import Principal, Route
from gateway.errors import RateLimited, RequestTooLarge
from gateway.http.given import LONGEST_NAME, given
from gateway.http.requests import Head, Receive, check_length, read_body, stream_body
from gateway.limits.answers import retry_headers
from gateway.relay.allowance import Allowance
from gateway.relay.form import FormModel
from gateway.relay.live import LiveCall
from gateway.relay.mask import without_keys
from gateway.relay.strict_form import read_form
from gateway.settings import Settings

_READ_AHEAD_BYTES = 320 * 1024
"""What a connection may hold of a body that nobody reads: what makes its client wait, and one piece off the network."""

_SEND_AGAIN_US = 1_000_000


class Forms:
    """Gives the bodies of forms to upstream, each once policy has no objection."""

    def __init__(self, settings: Settings, allowance: Allowance) -> None:
        self._allowance = allowance
        self._aliases: Mapping[str, str] = settings.models.aliases
        self._max_body_bytes = settings.server.max_body_bytes
        self._max_upload_bytes = settings.server.max_upload_bytes
        self._drains = settings.upstream.on_client_disconnect == "drain"

    async def body(self, call: LiveCall, route: Route, head: Head, receive: Receive) -> bytes | AsyncIterator[bytes]:
        """The body for upstream: whole and without content coding, or as it comes. The call is told what it asks for.

        `receive` looks at the key again, as `call.principal`, whenever it had to wait. Raises `BadRequest`,
        `RequestTooLarge`, `ModelNotAllowed`, `ClientLeft`; what it returns raises the last three.
        """
        if route.runs_model:
            if self._depends_on_model(given(call.principal)):
                return await self._read(call, route, head, receive)
            call.asked = self._allowance.ask(given(call.principal), "", b"", 0)
            if call.asked is not None:
                call.asked.is_unread = True
                call.asked.held_bytes = min(_READ_AHEAD_BYTES, head.content_length or _READ_AHEAD_BYTES)
            receive = _looking(call, head, receive)
        check_length(head, self._max_upload_bytes)
        return stream_body(receive, self._max_upload_bytes)

    def check_waited(self, principal: Principal) -> None:
        """Of a form that streams, and whose turn has come. Raises `RateLimited` where its model matters by now."""
        if self._depends_on_model(principal):
            raise RateLimited(
                "While this form waited for its turn, its API key came under a budget or a limit that depends on its "
                "model, and it has not been read for that. Nothing of it was sent upstream. Send it again.",
                type_="requests",
                headers=retry_headers(_SEND_AGAIN_US),
            )

    def _depends_on_model(self, principal: Principal) -> bool:
        """Whether the key may use some models only, pays for them, or has limits by model. A trial binds nothing."""
        if not allows_model(principal.grants, ()):
            return True
        if principal.quota is None:
            return False
        rules = self._allowance.planner.rules(principal.quota, time.time())
        return any((rule.dimension == "budget" or rule.whose == "model") and not rule.shadow for rule in rules)

    async def _read(self, call: LiveCall, route: Route, head: Head, receive: Receive) -> bytes:
        try:
            body = await read_body(receive, head, self._max_body_bytes)
        except RequestTooLarge as error:
            raise _too_large(self._max_body_bytes) from error
        principal = given(call.principal)
        form = read_form(head.fields.get(b"content-type", b""), body)
        call.model = without_keys(form.model)[:LONGEST_NAME]
        # Upstream reads the name as it is, so what an alias stands for is not what would be used.
        call.names = () if form.model in self._aliases else (form.model,)
        check_model(principal.grants, call.names)
        call.outlives_client = self._drains
        answers = form.answers if route.group == "images" else 1
        call.asked = self._allowance.ask(principal, call.model, form.text, None, answers)
        if call.asked is not None:  # else its bytes would be taken for text, where nothing is known of its size
            call.body = body
        return body


def _looking(call: LiveCall, head: Head, receive: Receive) -> Receive:
    """`receive`, which reads the name of the model as it passes by."""
    form = FormModel(head.fields.get(b"content-type", b""))

    async def receive_and_look() -> MutableMapping[str, Any]:
        message = await receive()
        check_model(given(call.principal).grants, ())  # which may have been narrowed meanwhile
        form.feed(message.get("body", b""))
        call.model = None if form.name is None else without_keys(form.name)[:LONGEST_NAME]
        if call.asked is not None and given(call.route).group == "images":
            call.asked.answers = form.answers
        return message

    return receive_and_look


def _too_large(max_bytes: int) -> RequestTooLarge:
    return RequestTooLarge(
        f"This form is larger than {max_bytes} bytes. What this API key may use depends on the model, so its forms are "
        "read whole before they go upstream, and larger ones cannot be. Send a smaller one, or ask whoever runs the "
        "gateway to raise server.max_body_bytes."
    )
