"""keys-management's own names: what it documents, what both do, and stored states."""

from __future__ import annotations

import pickle
import threading
from dataclasses import dataclass, field
from importlib import import_module
from itertools import count
from os import environ
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iam_auth_proxy.compat import keys_management as ours
from iam_auth_proxy.compat.keys_management import RingKeys, StoredStates
from iam_auth_proxy.compat.keys_management.consts import EARLIER, KEY, STATE
from iam_auth_proxy.compat.keys_management.key_definitions import KeysDefnitions
from iam_auth_proxy.compat.keys_management.secret_key import (
    SecretKeyDefinition,
    SecretKeyFactory,
    SecretKeyPair,
    SecretKeyValue,
)
from iam_auth_proxy.errors import IamAuthError, Malformed
from iam_auth_proxy.keys.live import WatchedRings
from iam_auth_proxy.keys.secrets import SecretStore
from iam_auth_proxy.protocol.keyring import KeyRing, KeyVersion, StaticRings
from iam_auth_proxy.protocol.lifecycle import Policy
from tests.compat.conftest import either
from tests.compat.test_keys_management_defects import NAME, Repo, Store, managed
from tests.keys.conftest import NOW, aws, bucket, key, objects, open_store, store
from tests.support.memory_store import MemoryObjects, ring_store

__all__ = ["aws", "bucket", "key", "objects", "open_store", "store"]

BOTH = pytest.mark.parametrize("module", either("keys_management"), indirect=True)


# -- the code that its documentation prints -------------------------------------------------------


@BOTH
def test_general_usage(module: Any) -> None:
    KEY_NAME = "my_first_key"
    value_for_key_store = "value_1"
    printed: list[str] = []

    def symmetric_key_store() -> str:
        return value_for_key_store

    def on_keys_change(old_key: str, new_key: str, on_change_key_definition: Any) -> None:
        printed.append(f"key_changed from {old_key} to {new_key}.")

    key_definition_properties = {
        "stateless": True,
        "use_case": module.SecretKeyUseCase.ROUND_TRIP,
        "keep_in_cache": True,
    }
    keys_management = module.KeysManagementImpl(state_repo=Repo(), crypto_tool=Repo())
    keys_management.define_key(KEY_NAME, symmetric_key_store, **key_definition_properties)
    keys_management.register_on_change(KEY_NAME, on_keys_change)
    assert keys_management.get_forward_path_key(KEY_NAME) == "value_1"
    keys_management.key_changed(KEY_NAME, "value_1", "value_2")
    value_for_key_store = "value_2"
    assert keys_management.get_back_path_key(KEY_NAME) == "value_1"
    assert printed == ["key_changed from value_1 to value_2."]
    assert keys_management.get_forward_path_key(KEY_NAME) == "value_2"


def test_example_1_a_token_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "CLIENT_ACCESS_TOKEN"
    monkeypatch.setenv(name, "old_access_token")
    keys_management = ours.KeysManagementImpl(state_repo=Repo(), crypto_tool=Repo())

    class Client:
        def __init__(self, access_token: Any) -> None:
            self.access_token = access_token

    keys_management.define_key(
        name, lambda: environ.get(name), use_case=ours.SecretKeyUseCase.ONE_WAY_TRIP
    )
    client = Client(access_token=keys_management.get_key(name))

    def on_client_access_token_changed(old_key: Any, new_key: Any, definition: Any) -> None:
        client.access_token = new_key

    keys_management.register_on_change(name, on_client_access_token_changed)
    monkeypatch.setenv(name, "new_access_token")
    assert client.access_token == "old_access_token"
    keys_management.key_changed(name, new_keys="new_access_token")
    assert client.access_token == keys_management.get_key(name) == "new_access_token"


@dataclass
class Data:
    """Something that is encrypted: whoever reads it says with which key."""

    opens_with: str = ""
    read: list[bool] = field(default_factory=list)

    def save(self, key: str) -> None:
        self.opens_with = key.replace("encrypt", "decrypt")

    def get(self, key: str) -> None:
        self.read.append(key == self.opens_with)


