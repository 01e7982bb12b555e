"""Turn a bearer token into a principal: out of memory, or else by one query.

Knows the way from a header to a principal, and how many queries that may take. That something has changed in the store
it is told by `apply`. One refusal stands for every reason, so that a caller learns nothing about which keys exist.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from hmac import compare_digest
from typing import Literal, get_args

from gateway.access.keys import PREFIX, digest, is_well_formed
from gateway.access.lookup import find_imported, find_principals
from gateway.access.remembered import Remembered
from gateway.call import Principal
from gateway.errors import InvalidKey, MissingKey, StoreUnavailable
from gateway.store.changes import Change
from gateway.store.engine import Store

_log = logging.getLogger(__name__)

_HOW = "Send it as 'Authorization: Bearer YOUR_KEY', or as api_key of your OpenAI client"
_UNKNOWN = "no such key, or it has ended"
_PREFIX = PREFIX.encode()
_MAX_QUERIES = 4
_MAX_DIGESTS = 500
"""Of one query; both databases take that many parameters, and answer within milliseconds."""
_UNKNOWN_S = 5.0
_REST_S = 0.5
"""How long a database that is away is not asked again."""

LookUpResult = Literal["found", "unknown", "unknown_again", "malformed", "unavailable"]
"""`found` and `unknown` were asked of the database, `unknown_again` and `malformed` need not be, `unavailable` could
not be."""


class KeyDirectory:
    """All keys, by digest: how long a look-up takes tells of a digest, from which no key can be made.

    At most `max_known` keys are remembered, until they change, and `max_unknown` well-formed secrets that stand for
    nobody, for a few seconds. `now` gives Unix time, `clock` seconds that never jump.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_known: int = 100_000,
        max_unknown: int = 10_000,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.look_ups: dict[LookUpResult, int] = dict.fromkeys(get_args(LookUpResult), 0)
        """What came of secrets that were not in memory, counted."""
        self.hits = 0
        """How often a secret was in memory, and good."""
        self._store = store
        self._now = now
        self._clock = clock
        self._remembered = Remembered(max_keys=max_known, max_strangers=max_unknown, stranger_s=_UNKNOWN_S)
        self._entries = self._remembered.entries
        self._imported: set[bytes] | None = None
        """Secrets of any form that are looked up too; None until they could be read."""
        self._asked: dict[bytes, asyncio.Future[Principal | None]] = {}
        self._waiting: deque[bytes] = deque()
        self._readers: set[asyncio.Task[None]] = set()
        self._rests_until = 0.0
        self._is_broken = False

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"KeyDirectory(known={len(self)}, unknown={self._remembered.strangers}, asked={len(self._asked)})"

    def known(self, authorization: bytes | None) -> Principal | None:
        """The principal of an Authorization header's value; None if only `look_up` can tell.

        Raises `MissingKey` or `InvalidKey`. It neither waits nor asks anyone.
        """
        token = _bearer_token(authorization)
        token_digest = digest(token)
        principal = self.remembered(token_digest)
        if principal is None:
            self._refuse_strangers(token, token_digest)
        return principal

    def remembered(self, token_digest: bytes) -> Principal | None:
        """The principal of a digest, as from `digest_of`; None if `known` or `look_up` is to be asked.

        Raises `InvalidKey`. Runs in every call.
        """
        entry = self._entries.get(token_digest)
        if entry is None:
            return None
        principal = entry.principal
        if not compare_digest(entry.digest, token_digest):
            raise _invalid(_UNKNOWN)
        if principal.expires_at_s is not None and self._is_over(principal):
            what = "an old secret of the key" if principal.is_in_grace else "the key"
            raise _invalid(f"{what} {principal.team}/{principal.key} has expired")
        entry.used = True
        self.hits += 1
        return principal

    async def look_up(self, authorization: bytes | None) -> Principal:
        """As `known`, and asks the database if need be: once for all calls that ask for the same key.

        Raises `StoreUnavailable` too: at once while the database is known to be away.
        """
        principal = self.known(authorization)
        if principal is None:
            principal = await self._ask_database(digest(_bearer_token(authorization)))
        if principal is None:
            raise _invalid(_UNKNOWN)
        return principal

    def pin(self, digests: Iterable[bytes]) -> None:
        """Secrets that others have chosen: they are looked up though not well-formed, and never dropped for room."""
        self._remembered.pinned.update(digests)

    async def preload(self) -> None:
        """Look up what is pinned, so that it is known when the database goes away, and which secrets were imported.

        Raises `StoreUnavailable`.
        """
        async with self._store.reading() as connection:
            self._imported = await find_imported(connection)
        await self._refresh(self._remembered.pinned - self._entries.keys())

    async def apply(self, changes: Iterable[Change]) -> None:
        """Forget at once what these changes may touch, then look it up again.

        A key whose new state cannot be read is not known until it can be. Raises `StoreUnavailable`.
        """
        touched = list(changes)
        if any(change.key_id is None and change.team_id is None for change in touched):
            await self.apply_unknown()
            return
        keys = {change.key_id for change in touched if change.key_id is not None}
        teams = {change.team_id for change in touched if change.key_id is None and change.team_id is not None}
        forgotten = self._remembered.forget(keys, teams)
        await self._learn_imported(keys - {entry.principal.key_id for entry in forgotten})
        await self._refresh(entry.digest for entry in forgotten)

    async def apply_unknown(self) -> None:
        """As `apply`, for changes of which only that they happened is known: forget everything."""
        self._remembered.forget_all()
        await self.preload()

    async def close(self) -> None:
        """Give up what is being asked; whoever waits for it gets `StoreUnavailable`."""
        readers = list(self._readers)
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        self._readers.clear()
        self._fail(list(self._asked), _unavailable())

    def _refuse_strangers(self, token: bytes, token_digest: bytes) -> None:
        """Raises `InvalidKey` for what the database need not be asked about."""
        if not is_well_formed(token.decode("latin-1")) and not self._may_have_any_form(token, token_digest):
            self.look_ups["malformed"] += 1
            raise _invalid("malformed key")
        if self._remembered.is_stranger(token_digest, self._clock()):
            self.look_ups["unknown_again"] += 1
            raise _invalid(_UNKNOWN)

    def _may_have_any_form(self, token: bytes, token_digest: bytes) -> bool:
        """Chosen and imported secrets may. Before it is known which those are, what looks like none of ours may be."""
        if self._imported is None and not token.startswith(_PREFIX):
            return True
        return token_digest in self._remembered.pinned or token_digest in (self._imported or ())

    async def _learn_imported(self, key_ids: set[str]) -> None:
        """Of keys that are not in memory: no key that was made gets an imported secret later."""
        if self._imported is None or not key_ids:
            return
        async with self._store.reading() as connection:
            for start in range(0, len(ids := sorted(key_ids)), _MAX_DIGESTS):
                self._imported |= await find_imported(connection, ids[start : start + _MAX_DIGESTS])

    def _is_over(self, principal: Principal) -> bool:
        return principal.expires_at_s is not None and principal.expires_at_s <= self._now()

    async def _ask_database(self, token_digest: bytes) -> Principal | None:
        if self._store.is_away and (self._readers or self._clock() < self._rests_until):
            self.look_ups["unavailable"] += 1
            raise _unavailable()
        # Shielded: a caller that leaves must not take the answer from the others that wait for it.
        return await asyncio.shield(self._ask(token_digest))

    async def _refresh(self, digests: Iterable[bytes]) -> None:
        for answer in [self._ask(token_digest) for token_digest in digests]:
            await asyncio.shield(answer)

    def _ask(self, token_digest: bytes) -> "asyncio.Future[Principal | None]":
        answer = self._asked.get(token_digest)
        if answer is None:
            answer = self._asked[token_digest] = asyncio.get_running_loop().create_future()
            self._waiting.append(token_digest)
            if len(self._readers) < _MAX_QUERIES:
                self._start_reader()
        return answer

    def _start_reader(self) -> None:
        self._readers.add(asyncio.get_running_loop().create_task(self._read()))

    async def _read(self) -> None:
        """Take what waits, many at once, until nothing does.

        Leaves by itself, in the same step as it finds nothing: a call-back would come after whoever counts on it.
        """
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MAX_DIGESTS))]
            try:
                await self._read_batch(batch)
            except StoreUnavailable as error:
                self._rest([*batch, *self._waiting], error)
            except Exception:  # a bug, or a database that is not ours: whoever waits must hear of it all the same
                if not self._is_broken:
                    _log.exception("Keys cannot be looked up; those that are known go on working.")
                self._is_broken = True
                self._rest([*batch, *self._waiting], _unavailable())
        self._readers -= {asyncio.current_task()}

    def _rest(self, digests: Iterable[bytes], error: StoreUnavailable) -> None:
        self._rests_until = self._clock() + _REST_S
        self._fail(digests, error)

    async def _read_batch(self, batch: list[bytes]) -> None:
        generation = self._remembered.generation
        async with self._store.reading() as connection:
            found = await find_principals(connection, batch)
        self._is_broken = False
        if generation != self._remembered.generation:
            # A change has overtaken this answer on its way: it may be of before.
            self._waiting.extend(batch)
            return
        for token_digest in batch:
            self._answer(token_digest, found.get(token_digest))

    def _answer(self, token_digest: bytes, principal: Principal | None) -> None:
        if principal is None or self._is_over(principal):
            principal = None
            self.look_ups["unknown"] += 1
            self._remembered.keep_stranger(token_digest, self._clock())
        else:
            self.look_ups["found"] += 1
            self._remembered.keep(token_digest, principal)
        self._asked.pop(token_digest).set_result(principal)

    def _fail(self, digests: Iterable[bytes], error: StoreUnavailable) -> None:
        self._waiting.clear()
        for token_digest in digests:
            answer = self._asked.pop(token_digest, None)
            if answer is not None and not answer.done():
                self.look_ups["unavailable"] += 1
                answer.set_exception(error)
                answer.exception()  # seen, though everyone who asked may have left


def _bearer_token(authorization: bytes | None) -> bytes:
    """A token is asked for even where any will do: a browser cannot send one to another origin unasked."""
    if authorization is None:
        raise MissingKey(f"No API key was sent. {_HOW}.")
    scheme, _, token = authorization.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token:
        raise MissingKey(f"The Authorization header holds no bearer token. {_HOW}.")
    return token


def digest_of(authorization: bytes | None) -> bytes:
    """The SHA-256 of the secret that an Authorization header's value holds. Raises `MissingKey`."""
    return digest(_bearer_token(authorization))


def _invalid(why: str) -> InvalidKey:
    """One message for every reason; `why` is for the log."""
    message = f"This API key is not valid here. {_HOW}, or ask whoever runs this gateway for one."
    return InvalidKey(message, detail=why)


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("The gateway's database is away, and this API key was not seen lately. Try again soon.")
