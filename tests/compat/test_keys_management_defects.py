"""What the original gets wrong: each test here passes with ours, and has to fail with
keys-management. Those of the defects are named as docs/compat.md names them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from tests.compat.conftest import both
from tests.support.processes import ROOT

pytestmark = pytest.mark.parametrize("module", both("keys_management"), indirect=True)

NAME = "key"


class Store:
    """Gives the key of now."""

    def __init__(self, key: Any = "v1") -> None:
        self.key = key

    def __call__(self) -> Any:
        return self.key


class Repo:
    """Keeps states, and encrypts nothing."""

    def __init__(
        self,
        to: Callable[[Any], Any] = lambda state: state,
        back: Callable[[Any], Any] = lambda state: state,
    ) -> None:
        self.states: dict[str, Any] = {}
        self.encrypt, self.decrypt = to, back

    def write_state(self, key: str, key_state: Any) -> None:
        self.states[key] = key_state

    def read_state(self, key: str) -> Any:
        return self.states.get(key)


def managed(module: Any, store: Any, repo: Any = None, /, **how: Any) -> Any:
    """One key, of two ways, cached, and stated where there is a repository."""
    tools = () if repo is None else (repo, repo)
    environment = how.pop("environment", None)
    more = {} if environment is None else {"environemt_type": environment}
    given = {
        "use_case": module.SecretKeyUseCase.ROUND_TRIP,
        "stateless": repo is None,
        "keep_in_cache": True,
    }
    return module.KeysManagementImpl(*tools, **more).define_key(NAME, store, **(given | how))


def test_m1_what_a_one_way_key_need_not_say(module: Any) -> None:
    keys = module.KeysManagementImpl()
    keys.define_key(NAME, Store(), use_case=module.SecretKeyUseCase.ONE_WAY_TRIP)
    assert keys.get_key(NAME) == "v1"


@pytest.mark.parametrize("tool", [(), (json.dumps, json.loads)], ids=["as it is", "json"])
def test_m2_a_state_outlives_a_restart(module: Any, tool: Any) -> None:
    store, repo = Store(), Repo(*tool)
    first = managed(module, store, repo)
    first.get_forward_path_key(NAME)
    first.save_states()
    store.key = "v2"
    assert managed(module, store, repo).get_back_path_key(NAME) == "v1"


def test_m3_saving_twice(module: Any) -> None:
    repo = Repo()
    keys = managed(module, Store(), repo)
    keys.get_forward_path_key(NAME)
    keys.save_state(NAME)
    first = dict(repo.states[NAME])
    keys.save_state(NAME)
    assert repo.states[NAME] == first
    assert first["key"] == "v1"


def test_m3b_saving_is_no_use(module: Any) -> None:
    store = Store()
    keys = managed(module, store, Repo(), keep_in_cache=False)
    keys.get_forward_path_key(NAME)
    keys.save_state(NAME)
    store.key = "v2"
    assert keys.get_back_path_key(NAME) == "v1"


def test_saving_before_the_first_use(module: Any) -> None:
    store, repo = Store(), Repo()
    repo.states[NAME] = kept = {"state": "FORWARD_PATH", "key": "v0"}
    keys = managed(module, store, repo)
    keys.save_states()
    assert repo.states[NAME] == kept


def test_m4_more_than_one_key_before(module: Any) -> None:
    store = Store()
    keys = managed(module, store)
    for key in ("v1", "v2", "v3"):
        store.key = key
        keys.get_forward_path_key(NAME)
    assert keys.get_back_path_key(NAME) == "v3"
    assert keys.get_back_path_keys(NAME) == ["v3", "v2", "v1"]


def test_m5_the_new_key_after_a_change(module: Any) -> None:
    """What was encrypted last still opens, and what others encrypt since does, too."""
    store = Store()
    keys = managed(module, store)
    keys.get_forward_path_key(NAME)
    keys.key_changed(NAME, "v1", "v2")
    store.key = "v2"
    assert keys.get_back_path_key(NAME) == "v1"
    assert keys.get_back_path_keys(NAME) == ["v1", "v2"]


def test_m6_what_a_callback_is_told(module: Any) -> None:
    told: list[Any] = []
    keys = managed(module, Store(("a", "b")), Repo())
    keys.register_on_change(NAME, lambda old, new, definition: told.append(definition))
    keys.get_forward_path_key(NAME)
    keys.key_changed(NAME, "a", "c")
    definition = told[0]
    assert (definition.is_stated(), definition.is_stateless()) == (True, False)
    assert definition.get_previous_keys().back_path_key.get_value() == "b"


def test_m7_a_single_key(module: Any) -> None:
    single = managed(module, Store()).get_single_management(NAME)
    assert single.get_key(module.SecretKeyFlow.FORWARD_PATH) == "v1"


def test_m8_one_way_is_one_way(module: Any) -> None:
    keys = managed(module, Store(), use_case=module.SecretKeyUseCase.ONE_WAY_TRIP)
    with pytest.raises(module.GetKeyError, match="flow is not"):
        keys.get_forward_path_key(NAME)


def test_m9_a_factory_is_called(module: Any) -> None:
    class Factory(module.SynchronizerFactory):
        def create(self) -> Any:
            return module.Synchronizer()

    assert isinstance(Factory()(), module.Synchronizer)


def test_m10_callbacks_may_use_everything(module: Any) -> None:
    repo = Repo()
    keys = managed(module, Store(), repo, environment=module.EnvironemtType.MULTITHREADED)
    keys.get_forward_path_key(NAME)
    keys.register_on_change(NAME, lambda old, new, definition: keys.save_state(NAME))
    change = threading.Thread(target=keys.key_changed, args=(NAME, "v1", "v2"), daemon=True)
    change.start()
    change.join(1)
    assert not change.is_alive(), "a deadlock"
    assert repo.states[NAME]["key"] == "v1"


def test_m10_nobody_waits_for_callbacks(module: Any) -> None:
    keys = managed(module, Store(), environment=module.EnvironemtType.MULTITHREADED)
    got: list[Any] = []
    meanwhile: list[Any] = []

    def others(old: Any, new: Any, definition: Any) -> None:
        other = threading.Thread(
            target=lambda: got.append(keys.get_forward_path_key(NAME)), daemon=True
        )
        other.start()
        other.join(1)
        meanwhile.extend(got)

    keys.register_on_change(NAME, others)
    keys.key_changed(NAME, "v1", "v2")
    assert meanwhile == ["v1"]


def test_m11_a_failure_is_not_swallowed(module: Any) -> None:
    """Where nothing is said of errors; whoever says HALT gets the original's silence."""
    keys, ran = managed(module, Store()), []

    def fails(*arguments: Any) -> None:
        raise RuntimeError("not encrypted anew")

    keys.register_on_change(NAME, fails)
    keys.register_on_change(NAME, lambda *arguments: ran.append(arguments))
    with pytest.raises(module.KeyChangedError) as raised:
        keys.key_changed(NAME, "v1", "v2")
    assert len(ran) == 1
    assert str(raised.value.__cause__) == "not encrypted anew"