@pytest.mark.parametrize(
    "alternative", ["encrypts anew", "encrypts anew and says so", "decrypts only"]
)
def test_example_2_nothing_is_lost(alternative: str) -> None:
    """Of the first alternative the printed code goes on with the old key, since nobody says that
    the new one is in use: what decrypts then is among ``get_back_path_keys``."""
    name, repo, data = "EXAMPLE2_DATA", Repo(pickle.dumps, pickle.loads), Data()
    config = Store(("encrypt_1", "decrypt_1"))

    def application() -> Any:
        return ours.KeysManagementImpl(state_repo=repo, crypto_tool=repo).define_key(
            name,
            config,
            stateless=False,
            keep_in_cache=True,
            use_case=ours.SecretKeyUseCase.ROUND_TRIP,
        )

    def encrypts_anew(old_keys: Any, new_keys: Any, definition: Any) -> None:
        if definition.get_last_flow() is ours.SecretKeyFlow.FORWARD_PATH:
            data.get(key=old_keys[1])
            data.save(key=new_keys[0])
            if alternative == "encrypts anew and says so":
                definition.set_previous_keys(new_keys)
            keys_management.save_state(definition.name)

    def decrypts_only(old_keys: Any, new_keys: Any, definition: Any) -> None:
        if definition.get_last_flow() is ours.SecretKeyFlow.FORWARD_PATH:
            data.get(key=old_keys[1])
            definition.set_last_flow(ours.SecretKeyFlow.BACK_PATH)

    # lifetime 1
    keys_management = application()
    data.save(key=keys_management.get_forward_path_key(name))
    keys_management.save_states()
    # lifetime 2; the configuration has another key meanwhile
    config.key = ("encrypt_2", "decrypt_2")
    keys_management = application()
    changed = decrypts_only if alternative == "decrypts only" else encrypts_anew
    keys_management.register_on_change(name, changed)
    data.get(keys_management.get_back_path_key(name))
    data.get(keys_management.get_back_path_key(name))
    data.save(key=keys_management.get_forward_path_key(name))
    keys_management.key_changed(name, config(), ("encrypt_3", "decrypt_3"))
    config.key = ("encrypt_3", "decrypt_3")
    assert data.read == [True] * 3
    if alternative == "decrypts only":  # and saves on its exit
        keys_management.save_states()
    for each in (keys_management, application()):
        assert data.opens_with in each.get_back_path_keys(name)
        if alternative == "encrypts anew and says so":
            assert each.get_back_path_key(name) == data.opens_with


@BOTH
def test_example_3_within_one_lifetime(module: Any) -> None:
    name, data, config = "EXAMPLE3_DATA", Data(), Store("key_1")

    def application() -> Any:
        return module.KeysManagementImpl(state_repo=Repo(), crypto_tool=Repo()).define_key(
            name,
            config,
            stateless=True,
            keep_in_cache=True,
            use_case=module.SecretKeyUseCase.ROUND_TRIP,
        )

    data.save(key=application().get_forward_path_key(name))
    keys_management = application()
    data.get(keys_management.get_back_path_key(name))
    data.save(key=keys_management.get_forward_path_key(name))
    keys_management.key_changed(name, config(), "key_2")
    config.key = "key_2"
    data.get(keys_management.get_back_path_key(name))
    data.save(keys_management.get_forward_path_key(name))
    data.get(keys_management.get_back_path_key(name))
    assert data.read == [True] * 3


@BOTH
def test_example_4_nothing_is_kept(module: Any) -> None:
    name, data, config = "EXAMPLE4_DATA", Data(), Store("key_1")
    keys_management = module.KeysManagementImpl(state_repo=Repo(), crypto_tool=Repo())
    keys_management.define_key(
        name,
        config,
        stateless=True,
        keep_in_cache=False,
        use_case=module.SecretKeyUseCase.ROUND_TRIP,
    )
    data.save(key=keys_management.get_forward_path_key(name))
    data.get(keys_management.get_back_path_key(name))
    config.key = "key_2"
    data.get(keys_management.get_back_path_key(name))
    assert data.read == [True, False]


