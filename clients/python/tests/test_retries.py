"""What is tried again, when, and what must not be."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Callable

import pytest
from conftest import Server
from fakes import LOST, Answer, FakeServer, LosesAnswers

from fastpubsub_client import (
    ApiError,
    AsyncClient,
    Client,
    FastpubsubError,
    Forbidden,
    NoAnswer,
    Unauthorized,
    Unavailable,
)

TOPIC = Answer(200, {"id": "t", "created_at": "2026-11-30T02:31:18.493502Z"})
PUBLISHED = Answer(201, {"message_ids": ["1"], "duplicates": []})
EMPTY = Answer(200, {"messages": []})
BUSY = Answer(503, {"detail": "busy"}, {"Retry-After": "7"})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients wait, which pass at once."""
    waited: list[float] = []
    monkeypatch.setattr("fastpubsub_client.client.time.sleep", waited.append)

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("fastpubsub_client.client.asyncio.sleep", sleep)
    return waited


def test_the_server_says_when_to_come_back(pauses: list[float]) -> None:
    too_many = Answer(429, {"detail": "too many"}, {"Retry-After": "3"})
    with FakeServer(BUSY, too_many, TOPIC) as fake, Client(fake.url) as client:
        assert client.get_topic("t")["id"] == "t"

    assert 7 < pauses[0] < 7.2 and 3 < pauses[1] < 3.3


def test_asyncio_comes_back_too(pauses: list[float]) -> None:
    async def main(url: str) -> None:
        async with AsyncClient(url) as client:
            assert (await client.get_topic("t"))["id"] == "t"

    with FakeServer(BUSY, LOST, TOPIC) as fake:
        asyncio.run(main(fake.url))

    assert 7 < pauses[0] < 7.2 and pauses[1] <= 0.2


@pytest.mark.parametrize("status", [502, 503, 504])
def test_pauses_grow_and_differ(pauses: list[float], status: int) -> None:
    answers = [Answer(status, {"detail": "away"})] * 8
    with FakeServer(*answers, TOPIC) as fake, Client(fake.url) as client:
        client.get_topic("t")

    for number, pause in enumerate(pauses):
        longest = min(5, 0.1 * 2**number)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == 8


def test_it_gives_up_where_the_server_asks_for_more_than_there_is(pauses: list[float]) -> None:
    with FakeServer(BUSY) as fake, Client(fake.url, retry_seconds=5) as client:
        with pytest.raises(Unavailable) as caught:
            client.get_topic("t")

    assert (caught.value.status, caught.value.retry_after, pauses) == (503, 7, [])


@pytest.mark.parametrize("answer", [LOST, Answer(503), Answer(502), Answer(504)])
def test_a_publish_without_a_key_is_not_sent_again_when_it_may_have_been_done(answer: Any, pauses: list[float]) -> None:
    with FakeServer(answer) as fake, Client(fake.url) as client:
        with pytest.raises(FastpubsubError):
            client.publish("t", {"n": 1})

        assert (len(fake.requests), pauses) == (1, [])


def test_a_publish_that_was_turned_away_is_sent_again(pauses: list[float]) -> None:
    with FakeServer(Answer(429), PUBLISHED) as fake, Client(fake.url) as client:
        assert client.publish("t", {"n": 1}) == "1"


@pytest.mark.parametrize("answer", [LOST, Answer(503), Answer(502), Answer(504)])
def test_a_publish_with_a_key_is_the_same_request_again(answer: Any, pauses: list[float]) -> None:
    with FakeServer(answer, PUBLISHED, answer, PUBLISHED) as fake, Client(fake.url) as client:
        client.publish_messages("t", [{"payload": {"n": 1}}], idempotency_key="k")
        client.publish("t", {"n": 1}, idempotency_key="k")

        first, again, one, one_again = fake.requests
        assert first.headers["idempotency-key"] == again.headers["idempotency-key"] == "k"
        assert first.body == again.body
        assert b'"idempotency_key":"k"' in one.body and one.body == one_again.body


def test_a_pull_is_asked_again_unless_its_messages_were_acked_with_it(pauses: list[float]) -> None:
    with FakeServer(LOST, EMPTY, LOST) as fake, Client(fake.url) as client:
        assert client.pull("s") == []
        with pytest.raises(NoAnswer):
            client.pull("s", auto_ack=True)
        assert len(pauses) == 1


@pytest.mark.parametrize(
    "call", [lambda c: c.create_topic("t"), lambda c: c.reprocess_dead_letters("s"), lambda c: c.request("POST", "/x")]
)
def test_what_twice_is_not_once_is_not_sent_again(call: Callable[[Client], Any], pauses: list[float]) -> None:
    with FakeServer(LOST) as fake, Client(fake.url) as client, pytest.raises(NoAnswer):
        call(client)


def test_what_was_never_sent_is_tried_until_the_time_is_over() -> None:
    with FakeServer() as fake:
        url = fake.url
    before = time.monotonic()

    with Client(url, retry_seconds=0.5) as client, pytest.raises(NoAnswer, match="refused"):
        client.publish("t", {"n": 1})

    assert 0.05 < time.monotonic() - before < 5


@pytest.mark.parametrize("status", [400, 403, 404, 409, 413, 422, 500])
def test_other_errors_are_the_callers(status: int, pauses: list[float]) -> None:
    with FakeServer(Answer(status, {"detail": "no"})) as fake, Client(fake.url) as client:
        with pytest.raises(ApiError, match="no"):
            client.get_topic("t")

    assert pauses == []


