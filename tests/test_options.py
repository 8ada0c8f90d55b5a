"""The options in the signatures of the clients, and the mistakes that are made with a client."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import re
import subprocess
import sys
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from causality_sdk import AsyncClient, Client, ClientOptions, Config, aio
from causality_sdk.errors import ConfigError
from causality_sdk.option_names import COUNTERPARTS, meant, unknown_option, unread_variables
from causality_sdk.packtrack import PackTrackClient, PackTrackConfig
from causality_sdk.packtrack.options import PackTrackOptions
from causality_sdk.testing import RecordingTransport

ROOT = Path(__file__).resolve().parent.parent

# Option -> what a keyword may be beside what the field is afterwards.
WIDER = {
    "queue_path": "str | os.PathLike[str] | None",
    "verify": "bool | str | os.PathLike[str]",
    "logger": "logging.Logger | logging.LoggerAdapter[Any]",
}
WIDER_THERE = {**WIDER, "logger": "logging.Logger | logging.LoggerAdapter[Any] | None"}

CLIENTS: list[tuple[type, type]] = [
    (Client, Config),
    (AsyncClient, Config),
    (PackTrackClient, PackTrackConfig),
]


def keywords(given: Any) -> Any:
    """What a type checker would not let pass."""
    return given


def client(directory: Path) -> Client:
    return Client(
        api_key="test-key",
        endpoint="https://events.invalid",
        app_id="options",
        queue_path=directory / "queue.db",
        transport=RecordingTransport(),
        start=False,
    )


@pytest.mark.parametrize(
    ("options", "config", "wider"),
    [(ClientOptions, Config, WIDER), (PackTrackOptions, PackTrackConfig, WIDER_THERE)],
)
def test_the_keywords_are_the_fields_with_their_types(
    options: type, config: Any, wider: Mapping[str, str]
) -> None:
    annotations = {
        name: hint.__forward_arg__ if isinstance(hint, typing.ForwardRef) else str(hint)
        for name, hint in inspect.get_annotations(options).items()
    }
    wanted = {spec.name: wider.get(spec.name, spec.type) for spec in fields(config)}
    assert annotations == wanted
    assert list(annotations) == list(wanted)  # completion offers them in this order
    assert typing.cast(Any, options).__total__ is False


class TestSignatures:
    @pytest.mark.parametrize(("kind", "config"), CLIENTS)
    def test_the_signature_lists_every_option_with_its_default(
        self, kind: type, config: Any
    ) -> None:
        shown = inspect.signature(kind).parameters
        for name, parameter in inspect.signature(config).parameters.items():
            assert shown[name].default == parameter.default
            assert shown[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert "config" in shown
        assert "options" not in shown

    def test_a_path_may_be_a_text(self) -> None:
        shown = inspect.signature(Client).parameters
        assert shown["queue_path"].annotation == "str | os.PathLike[str] | None"
        assert shown["batch_size"].annotation == "int"

    def test_help_shows_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        help(Client)
        assert re.search(r"flush_interval: '?float'? = 30\.0", capsys.readouterr().out)

    def test_a_subclass_shows_its_own(self) -> None:
        class Mine(Client):
            def __init__(self, name: str) -> None:
                super().__init__(app_id=name)

        class Same(Client):
            pass

        assert list(inspect.signature(Mine).parameters) == ["name"]
        assert "batch_size" in inspect.signature(Same).parameters

    def test_hints_can_be_resolved_when_the_program_runs(self) -> None:
        for function in (Client.__init__, AsyncClient.__init__, Config.load):
            assert "options" in typing.get_type_hints(function)

    def test_the_import_does_not_make_them(self) -> None:
        script = "import causality_sdk.client, sys; print('difflib' in sys.modules)"
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert run.stdout.strip() == "False"


PROGRAM = """
from typing import Unpack

from causality_sdk import AsyncClient, Client, ClientOptions, Config, Stats
from causality_sdk.packtrack import PackTrackClient, PackTrackConfig