def test_example_5_a_library_that_knows_one_key() -> None:
    name, repo = "FAKE_LIBRARY_KEY", Repo()
    config = Store(("encrypt_1", "decrypt_1"))

    def library() -> Any:
        keys_management = ours.KeysManagementImpl(state_repo=repo, crypto_tool=repo)
        keys_management.define_key(
            name,
            config,
            stateless=False,
            keep_in_cache=True,
            use_case=ours.SecretKeyUseCase.ROUND_TRIP,
        )
        return keys_management, lambda: keys_management.get_key(name)

    keys_management, get_key = library()
    assert get_key() == "encrypt_1"
    keys_management.save_states()
    config.key = ("encrypt_2", "decrypt_2")
    keys_management, get_key = library()
    assert get_key() == "decrypt_1"
    assert get_key() == "encrypt_2"


# -- what both do ----------------------------------------------------------------------------------

F, B = "forward", "back"


class Counted(Store):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return ("f" + self.key, "b" + self.key)


@BOTH
@pytest.mark.parametrize(
    ("uses", "cached", "calls"),
    [
        ([F, F, B, B, F], True, 3),
        ([F, F, B, B, F], False, 4),
        ([B, B, F, F, B], True, 3),
        ([B, B, F, F, B], False, 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("stated", [False, True])
def test_how_often_the_store_is_asked(
    module: Any, uses: list[str], cached: bool, calls: int, stated: bool
) -> None:
    store, repo = Counted(), Repo() if stated else None
    if repo is not None:
        repo.states[NAME] = {"state": "BACK_PATH", "key": "bv1"}
    keys = managed(module, store, repo, keep_in_cache=cached)
    for flow in uses:
        if flow == F:
            assert keys.get_forward_path_key(NAME) == "fv1"
        else:
            assert keys.get_back_path_key(NAME) == "bv1"
    assert store.calls == calls - (stated and uses[0] == B)


@BOTH
@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("uses", "after"), [([F], ("fv2", "bv1")), ([B], ("fv2", "bv2"))], ids=str)
def test_after_a_rotation(module: Any, cached: bool, uses: list[str], after: Any) -> None:
    for flow, expected in zip((F, B), after, strict=True):
        store = Counted()
        keys = managed(module, store, keep_in_cache=cached)
        for use in uses:
            (keys.get_forward_path_key if use == F else keys.get_back_path_key)(NAME)
        store.key = "v2"
        got = (keys.get_forward_path_key if flow == F else keys.get_back_path_key)(NAME)
        kept = uses == [B] and flow == B and cached
        assert got == ("bv1" if kept else expected)


@BOTH
def test_which_flow_follows(module: Any) -> None:
    keys = managed(module, Store(("f", "b")))
    assert [keys.get_key(NAME) for _ in range(4)] == ["f", "b", "f", "b"]
    one_way = managed(module, Store(), use_case=module.SecretKeyUseCase.ONE_WAY_TRIP)
    assert [one_way.get_key(NAME) for _ in range(2)] == ["v1", "v1"]
    for kept, then in (("FORWARD_PATH", "b"), ("forward", "b"), ("BACK_PATH", "f")):
        repo = Repo()
        repo.states[NAME] = {"state": kept}
        assert managed(module, Store(("f", "b")), repo).get_key(NAME) == then


@BOTH
@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"name": ""},
        {"name": True},
        {"keys_store": None},
        {"keys_store": "text"},
        {"keys_store": lambda a: a},
        {"use_case": None},
        {"use_case": "ENCRYPTION"},
        {"stateless": "aaa"},
        {"keep_in_cache": "aaa"},
        {"on_key_changed_callback_error_strategy": True},
    ],
    ids=lambda change: " ".join(f"{name} {type(value).__name__}" for name, value in change.items()),
)
def test_definitions_that_do_not_do(module: Any, change: dict[str, Any]) -> None:
    good = {
        "name": NAME,
        "keys_store": Store(),
        "use_case": module.SecretKeyUseCase.ROUND_TRIP,
        "stateless": True,
        "keep_in_cache": True,
    }
    with pytest.raises(module.SecretKeyDefinitionInitError, match="Failed to init"):
        module.KeysManagementImpl().define_key(**(good | change))


