from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.errors import CloseCode
from catenary.limits import Limits
from catenary.session import Action, Close, Handle, Send, Session
from catenary.wires.native import payload_of


def session(*, limits: Limits | None = None, is_authenticated: bool = True) -> Session:
    return Session("c_1", limits or Limits(), now=0.0, is_authenticated=is_authenticated)


def said(action: Action) -> dict[str, object]:
    assert isinstance(action, Send)
    answer: dict[str, object] = json.loads(payload_of(action.frame))
    return answer


def test_a_ping_is_answered_with_its_id() -> None:
    """The session answers pings itself."""
    answer = said(session().receive('{"type":"ping","id":7}', 1.0, 99))
    assert answer == {"type": "pong", "id": 7, "timestamp": 99}


def test_a_command_is_to_be_handled() -> None:
    """Any other well-formed message is handed on."""
    action = session().receive('{"type":"app.do","id":"a","thread_id":"t","data":{}}', 1.0, 0)
    assert isinstance(action, Handle)
    assert (action.message.type, action.message.thread_id) == ("app.do", "t")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("nonsense", "bad_json"),
        ("[1]", "bad_message"),
        ('{"id":"a"}', "bad_message"),
        ('{"type":7}', "bad_message"),
        ('{"type":"app.do"}', "bad_message"),
        ('{"type":"app.do","id":""}', "bad_message"),
        ('{"type":"cancel_run","id":"a"}', "bad_message"),
        ('{"type":"position"}', "bad_message"),
        ('{"type":"answer","id":"a"}', "bad_message"),
        ('{"type":"app.do","id":"a","data":' + "[" * 32 + "]" * 32 + "}", "bad_message"),
        (b'{"type":"ping"}', "bad_message"),
        ("x" * (64 * 1024 + 1), "too_large"),
    ],
)
def test_what_is_wrong_gets_an_error_and_the_session_goes_on(
    message: str | bytes, code: str
) -> None:
    """Bad input is answered with its code, and what follows is served."""
    served = session()
    assert said(served.receive(message, 1.0, 0))["code"] == code
    assert said(served.receive('{"type":"ping","id":1}', 1.0, 0))["type"] == "pong"


def test_nesting_within_strings_does_not_count() -> None:
    """Brackets inside strings, escaped quotes included, are text."""
    content = json.dumps('"\\' + "[{" * 100)
    message = f'{{"type":"app.do","id":"a","data":{{"content":{content}}}}}'
    assert isinstance(session().receive(message, 1.0, 0), Handle)


def test_too_many_bad_messages_close_the_session() -> None:
    """The limit is 20; the next one closes with 4500."""
    served = session()
    for _ in range(20):
        assert isinstance(served.receive("{", 1.0, 0), Send)
    action = served.receive("{", 1.0, 0)
    assert isinstance(action, Close)
    assert action.code is CloseCode.PROTOCOL_ERROR


def test_messages_over_the_rate_are_refused_until_time_has_passed() -> None:
    """A burst of 100 passes, then one each 20 ms; who goes on and on is closed with 4002."""
    served = session()
    ping = '{"type":"ping","id":1}'
    assert all(said(served.receive(ping, 0.0, 0))["type"] == "pong" for _ in range(100))
    assert said(served.receive(ping, 0.0, 0))["code"] == "rate_limited"
    assert said(served.receive(ping, 0.02, 0))["type"] == "pong"
    assert said(served.receive(ping, 0.02, 0))["code"] == "rate_limited"
    actions = [served.receive(ping, 0.02, 0) for _ in range(200)]
    assert isinstance(actions[-1], Close)
    assert actions[-1].code is CloseCode.RATE_LIMITED


def test_the_first_message_of_a_stranger_must_be_auth() -> None:
    """Anything else closes with 4501, nonsense with 4500."""
    action = session(is_authenticated=False).receive('{"type":"ping"}', 1.0, 0)
    assert isinstance(action, Close)
    assert action.code is CloseCode.NOT_AUTHENTICATED
    action = session(is_authenticated=False).receive("{", 1.0, 0)
    assert isinstance(action, Close)
    assert action.code is CloseCode.PROTOCOL_ERROR
    stranger = session(is_authenticated=False)
    assert isinstance(stranger.receive('{"type":"auth","token":"x"}', 1.0, 0), Handle)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=50)))
def test_whatever_comes_is_answered_handled_or_closed(message: str | bytes) -> None:
    """No input raises."""
    assert isinstance(session().receive(message, 1.0, 0), Send | Handle | Close)