def test_m12_logging_changes_nothing(module: Any, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []
    keys = managed(module, Store())
    keys.register_on_change(NAME, lambda old, new, definition: seen.append((old, new)))
    caplog.set_level(logging.DEBUG)
    keys.key_changed(NAME, ["a", "b", "c"], ["d"])
    assert seen == [(["a", "b", "c"], ["d"])]


@pytest.mark.parametrize("key", ["hunter22", "Tr0ub4dor&3 and more yzAB"])
def test_m13_no_part_of_a_key_is_shown(
    module: Any, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    keys = managed(module, Store(key))
    keys.get_forward_path_key(NAME)
    keys.key_changed(NAME, key, key)
    inner = import_module(f"{module.__name__}.secret_key")

    def shown(key: Any) -> list[str]:
        value, pair = inner.SecretKeyValue(key), inner.SecretKeyPair(key)
        return [str(value), str(pair), value.censor_key()]

    for text in (caplog.text, *shown(key), *shown(key.encode())):
        assert key[:2] not in text
    assert shown(key) == shown(key + key), "its length"


def test_m15_a_flow_by_its_name(module: Any) -> None:
    keys = managed(module, Store(("a", "b")))
    assert keys.get_key(NAME, "forward") == "a"
    assert keys.get_key(NAME, "BACK_PATH") == "b"


def test_m15_a_store_that_gives_a_dict(module: Any) -> None:
    keys = managed(module, Store({"encrypt": "a", "decrypt": "b"}))
    assert (keys.get_encrypt_key(NAME), keys.get_decrypt_key(NAME)) == ("a", "b")


def test_m16_a_key_that_is_defined_anew_keeps_its_callbacks(module: Any) -> None:
    keys, told = managed(module, Store()), []
    keys.register_on_change(NAME, lambda *arguments: told.append(arguments))
    keys.define_key(NAME, Store("v9"), module.SecretKeyUseCase.ROUND_TRIP, True, True)
    keys.key_changed(NAME, "v1", "v9")
    assert len(told) == 1


def test_m17_what_is_missing_is_said(module: Any) -> None:
    keys = module.KeysManagementImpl()
    keys.define_key(NAME, Store(), module.SecretKeyUseCase.ROUND_TRIP, False, True)
    with pytest.raises(module.GetKeyError, match="state_repo"):
        keys.get_back_path_key(NAME)
    keys.get_forward_path_key(NAME)
    with pytest.raises(module.KeysManagementError, match="state_repo"):
        keys.save_state(NAME)


def test_m18_two_workers_and_one_repository(module: Any) -> None:
    store, repo = Store(), Repo()
    encrypts, decrypts = managed(module, store, repo), managed(module, store, repo)
    encrypts.get_forward_path_key(NAME)
    encrypts.save_state(NAME)
    store.key = "v2"
    assert decrypts.get_back_path_key(NAME) == "v1"


def test_m19_whether_it_is_locked(module: Any) -> None:
    concurrency = import_module(f"{module.__name__}.concurrency")
    factory = concurrency.DefaultSynchronizerFactory(module.EnvironemtType.MULTIPROCESS)
    lock = factory.create()
    assert not lock.is_locked_read()
    with lock.write():
        assert lock.is_locked_write()
    assert not lock.is_locked_write()


def test_m20_threads_and_a_rotation(module: Any) -> None:
    """Whatever another thread used meanwhile, this one's key is among those that decrypt."""
    store = Store(("f0", "b0"))
    keys = managed(module, store, environment=module.EnvironemtType.MULTITHREADED)
    wrong: list[Any] = []

    def pairs() -> None:
        for _ in range(100):
            used = keys.get_forward_path_key(NAME)
            found = keys.get_back_path_keys(NAME)
            if used.replace("f", "b") not in found or keys.get_back_path_key(NAME)[0] != "b":
                wrong.append((used, found))

    def careful() -> None:
        try:
            pairs()
        except Exception as error:  # noqa: BLE001  # for the thread that looks
            wrong.append(error)

    threads = [threading.Thread(target=careful) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(1, 12):
        store.key = (f"f{n}", f"b{n}")
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_m21_previous_keys_are_the_previous_ones(module: Any) -> None:
    inner = import_module(f"{module.__name__}.secret_key")
    definition = inner.SecretKeyDefinition(NAME, Store())
    definition.set_previous_keys("v0")
    assert definition.previous_keys.back_path_key.get_value() == "v0"


def test_m21_nothing_of_testing_is_imported(module: ModuleType) -> None:
    """Nor has the host's logging another level."""
    code = (
        f"import logging, sys, {module.__name__}\n"
        "assert 'unittest.mock' not in sys.modules\n"
        "assert logging.getLevelName(9) == 'Level 9'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == 0
