"""No request changes what it may not, whatever members it has: what is not writable is refused, never ignored."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from gateway.access.records import Issued, Key, Team
from gateway.http.admin.requests import KeyCreate, KeyUpdate, Rotate, TeamCreate, TeamUpdate
from gateway.store.tables import keys, secrets, teams
from gateway.terms import Budgets, Grants, Limits
from tests.http.admin_server import AdminServer, Client, administered, assert_refused, made
from tests.support.stores import fresh_sqlite_url

MEMBERS = {
    *(field.name for record in (Team, Key, Issued) for field in msgspec.structs.fields(record)),
    *(column.name for table in (teams, keys, secrets) for column in table.columns),
    "secret_sha256",
    "is_admin",
    "__proto__",
    "",
}
TERMS: dict[str, type[msgspec.Struct]] = {"grants": Grants, "limits": Limits, "budgets": Budgets}
MODELS: dict[type[BaseModel], tuple[str, str, dict[str, Any]]] = {
    TeamCreate: ("POST", "/teams", {"name": "new"}),
    TeamUpdate: ("PATCH", "/teams/{team}", {"tags": {"a": "b"}}),
    KeyCreate: ("POST", "/keys", {"team": "engines", "name": "new"}),
    KeyUpdate: ("PATCH", "/keys/{key}", {"tags": {"a": "b"}}),
    Rotate: ("POST", "/keys/{key}/rotate", {"grace_s": 1}),
}


class Scene:
    """A team with a key, and who may ask for changes of them."""

    def __init__(self, server: AdminServer) -> None:
        self.admin = server.admin
        self.team = made(self.admin.post("/teams", {"name": "engines"}))
        self.other = made(self.admin.post("/teams", {"name": "other"}))
        self.key = made(self.admin.post("/keys", {"team": "engines", "name": "ada"}))
        lead = made(self.admin.post("/keys", {"team": "engines", "name": "lead", "role": "team_admin"}))
        self.team_admin = server.client(lead["secret"])

    def path(self, pattern: str) -> str:
        return pattern.format(team=self.team["id"], key=self.key["id"])

    def all_there_is(self) -> Any:
        return [self.admin.get(path, limit=200).json()["data"] for path in ("/teams", "/keys", "/audit")]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all rows, since each leaves everything as it was."""
    folder = tmp_path_factory.mktemp("store")
    with administered(fresh_sqlite_url(folder)) as server:
        yield Scene(server)


def send(client: Client, scene: Scene, model: type[BaseModel], extra: dict[str, Any]) -> Any:
    method, pattern, body = MODELS[model]
    ask = client.post if method == "POST" else client.patch
    return ask(scene.path(pattern), {**body, **extra})


@pytest.mark.parametrize("who", ["admin", "team_admin"])
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_members_that_are_not_writable_are_refused_one_by_one(scene: Scene, model: type[BaseModel], who: str) -> None:
    before = scene.all_there_is()
    refused = MEMBERS - set(model.model_fields)
    assert {"id", "source", "version", "created_at"} <= refused
    # Who makes no teams at all is told so before their body is read.
    status, code = (403, "forbidden") if (model, who) == (TeamCreate, "team_admin") else (400, None)
    for member in sorted(refused):
        for value in ("x", None, before[1][0].get(member)):
            assert_refused(send(getattr(scene, who), scene, model, {member: value}), status, code)
    assert scene.all_there_is() == before


@pytest.mark.parametrize("model", [model for model in MODELS if model is not Rotate], ids=lambda model: model.__name__)
@pytest.mark.parametrize("group", TERMS)
def test_unknown_members_of_terms_are_refused(scene: Scene, model: type[BaseModel], group: str) -> None:
    before = scene.all_there_is()
    known = {field.name for field in msgspec.structs.fields(TERMS[group])}
    for member in {"x", "*", "models", "parallel", "day_usd", "requests_per_second"} - known:
        assert_refused(send(scene.admin, scene, model, {group: {member: 1}}), 400, param=f"{group}.{member}")
    assert scene.all_there_is() == before


@pytest.mark.parametrize("model", [TeamUpdate, KeyUpdate], ids=lambda model: model.__name__)
def test_no_request_moves_a_key_to_another_team(scene: Scene, model: type[BaseModel]) -> None:
    before = scene.all_there_is()
    for member in ("team", "team_id"):
        for value in (scene.other["id"], "other"):
            assert_refused(send(scene.team_admin, scene, model, {member: value}), 400, param=member)
    assert scene.all_there_is() == before


def test_a_team_admin_who_names_another_team_makes_nothing_there(scene: Scene) -> None:
    before = scene.all_there_is()
    for team in ("other", scene.other["id"], "admins"):
        reply = scene.team_admin.post("/keys", {"team": team, "name": "spy"})
        assert_refused(reply, 404, "not_found")
    for method, path in (("POST", f"/teams/{scene.other['id']}/disable"), ("PATCH", f"/teams/{scene.other['id']}")):
        reply = scene.team_admin.send(method, path, b"{}", content_type="application/json")
        assert reply.status_code in (403, 404)
    assert scene.all_there_is() == before


def test_the_request_models_hold_what_records_hold_and_nothing_of_their_own() -> None:
    records = {field.name for record in (Team, Key) for field in msgspec.structs.fields(record)}
    for model in (TeamCreate, TeamUpdate, KeyCreate, KeyUpdate):
        assert set(model.model_fields) <= records