def test_answers_that_are_no_json_are_errors_with_their_text() -> None:
    with FakeServer(Answer(500, ["a list"])) as fake, Client(fake.url) as client:
        with pytest.raises(ApiError, match="a list"):
            client.get_topic("t")


def test_what_others_answer_is_no_answer() -> None:
    with FakeServer(Answer(200, ["a page of a proxy"])) as fake, Client(fake.url) as client:
        with pytest.raises(NoAnswer, match="not fastpubsub"):
            client.pull("s")


# Tokens


def token(name: str, life: float = 1800) -> Answer:
    return Answer(200, {"access_token": name, "token_type": "Bearer", "expires_in": life, "scope": "*"})


def credentials(url: str) -> Client:
    return Client(url, client_id="id", client_secret="secret")


def test_a_token_serves_many_requests() -> None:
    with FakeServer(token("one"), TOPIC, TOPIC) as fake, credentials(fake.url) as client:
        client.get_topic("t")
        client.get_topic("t")

        login, first, second = fake.requests
        assert (login.path, login.body) == (
            "/oauth/token",
            b"grant_type=client_credentials&client_id=id&client_secret=secret",
        )
        assert first.headers["authorization"] == second.headers["authorization"] == "Bearer one"


def test_a_token_is_renewed_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    with FakeServer(token("one", 400), TOPIC, TOPIC, token("two"), TOPIC) as fake, credentials(fake.url) as client:
        client.get_topic("t")
        for later in (300, 350):  # a minute before the end, at the latest
            monkeypatch.setattr("fastpubsub_client.transport.time.monotonic", lambda later=later: now + later)
            client.get_topic("t")

        assert [request.headers.get("authorization") for request in fake.requests] == [
            None, "Bearer one", "Bearer one", None, "Bearer two",
        ]  # fmt: skip


def test_a_refused_token_is_renewed_once() -> None:
    refused = Answer(401, {"detail": "over"})
    answers = [token("one"), refused, token("two"), TOPIC, refused, token("three"), refused]
    with FakeServer(*answers) as fake, credentials(fake.url) as client:
        client.get_topic("t")
        with pytest.raises(Unauthorized):
            client.get_topic("t")


def test_a_login_that_has_to_wait_holds_up_what_must_not_be_sent_twice(pauses: list[float]) -> None:
    with FakeServer(BUSY, LOST, token("one"), PUBLISHED) as fake, credentials(fake.url) as client:
        assert client.publish("t", {"n": 1}) == "1"


def test_a_login_that_is_refused_says_why() -> None:
    no = Answer(401, {"error": "invalid_client", "error_description": "Invalid client credentials"})
    with FakeServer(no) as fake, credentials(fake.url) as client:
        with pytest.raises(Unauthorized, match="Invalid client credentials"):
            client.get_topic("t")


def test_a_real_token_that_ends_is_renewed(auth_server: Server) -> None:
    made = auth_server.create_client("python", "*")
    login: Any = {"client_id": made["client_id"], "client_secret": made["client_secret"]}
    admin = auth_server.create_client("admin", "*", "--with-api-key")
    with Client(auth_server.url, **login) as client, Client(auth_server.url, api_key=admin["api_key"]) as other:
        client.create_topic("orders")

        # which ends the tokens that were issued before
        body = {"name": "python", "scopes": "topics:read", "is_active": True}
        other.request("PUT", f"/clients/{made['client_id']}", json=body)

        assert client.get_topic("orders")["id"] == "orders"
        with pytest.raises(Forbidden):
            client.delete_topic("orders")


def test_keys_and_tokens_open_the_door(auth_server: Server) -> None:
    made = auth_server.create_client("python", "*", "--with-api-key")
    with Client(auth_server.url) as nobody, pytest.raises(Unauthorized):
        next(nobody.list_topics())
    with Client(auth_server.url, api_key=made["api_key"]) as client:
        form = f"grant_type=client_credentials&client_id={made['client_id']}&client_secret={made['client_secret']}"
        form_type = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = client._http.post("/oauth/token", content=form, headers=form_type)
        list(client.list_topics())
    with Client(auth_server.url, token=answer.json()["access_token"]) as client:
        list(client.list_topics())


@pytest.mark.parametrize("given", [{"client_id": "id"}, {"api_key": "key", "token": "token"}])
def test_half_or_two_credentials_are_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="client_id"):
        Client("http://localhost", **given)


# A live server whose answers are lost


def test_a_lost_answer_publishes_nothing_twice(url: str, client: Client, topic: str, subscription: str) -> None:
    with LosesAnswers(url, 3) as proxy, Client(proxy.url) as lossy:
        with lossy.publisher(topic) as publisher:
            futures = [publisher.publish({"n": n}) for n in range(5)]
        assert proxy.left == 0

    pulled = client.pull(subscription, 100, wait_seconds=5, auto_ack=True)
    assert [message.id for message in pulled] == [future.result() for future in futures]


def test_a_pull_whose_answer_is_lost_loses_no_message(url: str, client: Client, topic: str, subscription: str) -> None:
    client.publish(topic, {"n": 1})
    with LosesAnswers(url, 1) as proxy, Client(proxy.url) as lossy:
        [message] = lossy.pull(subscription, ack_deadline_seconds=1, wait_seconds=5)

    assert message.delivery_attempts == 2
