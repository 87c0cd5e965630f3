"""What a strategy raises is its own fault, whatever it raises, in every process that runs it."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from candlemill.errors import BadStrategy, Cancelled, TooLarge
from candlemill.strategies import Windowed
from candlemill.strategies.base import blamed
from candlemill.transport.http import respond


class Odd(Windowed, frozen=True):
    pass


def raised(error: BaseException) -> None:
    with blamed(Odd()):
        raise error


def in_a_thread(error: BaseException) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(raised, error).result()


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, StopIteration, MemoryError, Cancelled, ValueError])
def test_all_that_a_strategy_raises_becomes_a_bad_strategy(kind: type[BaseException]) -> None:
    for call in (raised, in_a_thread):
        with pytest.raises(BadStrategy, match=rf"^Odd: {kind.__name__}: words \(test_blame.py:\d+\)$") as caught:
            call(kind("words"))
        assert "words" not in caught.value.public
        assert caught.value.public.startswith(f"Odd: {kind.__name__} (test_blame.py:")


def test_ctrl_c_is_the_users_where_it_can_be() -> None:
    with pytest.raises(KeyboardInterrupt):
        raised(KeyboardInterrupt())
    with pytest.raises(BadStrategy, match="Odd: KeyboardInterrupt"):
        in_a_thread(KeyboardInterrupt())


@pytest.mark.parametrize("error", [OverflowError("prices"), TooLarge("a day"), BadStrategy("positions")])
def test_what_the_engine_says_stays(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)) as caught:
        raised(error)
    assert caught.value is error


def test_a_function_tells_the_broker_type_and_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of its answer becomes the reason of the job."""

    def refuse(*_: object) -> Any:
        with blamed(Odd()):
            raise SystemExit("words")

    monkeypatch.setattr("candlemill.transport.http.handler_context", lambda: None)
    monkeypatch.setattr("candlemill.transport.http.decode", refuse)
    request = SimpleNamespace(method="POST", headers={}, stream=SimpleNamespace(read=lambda _: b""))
    body, status, _ = respond(request, lambda event, runtime: [])
    assert status == 422
    assert json.loads(body)["detail"].startswith("Odd: SystemExit (test_blame.py:")
    assert "words" not in body