@BOTH
def test_errors(module: Any) -> None:
    keys = managed(module, Store(), Repo())
    for flow in (module.SecretKeyFlow.FORWARD_PATH, "ofek"):
        with pytest.raises(module.GetKeyError, match="failed to get key for none") as failed:
            keys.get_key("none", flow)
        assert isinstance(failed.value.__cause__, module.KeyIsNotDefinedError)
    with pytest.raises(module.KeyIsNotDefinedError, match="key_name is 'none'"):
        keys.register_on_change("none", print)
    with pytest.raises(module.KeyIsNotDefinedError):
        keys.save_state("none")
    with pytest.raises(module.KeyChangedError, match="key_name is 'none'"):
        keys.key_changed("none")
    with pytest.raises(module.GetKeyError):
        keys.get_key(NAME, "ofek")
    repo = Repo()
    repo.states[NAME] = {"state": "invalid_name", "key": "x"}
    with pytest.raises(module.GetKeyError) as failed:
        managed(module, Store(), repo).get_back_path_key(NAME)
    assert isinstance(failed.value.__cause__, module.KeysManagementError)


@BOTH
@pytest.mark.parametrize(
    ("strategy", "third", "raises"),
    [
        ("HALT", False, False),
        ("SKIP", True, False),
        ("SKIP_AND_RAISE", True, True),
        ("RAISE_IMMEDIATELY", False, True),
    ],
)
def test_strategies(module: Any, strategy: str, third: bool, raises: bool) -> None:
    chosen = module.OnKeyChangedCallbackErrorStrategy[strategy]
    keys, ran = managed(module, Store(), on_key_changed_callback_error_strategy=chosen), []

    def callback(number: int) -> Any:
        def run(old: Any, new: Any, definition: Any) -> None:
            ran.append((number, old, new, definition.name))
            if number == 2:
                raise RuntimeError("error")

        return run

    for number in (1, 2, 3):
        keys.register_on_change(NAME, callback(number))
    if raises:
        with pytest.raises(module.KeyChangedError) as raised:
            keys.key_changed(NAME, "old", "new")
        status = import_module(f"{module.__name__}.key_changed_utils").CallbackStatus
        context = raised.value.args[1]
        assert context[f"{NAME}_callback_1"]["status"] is status.SUCCEEDED
        assert context[f"{NAME}_callback_2"]["status"] is status.FAILED
        assert str(context[f"{NAME}_callback_2"]["error"]) == "error"
    else:
        keys.key_changed(NAME, "old", "new")
    assert [each[0] for each in ran] == [1, 2, 3][: 3 if third else 2]
    assert {each[1:] for each in ran} == {("old", "new", NAME)}


@BOTH
def test_what_is_saved(module: Any) -> None:
    repo = Repo()
    keys = managed(module, Store(("f", "b")), repo)
    keys.define_key("stateless", Store(), module.SecretKeyUseCase.ROUND_TRIP, True, True)
    keys.get_forward_path_key(NAME)
    keys.get_key("stateless")
    keys.save_states()
    assert repo.states == {NAME: {"state": module.SecretKeyFlow.FORWARD_PATH, "key": "b"}}
    keys.get_back_path_key(NAME)
    keys.save_states()
    assert repo.states == {NAME: {"state": module.SecretKeyFlow.BACK_PATH}}


@BOTH
def test_names(module: Any) -> None:
    flow, use = module.SecretKeyFlow, module.SecretKeyUseCase
    assert flow.DEFAULT is flow.AUTHENTICATION
    assert flow.FORWARD_PATH is flow.ENCRYPTION
    assert flow.BACK_PATH is flow.DECRYPTION
    assert [each.value for each in flow] == [1, 2, 3]
    assert use.ROUND_TRIP is use.ENCRYPTION_DECRYPTION
    for text, member in (("forward", flow.FORWARD_PATH), ("decryption", flow.BACK_PATH)):
        assert flow.get(text) is member
    with pytest.raises(module.InvalidFlowNameError, match="Failed to parse x to SecretKeyFlow"):
        flow.get("x")
    for error in (module.GetKeyError, module.KeyChangedError, module.InvalidFlowNameError):
        assert issubclass(error, module.KeysManagementError)
    assert issubclass(module.KeysManagementError, RuntimeError)
    with pytest.raises(module.OnChangeKeyDefinitionInitError):
        module.OnChangeKeyDefinition("text")