def make(**options: Unpack[ClientOptions]) -> Client:
    return Client(**options)


def merged(**more: Unpack[ClientOptions]) -> Config:
    options: ClientOptions = {"app_id": "billing", "flush_interval": 5}
    all_of_them: ClientOptions = {**options, **more}
    return Config.load({}, **all_of_them)


def lost(stats: Stats) -> int:
    return sum(stats.evicted.values())


def right() -> None:
    make(app_id="a", flush_interval=3, queue_path="queue.db", overflow="reject")
    AsyncClient(app_id="a", verify=False, headers={"a": "b"})
    Config.load({}, app_id="a", durability="power")
    PackTrackClient(api_key="k", queue_capacity=7)
    PackTrackConfig.load(api_key="k", gzip=True)
"""

WRONG_LINES = {
    'Client(app_id="a", flush_intervall=3)': 'did you mean "flush_interval"',
    'AsyncClient(app_id="a", flush_intervall=3)': 'did you mean "flush_interval"',
    'make(app_id="a", flush_intervall=3)': 'did you mean "flush_interval"',
    "Config.load({}, flush_intervall=3)": 'did you mean "flush_interval"',
    "PackTrackClient(queue_capacitys=3)": 'did you mean "queue_capacity"',
    "PackTrackConfig.load(queue_capacitys=3)": 'did you mean "queue_capacity"',
    'Client(batch_size="50")': 'expected "int"',
    'Client(durability="disk")': "expected \"Literal['process', 'power']\"",
    'Client("key")': 'expected "Never"',
}


def test_a_type_checker_takes_right_options_and_finds_wrong_ones(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    first = PROGRAM.count("\n") + 4
    program.write_text(
        f"{PROGRAM}\n\ndef wrong() -> None:\n" + textwrap.indent("\n".join(WRONG_LINES), "    "),
        encoding="utf-8",
    )
    cache = ROOT / ".mypy_cache"
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context",
         "--show-traceback", f"--cache-dir={cache}", str(program)],
        cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    told = result.stdout.splitlines()
    for number, (line, words) in enumerate(WRONG_LINES.items(), first):
        about = [each for each in told if f"program.py:{number}: error" in each]
        assert [each for each in about if words in each], (line, told)
    lines = {int(each.split(":")[1]) for each in told if ": error" in each and "program" in each}
    assert min(lines) == first, result.stdout + result.stderr


class TestMistakes:
    """What newcomers do; each is told what to do instead."""

    @pytest.mark.parametrize(("kind", "config"), CLIENTS)
    def test_a_positional_key_is_an_error_that_does_not_show_it(
        self, kind: Any, config: type
    ) -> None:
        del config
        with pytest.raises(ConfigError, match=rf"^{kind.__name__} takes keywords only") as caught:
            kind("sk-live-secret")
        assert "api_key=" in str(caught.value)
        assert "sk-live" not in str(caught.value)

    @pytest.mark.parametrize(("kind", "config"), CLIENTS)
    def test_options_as_a_dict_are_no_config(self, kind: Any, config: type) -> None:
        with pytest.raises(ConfigError, match=rf"config must be a {config.__name__}, got dict"):
            kind(config={"api_key": "k"})

    def test_async_with_on_the_client_names_the_other_one(self, tmp_path: Path) -> None:
        async def enter() -> None:
            async with client(tmp_path):  # type: ignore[attr-defined]
                pass

        with pytest.raises(TypeError, match=r"causality_sdk\.AsyncClient"):
            asyncio.run(enter())

    def test_with_on_the_async_client_names_async_with(self) -> None:
        mine = AsyncClient(api_key="k", endpoint="http://127.0.0.1:9", app_id="a")
        with pytest.raises(TypeError, match="use async with"), mine:  # type: ignore[attr-defined]
            pass

    def test_async_with_on_the_packtrack_client_says_with(self) -> None:
        async def enter() -> None:
            async with PackTrackClient(api_key="k"):  # type: ignore[attr-defined]
                pass

        with pytest.raises(TypeError, match="use with"):
            asyncio.run(enter())

    def test_the_async_client_is_where_people_look_for_it(self) -> None:
        assert AsyncClient is aio.AsyncClient

    @pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
    @pytest.mark.parametrize("enabled", [True, False])
    def test_a_client_is_not_copied(self, tmp_path: Path, way: Any, enabled: bool) -> None:
        with client(tmp_path) if enabled else Client(enabled=False) as mine:
            for each in (
                mine,
                AsyncClient(config=mine.config),
                PackTrackClient(api_key="k"),
            ):
                with pytest.raises(TypeError, match=r"make a \w*Client in each process"):
                    way(each)

    def test_its_config_is(self, tmp_path: Path) -> None:
        config = Config(api_key="k", endpoint="http://x", app_id="a", queue_path=tmp_path / "q")
        assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


class TestNames:
    KNOWN = tuple(spec.name for spec in fields(Config))

    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("flush_intervall", "did you mean flush_interval?"),
            ("flushInterval", "did you mean flush_interval?"),
            ("flush-interval", "did you mean flush_interval?"),
            ("apikey", "did you mean api_key?"),
            ("api_kee", "did you mean api_key?"),
            ("queuepath", "did you mean queue_path?"),
            ("write_key", "here it is api_key"),
            ("writeKey", "here it is api_key"),
            ("flush_att", "here it is batch_size"),
            ("sync_mode", "here it is start=False, and flush()"),
            ("api_key_file", "here it is the variable CAUSALITY_API_KEY_FILE"),
        ],
    )
    def test_what_was_meant_is_named(self, name: str, hint: str) -> None:
        assert meant(name, self.KNOWN) == hint

    def test_what_resembles_nothing_gets_the_whole_list(self) -> None:
        assert unknown_option("colour", self.KNOWN).endswith(", ".join(self.KNOWN))

    @pytest.mark.parametrize("name", sorted(COUNTERPARTS))
    def test_names_of_other_trackers_are_no_options_and_lead_to_some(self, name: str) -> None:
        assert name not in self.KNOWN
        words = COUNTERPARTS[name]
        with pytest.raises(ConfigError) as caught:
            Config.load({}, **keywords({name: "secret"}))
        assert str(caught.value) == f"{name} is not an option; here it is {words}"

    @pytest.mark.parametrize("words", sorted(set(COUNTERPARTS.values())))
    def test_a_counterpart_exists(self, words: str) -> None:
        first = words.replace("(", " ").replace("=", " ").replace(",", " ").split()[0]
        assert first in self.KNOWN or words.startswith(("a function", "a property", "the variable",
                                                        "properties of"))  # fmt: skip

    def test_several_wrong_names_are_told_at_once(self) -> None:
        with pytest.raises(ConfigError, match=r"^dsn is .*; flush_at is not an option"):
            Config.load({}, **keywords({"dsn": "x", "flush_at": 1}))

    def test_a_variable_that_is_misspelt_is_found_and_others_are_left_alone(self) -> None:
        environ = [
            "CAUSALITY_FLUSH_INTERVALL", "CAUSALITY_WRITE_KEY", "CAUSALITY_DSN",
            "CAUSALITY_API_KEY", "CAUSALITY_SERVICE_HOST", "CAUSALITY_PORT",
            "CAUSALITY_PORT_80_TCP", "XCAUSALITY_APPID",
            "CAUSALITY_", "PATH",
        ]  # fmt: skip
        read = [f"CAUSALITY_{name.upper()}" for name in self.KNOWN]
        assert list(unread_variables(environ, read, "CAUSALITY_").values()) == [
            "CAUSALITY_DSN is not read; here it is CAUSALITY_ENDPOINT and CAUSALITY_API_KEY",
            "CAUSALITY_FLUSH_INTERVALL is not read; did you mean CAUSALITY_FLUSH_INTERVAL?",
            "CAUSALITY_WRITE_KEY is not read; here it is CAUSALITY_API_KEY",
        ]
