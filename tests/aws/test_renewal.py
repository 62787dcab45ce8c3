"""Values that expire: by the clock given, one fetch at a time, ahead of their end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from iam_auth_proxy.aws.renewal import FOREVER, Logins, Renewed
from iam_auth_proxy.errors import AccessDenied, AwsUnavailable, IamAuthError, LoginNeeded, MfaNeeded

NOW = 1_000_000.0


class Source:
    """Counts its fetches; each gives the next number, good for 900 s from ``now``."""

    def __init__(self) -> None:
        self.fetches = 0
        self.now = NOW
        self.failure: Exception | None = None

    def __call__(self) -> tuple[int, float]:
        self.fetches += 1
        if self.failure is not None:
            raise self.failure
        return self.fetches, self.now + 900


@pytest.fixture
def renewed() -> Renewed[int]:
    return Renewed(ahead=300, patience=5)


def test_is_fetched_once_and_ahead_of_its_end(renewed: Renewed[int]) -> None:
    source = Source()
    assert [renewed.get(NOW + s, source) for s in (0, 1, 599)] == [1, 1, 1]
    source.now = NOW + 601
    assert [renewed.get(NOW + s, source) for s in (601, 602)] == [2, 2]


def test_after_sleep_the_clock_decides(renewed: Renewed[int]) -> None:
    source = Source()
    renewed.get(NOW, source)
    source.now = NOW + 86_400
    assert renewed.get(NOW + 86_400, source) == 2


@pytest.mark.parametrize("failure", [AwsUnavailable("busy"), LoginNeeded("gone")])
def test_a_failed_renewal_leaves_the_old_value_until_its_end(
    renewed: Renewed[int], failure: Exception
) -> None:
    source = Source()
    renewed.get(NOW, source)
    source.failure = failure
    assert renewed.get(NOW + 700, source) == 1
    assert source.fetches == 2
    for late in (871, 900, 5000):
        with pytest.raises(type(failure)):
            renewed.get(NOW + late, source)


def test_another_key_is_another_value(renewed: Renewed[int]) -> None:
    source = Source()
    assert [renewed.get(NOW, source, key) for key in ("a", "a", "b", "b", "a")] == [1, 1, 2, 2, 3]


def test_replace_fetches_whatever_is_held(renewed: Renewed[int]) -> None:
    source = Source()
    renewed.get(NOW, source)
    assert renewed.replace(source) == 2
    assert renewed.get(NOW, source) == 2


def test_a_value_without_end() -> None:
    renewed: Renewed[str] = Renewed(patience=5)
    assert renewed.get(NOW, lambda: ("for ever", FOREVER)) == "for ever"
    assert renewed.get(NOW * 1000, lambda: pytest.fail("fetched again")) == "for ever"


class Slow(Source):
    """Tells that a fetch has begun, and waits for leave to end it."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.leave = threading.Event()

    def __call__(self) -> tuple[int, float]:
        self.begun.set()
        assert self.leave.wait(10)
        return super().__call__()