# -- stored states ---------------------------------------------------------------------------------


def test_states_of_the_original_are_read() -> None:
    """As the original writes them: with a tool that pickles, the flow is a member of its enum."""
    original = import_module("keys_management")
    repo, config = Repo(pickle.dumps, pickle.loads), Store("v1")
    theirs = managed(original, config, repo)
    theirs.get_forward_path_key(NAME)
    theirs.save_states()
    config.key = "v2"
    assert managed(ours, config, repo).get_back_path_key(NAME) == "v1"


def test_the_original_reads_ours_where_the_repository_writes_names() -> None:
    """The one way in which states of the original work at all."""
    original = import_module("keys_management")

    def named(state: dict[str, Any]) -> dict[str, Any]:
        return {**state, "state": state["state"].name}

    repo, config = Repo(named), Store("v1")
    mine = managed(ours, config, repo)
    mine.get_forward_path_key(NAME)
    config.key = "v2"
    mine.get_forward_path_key(NAME)
    mine.save_states()
    assert repo.states[NAME][EARLIER] == ["v1"]
    config.key = "v3"
    assert managed(original, config, repo).get_back_path_key(NAME) == "v2"


@pytest.mark.parametrize(
    "kept", [5, {}, {"key": "a"}, {"state": None}, {"state": "FORWARD_PATH", "key": 5}], ids=str
)
def test_states_that_are_none(kept: Any) -> None:
    repo = Repo()
    repo.states[NAME] = kept
    with pytest.raises(ours.GetKeyError):
        managed(ours, Store(), repo).get_back_path_key(NAME)


def test_no_state_yet() -> None:
    assert managed(ours, Store(), Repo()).get_back_path_key(NAME) == "v1"


def test_of_two_who_save_at_once_the_later_state_stays() -> None:
    """The first is held up after it has looked; uses of the key do not wait for it."""
    looked, go = threading.Event(), threading.Event()

    def slowly(state: Any) -> Any:
        if not looked.is_set():
            looked.set()
            go.wait(20)
        return state

    store, repo = Store(), Repo(slowly)
    keys = managed(ours, store, repo)
    keys.get_forward_path_key(NAME)
    first = threading.Thread(target=keys.save_state, args=(NAME,))
    first.start()
    assert looked.wait(20)
    store.key = "v2"
    assert keys.get_forward_path_key(NAME) == "v2"
    second = threading.Thread(target=keys.save_state, args=(NAME,))
    second.start()
    second.join(0.2)  # long enough for one that does not wait
    go.set()
    first.join(20)
    second.join(20)
    store.key = "v3"
    assert managed(ours, store, repo).get_back_path_key(NAME) == "v2"


def test_earlier_keys_outlive_a_restart() -> None:
    repo, config = Repo(), Store()
    keys = managed(ours, config, repo)
    for n in range(40):
        config.key = f"v{n}"
        keys.get_forward_path_key(NAME)
    assert len(keys.get_back_path_keys(NAME)) == 16
    keys.save_states()
    config.key = "v40"
    again = managed(ours, config, repo)
    assert again.get_back_path_keys(NAME) == [f"v{n}" for n in range(39, 23, -1)] + ["v40"]
    assert again.get_back_path_key(NAME) == "v39"


@pytest.mark.parametrize("value", ["v1", b"\x00\xff", ("f", b"b")], ids=repr)
def test_states_in_a_secret_store(store: SecretStore, value: Any) -> None:
    config, states = Store(value), StoredStates(store)
    keys = managed(ours, config, states)
    keys.get_forward_path_key(NAME)
    keys.save_states()
    assert store.list()
    config.key = "v2"
    keys.get_forward_path_key(NAME)
    keys.save_states()
    back = value[1] if isinstance(value, tuple) else value
    again = managed(ours, Store("v3"), StoredStates(store))
    assert again.get_back_path_key(NAME) == "v2"
    assert again.get_back_path_keys(NAME) == ["v2", back, "v3"]


