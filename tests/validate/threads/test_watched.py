"""Objects and functions with a guard or an owner."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from catenary.validate.threads import ThreadMonitor, ViolationKind
from tests.validate.threads.acting import PATIENCE, beginning, in_thread, line_of


class Cart:
    def __init__(self) -> None:
        self.items: list[str] = []
        self.owner = "user_123"

    def add(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)


def whats(monitor: ThreadMonitor) -> list[str]:
    return [violation.what for violation in monitor.violations]


# Guarded


def test_a_guarded_object_is_used_with_its_lock() -> None:
    """Then it does what it does, and nothing is reported."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "carts")
    cart = monitor.guarded(Cart(), by=lock)
    with lock:
        assert cart.add("apple") == 1
        cart.owner = "user_456"
    assert isinstance(cart, Cart)
    assert (cart.items, cart.owner) == (["apple"], "user_456")
    monitor.check()


def test_a_call_without_the_lock_is_found() -> None:
    """With thread, place and time; the call is made all the same."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "carts")
    cart = monitor.guarded(Cart(), by=lock, name="cart")
    in_thread("careless", lambda: cart.add("apple"))
    (violation,) = monitor.violations
    assert violation.kind is ViolationKind.UNGUARDED
    assert violation.what == "cart.add() without carts"
    assert violation.thread == "careless"
    assert violation.place == line_of(test_a_call_without_the_lock_is_found, 'cart.add("apple")')
    assert violation.at > 1_500_000_000
    assert violation.other is None
    assert cart.items == ["apple"]


def test_a_lock_that_someone_else_holds_is_no_guard() -> None:
    """The violation names who has it."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "carts")
    cart = monitor.guarded(Cart(), by=lock, name="cart")
    with lock:
        in_thread("careless", lambda: cart.add("apple"))
    (violation,) = monitor.violations
    assert violation.other is not None
    assert violation.other.thread == threading.current_thread().name


def test_changes_without_the_lock_are_found_and_looks_are_not() -> None:
    """Attributes, items, and what stands for methods; reading is free."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "l")
    cart = monitor.guarded(Cart(), by=lock, name="cart")
    prices = monitor.guarded({"apple": 1}, by=lock, name="prices")
    queue = monitor.guarded([1], by=lock, name="queue")
    assert (cart.owner, prices["apple"], len(queue), list(queue)) == ("user_123", 1, 1, [1])
    assert 1 in queue
    assert queue == [1]
    assert bool(prices)
    assert whats(monitor) == []
    cart.owner = "user_456"
    prices["pear"] = 2
    del prices["apple"]
    queue += [2]
    queue.append(3)
    del cart.owner
    assert [what.removesuffix(" without l") for what in whats(monitor)] == [
        "cart.owner =",
        "prices.__setitem__()",
        "prices.__delitem__()",
        "queue.__iadd__()",
        "queue.append()",
        "del cart.owner",
    ]
    assert (dict(prices), list(queue)) == ({"pear": 2}, [1, 2, 3])


def test_a_guarded_function_is_called_with_its_lock() -> None:
    """It keeps its name, its result and what it raises."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "l")

    def divide(a: int, b: int) -> float:
        return a / b

    guarded = monitor.guarded(divide, by=lock, name="divide")
    with lock:
        assert guarded(6, b=3) == 2
        with pytest.raises(ZeroDivisionError):
            guarded(1, 0)
    assert guarded.__name__ == "divide"
    monitor.check()
    assert guarded(1, 1) == 1
    assert whats(monitor) == ["divide() without l"]


async def test_a_guarded_coroutine_function_is_one() -> None:
    """It is awaited as before, and looked at when it begins."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "l")

    async def save() -> str:
        await asyncio.sleep(0)
        return "saved"

    guarded = monitor.guarded(save, by=lock, name="save")
    assert asyncio.iscoroutinefunction(guarded)
    with lock:
        assert await guarded() == "saved"
    monitor.check()
    await guarded()
    assert whats(monitor) == ["save() without l"]


def test_what_has_no_such_operation_says_so() -> None:
    """A proxy fails as the object would."""
    lock = ThreadMonitor().lock(threading.Lock(), "l")
    cart: Any = ThreadMonitor().guarded(Cart(), by=lock)
    with pytest.raises(TypeError):
        len(cart)
    with pytest.raises(AttributeError, match="price"):
        _ = cart.price
    with pytest.raises(TypeError):
        cart()


def test_what_calls_and_what_manages_a_context_works() -> None:
    """An object that is called, and one that stands in ``with``."""
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "l")
    inner = threading.Lock()
    with lock:
        with monitor.guarded(inner, by=lock):
            assert inner.locked()
        ints: Any = monitor.guarded(
            type("Made", (), {"__call__": lambda self, x: x + 1})(), by=lock
        )
        assert ints(1) == 2
    assert not inner.locked()
    monitor.check()


# Confined


def test_an_object_of_a_thread_is_found_on_another() -> None:
    """Calling, changing and looking; the owner is named, with where it is."""
    monitor = ThreadMonitor()
    is_over = threading.Event()

    def own() -> None:
        is_over.wait(PATIENCE)

    owner = beginning("owner", own)
    cart = monitor.confined(Cart(), to=owner, name="cart")
    in_thread("visitor", lambda: (cart.add("apple"), cart.owner))
    is_over.set()
    assert whats(monitor) == ["cart.add()", "cart.owner"]
    violation = monitor.violations[0]
    assert violation.kind is ViolationKind.FOREIGN_THREAD
    assert violation.thread == "visitor"
    assert violation.other is not None
    assert violation.other.thread == "owner"


def test_an_object_of_a_thread_may_be_used_there() -> None:
    """And what is free, anywhere."""
    monitor = ThreadMonitor()
    cart = monitor.confined(Cart(), to=threading.current_thread(), free=("owner", "add"))
    cart.add("apple")
    assert cart.items == ["apple"]
    in_thread("visitor", lambda: (cart.add("pear"), cart.owner))
    monitor.check()


async def test_an_object_of_a_loop_belongs_to_its_thread() -> None:
    """Tasks and callbacks of the loop may use it, other threads and loops may not."""
    monitor = ThreadMonitor()
    loop = asyncio.get_running_loop()
    cart = monitor.confined(Cart(), to=loop, name="cart")
    cart.add("apple")
    loop.call_soon(cart.add, "pear")
    await asyncio.sleep(0)
    monitor.check()
    await asyncio.to_thread(cart.add, "plum")

    async def elsewhere() -> None:
        cart.add("fig")

    await asyncio.to_thread(asyncio.run, elsewhere())
    assert whats(monitor) == ["cart.add()"] * 2
    assert cart.items == ["apple", "pear", "plum", "fig"]


def test_an_object_of_a_loop_that_does_not_run_is_anyones() -> None:
    """Before and after the loop's life there is nobody to disturb."""
    monitor = ThreadMonitor()
    loop = asyncio.new_event_loop()
    cart = monitor.confined(Cart(), to=loop)
    cart.add("apple")
    loop.close()
    in_thread("visitor", lambda: cart.add("pear"))
    monitor.check()