class CountingLock:
    """A lock that knows how many have come to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._came = threading.Semaphore(0)

    def acquire(self, timeout: float) -> bool:
        self._came.release()
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        self._lock.release()

    def wait_for(self, number: int) -> None:
        for _ in range(number):
            assert self._came.acquire(timeout=10)


THREADS = 8


def together(renewed: Renewed[int], slow: Slow) -> list[object]:
    """The results, or errors, of threads that all ask while the first of them fetches."""
    lock = CountingLock()
    renewed._lock = lock  # type: ignore[assignment]  # it does what Renewed asks of it

    def run() -> object:
        try:
            return renewed.get(NOW, slow)
        except IamAuthError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        futures = [pool.submit(run) for _ in range(THREADS)]
        lock.wait_for(THREADS)
        slow.leave.set()
        return [future.result() for future in futures]


def test_many_threads_share_one_fetch(renewed: Renewed[int]) -> None:
    slow = Slow()
    assert together(renewed, slow) == [1] * THREADS
    assert slow.fetches == 1


def test_threads_that_waited_share_its_failure(renewed: Renewed[int]) -> None:
    slow = Slow()
    slow.failure = LoginNeeded("gone")
    assert together(renewed, slow) == [slow.failure] * THREADS
    assert slow.fetches == 1


def test_a_failure_is_not_remembered(renewed: Renewed[int]) -> None:
    source = Source()
    source.failure = LoginNeeded("gone")
    with pytest.raises(LoginNeeded):
        renewed.get(NOW, source)
    source.failure = None
    assert renewed.get(NOW, source) == 2


def test_nobody_waits_for_a_renewal_ahead_of_the_end(renewed: Renewed[int]) -> None:
    renewed.get(NOW, Source())
    slow = Slow()
    thread = threading.Thread(target=renewed.get, args=(NOW + 700, slow))
    thread.start()
    assert slow.begun.wait(10)
    assert renewed.get(NOW + 700, slow) == 1
    slow.leave.set()
    thread.join(10)
    assert slow.fetches == 1


def test_patience_ends() -> None:
    renewed: Renewed[int] = Renewed(patience=0.02)
    slow = Slow()
    thread = threading.Thread(target=renewed.get, args=(NOW, slow))
    thread.start()
    assert slow.begun.wait(10)
    with pytest.raises(AwsUnavailable):
        renewed.get(NOW, slow)
    with pytest.raises(AwsUnavailable):
        renewed.replace(slow)
    slow.leave.set()
    thread.join(10)


class Fake:
    """A login that is good or not."""

    remedy = "Run: the one command"

    def __init__(self, error: IamAuthError | None) -> None:
        self.error = error

    def call(self) -> str:
        if self.error is not None:
            raise self.error
        return "done"


class TestLogins:
    def make(self, *errors: IamAuthError | None) -> tuple[Logins[Fake], list[Fake]]:
        made: list[Fake] = []
        left = list(errors)

        def new() -> Fake:
            made.append(Fake(left.pop(0)))
            return made[-1]

        return Logins(new), made

    def test_a_good_one_is_kept(self) -> None:
        logins, made = self.make(None)
        assert [logins.use(Fake.call) for _ in range(3)] == ["done"] * 3
        assert len(made) == 1

    def test_a_stale_one_is_replaced_once(self) -> None:
        logins, made = self.make(None, None)
        logins.use(Fake.call)
        made[0].error = LoginNeeded("expired")
        assert logins.use(Fake.call) == "done"
        assert len(made) == 2

    def test_a_fresh_one_is_not_tried_twice(self) -> None:
        logins, made = self.make(LoginNeeded("none"))
        with pytest.raises(LoginNeeded) as caught:
            logins.use(Fake.call)
        assert caught.value.remedy == Fake.remedy
        assert len(made) == 1

    def test_where_the_new_one_is_no_better(self) -> None:
        logins, made = self.make(None, LoginNeeded("still", remedy="Run: another"))
        logins.use(Fake.call)
        made[0].error = LoginNeeded("expired")
        with pytest.raises(LoginNeeded, match="still") as caught:
            logins.use(Fake.call)
        assert caught.value.remedy == "Run: another"

    @pytest.mark.parametrize(
        "error", [MfaNeeded("serial"), AwsUnavailable("down"), AccessDenied("no", action="a:B")]
    )
    def test_other_errors_say_nothing_about_the_login(self, error: IamAuthError) -> None:
        logins, made = self.make(None)
        logins.use(Fake.call)
        made[0].error = error
        with pytest.raises(type(error)):
            logins.use(Fake.call)
        assert len(made) == 1

    def test_forget(self) -> None:
        logins, made = self.make(None, None)
        logins.use(Fake.call)
        logins.forget()
        logins.use(Fake.call)
        assert len(made) == 2