@pytest.mark.parametrize(
    "kept", [b"", b"[]", b'{"state": "BACK_PATH", "key": 5}', b'{"state": "x", "earlier": 5}']
)
def test_what_is_no_state(kept: bytes) -> None:
    states = StoredStates.__new__(StoredStates)
    with pytest.raises(Malformed):
        states.decrypt(kept)


def test_a_store_that_fails_is_the_cause() -> None:
    class Fails(Repo):
        def read_state(self, key: str) -> Any:
            raise IamAuthError("down")

    with pytest.raises(ours.GetKeyError, match="IamAuthError") as failed:
        managed(ours, Store(), Fails()).get_back_path_key(NAME)
    assert isinstance(failed.value.__cause__, ours.KeysManagementError)
    assert str(failed.value.__cause__.__cause__) == "down"


# -- keys from a ring ------------------------------------------------------------------------------


def test_m18_workers_with_one_ring() -> None:
    """What one encrypted, another decrypts that never saw the key in use."""
    versions = [KeyVersion.of(bytes([n]) * 32) for n in range(3)]
    rings = [
        KeyRing(primary=versions[0]),
        KeyRing(primary=versions[1], also_accepted=(versions[0], versions[2])),
    ]
    used = managed(ours, RingKeys(StaticRings(rings[0]), NAME)).get_forward_path_key(NAME)
    other = managed(ours, RingKeys(StaticRings(rings[1]), NAME))
    found = other.get_back_path_keys(NAME)
    assert found[0] == other.get_forward_path_key(NAME) != used
    assert used in found
    assert len(found) == 3
    assert RingKeys(StaticRings(rings[0]), "else")() != used


def test_m18_every_worker_is_told_of_a_rotation() -> None:
    """In the original only those of the process that declares it."""
    clock = [NOW]
    ring = ring_store(MemoryObjects())
    ring.create(Policy(poll=30, read=10, skew=60, outage=600), NOW)
    workers: list[Any] = []
    for _ in range(2):
        rings = WatchedRings(lambda: ring, "ring", clock=lambda: clock[0])
        rings.poll(NOW)
        keys = RingKeys(rings, NAME, lambda: clock[0])
        management, told = managed(ours, keys), []
        management.register_on_change(NAME, lambda old, new, definition, to=told: to.append(new))
        rings.on_rotation(keys.changes(management, NAME))
        workers.append((rings, management, told))
        rings.tick()
    used = workers[0][1].get_forward_path_key(NAME)
    begins = ring.rotate(NOW).ring.versions[1].activates
    assert begins is not None
    for clock[0] in (NOW + 31, begins + 1):
        for rings, _, told in workers:
            assert told == []
            rings.tick()
    for rings, management, told in workers:
        assert told == [management.get_forward_path_key(NAME)] != [used]
        assert used in management.get_back_path_keys(NAME)
        rings.close()


# -- the rest --------------------------------------------------------------------------------------


def test_single_management() -> None:
    keys, told = managed(ours, Store(("f", "b")), repo := Repo()), []
    single = keys.get_single_management(NAME)
    single.register_on_change(lambda *arguments: told.append(arguments), "mine")
    assert single.get_encrypt_key() == single.get_forward_path_key() == "f"
    assert single.get_decrypt_key() == single.get_back_path_key() == "b"
    single.key_changed("a", "b")
    single.save_state()
    assert len(told) == 1
    assert repo.states[NAME] == {STATE: ours.SecretKeyFlow.BACK_PATH}
    assert KEY not in repo.states[NAME]


def test_callbacks_names() -> None:
    keys = managed(ours, Store())
    keys.register_on_change(NAME, print, f"{NAME}_callback_2")
    keys.register_on_change(NAME, print)
    keys.register_on_change(NAME, print, "mine")
    keys.register_on_change(NAME, repr, "mine")
    assert list(keys._definition(NAME).on_change_callbacks.items()) == [
        (f"{NAME}_callback_2", print),
        (f"{NAME}_callback_3", print),
        ("mine", repr),
    ]


def test_definitions_of_ones_own() -> None:
    kept: dict[str, SecretKeyDefinition] = {}

    class Definitions(KeysDefnitions):
        def get(self, key_name: str) -> SecretKeyDefinition | None:
            return kept.get(key_name)

        def set(self, key_name: str, definition: SecretKeyDefinition) -> None:
            kept[key_name] = definition

        def get_all_names(self) -> Any:
            return kept

    repo = Repo()
    keys = ours.KeysManagementImpl(repo, repo, Definitions())
    keys.define_key(NAME, Store(), ours.SecretKeyUseCase.ROUND_TRIP, False, True)
    keys.get_forward_path_key(NAME)
    keys.save_states()
    assert list(repo.states) == list(kept) == [NAME]
    assert [each.name for each in keys._keys_definitions.get_all_definitions()] == [NAME]
    with pytest.raises(KeyError):
        Definitions()["none"]


def test_a_change_of_the_state() -> None:
    numbers = count()
    keys = managed(ours, lambda: f"v{next(numbers)}")
    keys.get_forward_path_key(NAME)
    keys.register_on_change(NAME, lambda old, new, definition: definition.clean_state())
    keys.key_changed(NAME)
    assert keys.get_back_path_key(NAME) == "v1"
    first, second = keys._definition(NAME), SecretKeyDefinition("b", Store())
    second.set_key_state(first.get_key_state())
    assert second.get_last_flow() is ours.SecretKeyFlow.BACK_PATH
    assert second.previous_keys is not None
    second.set_previous_keys(SecretKeyValue("x"))
    assert second.previous_keys.back_path_key.get_value() == "x"
    assert "v1" not in str(first)
    assert second() == "v1"


def test_keys_as_values() -> None:
    create = SecretKeyFactory()
    assert create(None) is None
    assert isinstance(create("a"), SecretKeyValue)
    pair = create(("a", "b"))
    assert isinstance(pair, SecretKeyPair)
    assert (pair.is_symmetric(), pair.is_asymmetric()) == (False, True)
    for wrong in (5, (1, 2), ("a", "b", "c"), {"encrypt": "a"}):
        with pytest.raises(ours.KeysManagementError, match="type is") as refused:
            create(wrong)
        assert "'a'" not in str(refused.value)


def test_stores_of_every_kind() -> None:
    def optional(a: int = 1, *more: Any, b: int = 2, **rest: Any) -> str:
        return "v"

    for callable_ in (optional, str, lambda *args, **named: "v", Store("v")):
        assert managed(ours, callable_).get_forward_path_key(NAME) in ("v", "")


# -- whatever comes --------------------------------------------------------------------------------

_KEYS = st.text() | st.binary()


@given(
    flow=st.sampled_from(ours.SecretKeyFlow),
    key=st.none() | _KEYS,
    earlier=st.lists(_KEYS, max_size=3),
)
def test_states_come_back(flow: Any, key: Any, earlier: list[Any]) -> None:
    states = StoredStates.__new__(StoredStates)
    state = {STATE: flow, EARLIER: earlier} | ({} if key is None else {KEY: key})
    back = states.decrypt(states.encrypt(state))
    assert back | {STATE: ours.SecretKeyFlow.get(back[STATE])} == state


@given(
    kept=st.dictionaries(
        st.sampled_from([STATE, KEY, EARLIER, "else"]),
        st.none()
        | st.integers()
        | _KEYS
        | st.lists(_KEYS)
        | st.sampled_from(["back", "FORWARD_PATH"]),
    )
)
def test_any_state_is_read_or_refused(kept: dict[str, Any]) -> None:
    repo = Repo()
    repo.states[NAME] = kept
    keys = managed(ours, Store(), repo)
    try:
        found = keys.get_back_path_key(NAME)
    except ours.GetKeyError as error:
        found = error.__cause__
    assert isinstance(found, str | bytes | ours.KeysManagementError)


@given(st.binary())
def test_any_bytes_are_a_state_or_none(kept: bytes) -> None:
    try:
        StoredStates.__new__(StoredStates).decrypt(kept)
    except Malformed:
        pass
