"""Options: every field's default, check and variable; the api key that is shown nowhere."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import certifi
import platformdirs
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from causality_sdk.config import ENV_PREFIX, Config
from causality_sdk.default_path import default_queue_path
from causality_sdk.errors import ConfigError
from causality_sdk.packtrack import PackTrackConfig
from causality_sdk.wire.base import Request, Response, Verdict
from causality_sdk.wire.causality_proto import CausalityProtoWire

CERTIFI = certifi.where()
KEY = "sk-live-5up3r53cr37"
REQUIRED: dict[str, Any] = {
    "api_key": KEY,
    "endpoint": "https://events.example.com",
    "app_id": "kiosk-7",
}

DEFAULTS: dict[str, object] = {
    "api_key": "",
    "endpoint": "",
    "app_id": "",
    "batch_size": 50,
    "flush_interval": 30.0,
    "max_batch_events": 1000,
    "max_batch_bytes": 1_048_576,
    "max_event_bytes": 262_144,
    "timeout": 10.0,
    "max_retries": 3,
    "backoff_initial": 1.0,
    "backoff_max": 300.0,
    "jitter": 1.0,
    "queue_path": None,
    "max_queue_events": 100_000,
    "max_queue_bytes": 134_217_728,
    "overflow": "drop_oldest",
    "durability": "process",
    "compression": None,
    "close_timeout": 2.0,
    "user_agent": "",
    "headers": {},
    "verify": True,
    "proxies": None,
    "session": None,
    "wire": "causality",
    "transport": None,
    "take_over": False,
    "key_is_destination": False,
    "fallback": None,
    "strict": False,
    "start": True,
    "enabled": True,
    "debug": False,
    "logger": logging.getLogger("causality_sdk"),
    "on_delivered": None,
    "on_dropped": None,
    "on_error": None,
}

# field, a wrong value, how the message shows it, the words that tell what to do
WRONG: list[tuple[str, object, str, str]] = [
    ("api_key", "", "", "pass api_key= or set CAUSALITY_API_KEY"),
    ("api_key", None, "NoneType", "must be a string"),
    ("endpoint", "", "", "pass endpoint= or set CAUSALITY_ENDPOINT, for example https://"),
    ("endpoint", 80, "int", "must be a string"),
    ("endpoint", "events.example.com", "events.example.com", "must begin with https://"),
    ("endpoint", "ftp://example.com", "ftp://example.com", "must begin with https://"),
    ("endpoint", "https://", "'https://'", "use a base URL such as"),
    ("endpoint", "https://:443", "https://:443", "use a base URL such as"),
    ("endpoint", "https://host:0", "https://host:0", "use a base URL such as"),
    ("endpoint", "https://host:99999", "https://host:99999", "use a base URL such as"),
    ("endpoint", "https://host:http", "https://host:http", "use a base URL such as"),
    ("endpoint", "https://[::1", "https://[::1", "use a base URL such as"),
    ("endpoint", "https://ho st", "https://ho st", "must not hold spaces or line breaks"),
    ("endpoint", "https://ho\nst", r"https://ho\nst", "must not hold spaces or line breaks"),
    ("endpoint", "https://host/?a=1", "https://host/?...", "must not have a query"),
    ("endpoint", "https://host?", "https://host?...", "must not have a query"),
    ("endpoint", "https://host/#a", "https://host/?...", "must not have a query or a fragment"),
    ("endpoint", "https://host/v1/events/batch", "/v1/events/batch'", "use https://host"),
    ("endpoint", "https://host/a/v1/events/batch/", "/v1/events/batch/'", "use https://host/a"),
    ("endpoint", "https://host/V1/Events", "'https://host/V1/Events'", "use https://host"),
    ("endpoint", "https://host/health", "'https://host/health'", "use https://host"),
    ("endpoint", "https://u:p@host/x", "https://...@host/x", "use api_key or headers"),
    ("app_id", "", "", "pass app_id= or set CAUSALITY_APP_ID, for example kiosk-7"),
    ("app_id", " \t", "", "pass app_id= or set CAUSALITY_APP_ID"),
    ("app_id", 7, "int", "must be a string"),
    ("app_id", "a\ud800", r"'a\ud800'", "must be text that UTF-8 can hold"),
    ("batch_size", 0, "got 0", "must be at least 1"),
    ("batch_size", 1.5, "1.5", "must be a whole number"),
    ("batch_size", "50", "'50'", "must be a whole number"),
    ("batch_size", True, "True", "must be a whole number"),
    ("batch_size", 2**63, str(2**63), f"must be at most {2**63 - 1}"),
    ("flush_interval", 0, "got 0", "must be above 0"),
    ("flush_interval", float("inf"), "inf", "must be a finite number"),
    ("flush_interval", 1e9, "1000000000.0", "must be at most 4000000"),
    ("max_batch_events", -1, "-1", "must be at least 1"),
    ("max_batch_bytes", 0, "got 0", "must be at least 1"),
    ("max_event_bytes", 0, "got 0", "must be at least 1"),
    ("timeout", 0.0, "got 0.0", "must be above 0"),
    ("timeout", float("nan"), "nan", "must be a finite number"),
    ("timeout", (3, 10), "(3, 10)", "must be a number"),
    ("timeout", None, "None", "must be a number"),
    ("timeout", 10**400, "got 1000", "must be at most 4000000"),
    ("max_retries", -1, "-1", "must be at least 0"),
    ("backoff_initial", 0, "got 0", "must be above 0"),
    ("backoff_max", -5, "-5", "must be above 0"),
    ("backoff_max", 0.5, "0.5 s", "must be at least backoff_initial (1 s)"),
    ("jitter", -0.1, "-0.1", "must be at least 0"),
    ("jitter", 1.1, "1.1", "must be at most 1"),
    ("jitter", True, "True", "must be a number"),
    ("queue_path", 7, "int", "must be a path"),
    ("queue_path", "", "''", "must name a file"),
    ("queue_path", "/", os.sep.replace("\\", "\\\\"), "must name a file"),
    ("queue_path", "queues/..", "..", "must name a file"),
    ("queue_path", "queue\0.db", r"queue\x00.db", "must name a file"),
    ("queue_path", "~no-such-user/queue.db", "~no-such-user", "use an absolute path"),
    ("max_queue_events", 0, "got 0", "must be at least 1"),
    ("max_queue_bytes", 0, "got 0", "must be at least 1"),
    ("max_queue_bytes", 1000, "got 1000", "must be at least max_event_bytes (262144)"),
    ("overflow", "drop_newest", "'drop_newest'", "must be 'drop_oldest' or 'reject'"),
    ("durability", "disk", "'disk'", "must be 'process' or 'power'"),
    ("compression", "zip", "'zip'", "must be None or 'gzip'"),
    ("close_timeout", -1, "-1", "must be at least 0"),
    ("close_timeout", 1e9, "1000000000.0", "must be at most 4000000"),
    ("user_agent", "a\r\nX-Admin: 1", "", "must be a string of printable ASCII"),
    ("user_agent", None, "", "must be a string of printable ASCII"),
    ("headers", None, "NoneType", "must be a mapping"),
    ("headers", {"X A": "1"}, "'X A'", "is not an HTTP token"),
    ("headers", {1: "1"}, "1", "is not an HTTP token"),
    ("headers", {"X-A": "é"}, "['X-A']", "must be a string of printable ASCII"),
    ("headers", {"X-A": "1\n"}, "['X-A']", "must be a string of printable ASCII"),
    ("headers", {"X-A": " 1"}, "['X-A']", "without line breaks or spaces around it"),
    ("headers", {"X-A": 1}, "['X-A']", "must be a string of printable ASCII"),
    ("verify", None, "None", "must be True, False or the path of a CA bundle"),
    ("verify", "/nope.pem", "'/nope.pem'", "give True, False or the path of a CA bundle"),
    ("verify", "maybe", "'maybe'", "give True, False or the path of a CA bundle"),
    ("verify", "a\0b", r"'a\x00b'", "give True, False or the path of a CA bundle"),
    ("verify", __file__, "test_config.py", "holds no certificate in PEM form"),
    ("proxies", "http://proxy", "str", "must be a mapping such as {'https': 'http://proxy:3128'}"),
    ("proxies", {"https": 3128}, "int for 'https'", "must map texts to texts"),
    ("proxies", {"https": None}, "NoneType for 'https'", "must map texts to texts"),
    ("session", object(), "object", "must have a method request()"),
    ("wire", "carrier-pigeon", "'carrier-pigeon'", "'causality-proto' or 'packtrack'"),
    ("wire", object(), "object", "must have a method frame()"),
    ("transport", "http", "str", "must have a method send()"),
    ("fallback", "disk", "'disk'", "must be None or 'memory'"),
    ("take_over", "yes", "'yes'", "must be True or False"),
    ("key_is_destination", 1, "1", "must be True or False"),
    ("strict", 1, "got 1", "must be True or False"),
    ("start", "no", "'no'", "must be True or False"),
    ("enabled", "no", "'no'", "must be True or False"),
    ("debug", 1, "got 1", "must be True or False"),
    ("logger", "causality", "str", "must be a logging.Logger"),
    ("on_delivered", 1, "int", "must be callable"),
    ("on_dropped", "print", "str", "must be callable"),
    ("on_error", [], "list", "must be callable"),
]

# field, what its variable holds, what it is read as
VARIABLES: list[tuple[str, str, object]] = [
    ("api_key", "sk-other", "sk-other"),
    ("endpoint", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
    ("app_id", "till 4", "till 4"),
    ("batch_size", "7", 7),
    ("flush_interval", "0.5", 0.5),
    ("max_batch_events", "8", 8),
    ("max_batch_bytes", "9000", 9000),
    ("max_event_bytes", "4096", 4096),
    ("timeout", "3", 3.0),
    ("max_retries", "0", 0),
    ("backoff_initial", "2e0", 2.0),
    ("backoff_max", "60", 60.0),
    ("jitter", "0", 0.0),
    ("queue_path", os.path.abspath("q.db"), Path("q.db").absolute()),  # noqa: PTH100
    ("max_queue_events", "10", 10),
    ("max_queue_bytes", "1000000", 1_000_000),
    ("overflow", "reject", "reject"),
    ("durability", "power", "power"),
    ("compression", "gzip", "gzip"),
    ("close_timeout", "0", 0.0),
    ("user_agent", "till/1.0", "till/1.0"),
    ("verify", CERTIFI, CERTIFI),
    ("wire", "causality", "causality"),
    ("take_over", "true", True),
    ("key_is_destination", "true", True),
    ("fallback", "memory", "memory"),
    ("strict", "yes", True),
    ("start", "off", False),
    ("enabled", "0", False),
    ("debug", "1", True),
]
ONLY_ARGUMENTS = {
    "headers",
    "logger",
    "on_delivered",
    "on_dropped",
    "on_error",
    "proxies",
    "session",
    "transport",
}


def load(environ: Mapping[str, str] | None = None, **options: Any) -> Config:
    """`Config.load` with the required options, away from the machine's own environment."""
    merged: dict[str, Any] = {**REQUIRED, **options}
    return Config.load(environ or {}, **merged)


def load_one(name: str, value: object) -> Config:
    """`load` with one option, whose name the test has in a variable."""
    options: dict[str, Any] = {name: value}
    return load(**options)


def variable(name: str) -> str:
    return ENV_PREFIX + name.upper()


def everything_about(error: BaseException) -> str:
    """All a log may show of an error: message, arguments, causes and the traceback."""
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.args)


class OwnWire:
    name = "own"
    key_header = "X-API-Key"
    health_path = ""

    def frame(self, payloads: Sequence[bytes]) -> Request:
        return Request("/", b"".join(payloads))

    def verdicts(self, response: Response, count: int) -> Sequence[Verdict]:
        raise NotImplementedError


class OwnTransport:
    def send(self, request: Request, timeout: float) -> Response:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class TestDefaults:
    def test_every_field_has_the_documented_default(self) -> None:
        config = Config(**REQUIRED)
        actual = {spec.name: getattr(config, spec.name) for spec in fields(Config)}
        assert actual == {**DEFAULTS, **REQUIRED}

    def test_every_field_has_a_wrong_value_in_this_file(self) -> None:
        assert {name for name, *_ in WRONG} == set(DEFAULTS)

    def test_config_is_frozen(self) -> None:
        with pytest.raises(FrozenInstanceError):
            load().batch_size = 1  # type: ignore[misc]

    def test_config_takes_keywords_only(self) -> None:
        with pytest.raises(TypeError):
            Config("key", "https://host", "app")  # type: ignore[call-arg]


class TestChecks:
    @pytest.mark.parametrize(("name", "value", "shown", "fix"), WRONG)
    def test_a_wrong_value_is_an_error_with_field_value_and_fix(
        self, name: str, value: object, shown: str, fix: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            load_one(name, value)
        message = str(caught.value)
        assert message.startswith(name)
        assert shown in message
        assert fix in message
        assert KEY not in everything_about(caught.value)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("batch_size", 1),
            ("max_retries", 0),
            ("jitter", 0),
            ("close_timeout", 0),
            ("timeout", 5),
            ("backoff_max", 1.0),
            ("headers", {"X-Tenant": "a b\tc", "X-Empty": ""}),
            ("proxies", {"https": "http://proxy:3128"}),
            ("verify", False),
            ("verify", CERTIFI),
            ("verify", str(Path(CERTIFI).parent)),
            ("session", requests.Session()),
            ("wire", OwnWire()),
            ("transport", OwnTransport()),
            ("fallback", "memory"),
            ("take_over", True),
            ("compression", "gzip"),
            ("on_error", print),
            ("logger", logging.getLogger("elsewhere")),
        ],
    )
    def test_a_right_value_is_kept(self, name: str, value: object) -> None:
        assert getattr(load_one(name, value), name) == value

    @pytest.mark.parametrize("wire", ["causality-proto", CausalityProtoWire("device-1")])
    def test_a_wire_whose_server_reads_no_gzip_refuses_compression(self, wire: object) -> None:
        with pytest.raises(ConfigError, match="compression must be None") as caught:
            load(wire=wire, compression="gzip")
        assert "'causality-proto', got 'gzip'" in str(caught.value)
        assert "leave compression out" in str(caught.value)
        assert load(wire=wire).compression is None

    def test_an_unknown_option_is_an_error_that_lists_the_options(self) -> None:
        with pytest.raises(ConfigError, match="colour is not an option") as caught:
            load(colour=KEY)
        assert "api_key, endpoint, app_id, batch_size" in str(caught.value)
        assert KEY not in everything_about(caught.value)

    def test_everything_that_is_missing_is_told_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Config.load({})
        assert str(caught.value) == (
            "api_key, endpoint and app_id are required: pass api_key=, endpoint= and app_id=, or"
            " set CAUSALITY_API_KEY, CAUSALITY_ENDPOINT and CAUSALITY_APP_ID"
        )
        with pytest.raises(ConfigError, match=r"^endpoint and app_id are required"):
            Config.load({}, api_key=KEY)

    @pytest.mark.parametrize("wire", ["causality", "causality-proto"])
    def test_an_endpoint_with_the_path_of_its_wire_is_refused(self, wire: str) -> None:
        for path in ("/v1/events/batch", "/v1/events", "/health"):
            with pytest.raises(ConfigError, match=r"^endpoint must be the base URL"):
                load(endpoint=f"https://host{path}", wire=wire)
        with pytest.raises(ConfigError, match=r"without the path /api/ingest.*; use https://host$"):
            load(endpoint="https://host/api/ingest", wire="packtrack")
        assert load(endpoint="https://host/api/ingest").endpoint == "https://host/api/ingest"
        own = load(endpoint="https://host/v1/events/batch", wire=OwnWire())
        assert own.endpoint == "https://host/v1/events/batch"

    def test_an_endpoint_below_v1_is_taken_and_told_of_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        for _ in range(2):
            assert load(endpoint="https://stages/v1").endpoint == "https://stages/v1"
        (line,) = caplog.messages
        assert "requests go to https://stages/v1/v1/events/batch" in line

    def test_a_relative_bundle_is_found_after_a_change_of_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "own.pem").write_bytes(Path(CERTIFI).read_bytes()[:4000])
        monkeypatch.chdir(tmp_path)
        assert load(verify="own.pem").verify == str(tmp_path / "own.pem")
        assert load(verify=Path("own.pem")).verify == str(tmp_path / "own.pem")

    def test_headers_of_the_caller_changed_later_do_not_change_the_config(self) -> None:
        headers = {"X-A": "1"}
        config = load(headers=headers)
        headers["X-B"] = "not checked\n"
        assert config.headers == {"X-A": "1"}

    @pytest.mark.parametrize(
        ("given_url", "kept"),
        [
            ("https://host", "https://host"),
            ("https://host/", "https://host"),
            ("https://host/a/b//", "https://host/a/b"),
            (" https://host:8443/ \n", "https://host:8443"),
            ("HTTP://[::1]:80/x", "HTTP://[::1]:80/x"),
        ],
    )
    def test_the_endpoint_loses_its_trailing_slash_only(self, given_url: str, kept: str) -> None:
        assert load(endpoint=given_url).endpoint == kept

    @given(st.text())
    def test_any_text_for_an_endpoint_is_taken_or_a_config_error(self, text: str) -> None:
        try:
            config = load(endpoint=text)
        except ConfigError as error:
            assert str(error).startswith("endpoint")  # noqa: PT017
        else:
            assert config.endpoint.lower().startswith(("http://", "https://"))


class TestDisabled:
    def test_disabled_needs_nothing(self) -> None:
        assert Config(enabled=False).enabled is False
        assert Config.load({}, enabled=False).enabled is False
        assert Config.load({"CAUSALITY_ENABLED": "false"}).enabled is False

    def test_disabled_accepts_what_would_be_wrong(self) -> None:
        assert Config(enabled=False, endpoint="nowhere", batch_size=0).enabled is False


class TestEnvironment:
    def test_every_field_is_plain_or_an_argument_only(self) -> None:
        plain = {name for name, *_ in VARIABLES}
        assert plain | ONLY_ARGUMENTS == set(DEFAULTS)
        assert plain & ONLY_ARGUMENTS == set()

    @pytest.mark.parametrize(("name", "text", "value"), VARIABLES)
    def test_a_variable_gives_its_field(self, name: str, text: str, value: object) -> None:
        environ = {variable(key): given for key, given in REQUIRED.items()}
        config = Config.load({**environ, variable(name): text})
        assert getattr(config, name) == value
        assert type(getattr(config, name)) is type(value)

    @pytest.mark.parametrize(("name", "text", "value"), VARIABLES)
    def test_an_argument_wins_over_the_environment_which_wins_over_the_default(
        self, name: str, text: str, value: object
    ) -> None:
        environ = {variable(key): given for key, given in REQUIRED.items()}
        assert getattr(Config.load({**environ, variable(name): text}), name) == value
        argument = {**DEFAULTS, **REQUIRED}[name]
        config = Config.load({**environ, variable(name): text}, **{name: argument})
        assert getattr(config, name) == argument

    @pytest.mark.parametrize("name", [name for name, *_ in VARIABLES])
    def test_an_empty_variable_counts_as_unset(self, name: str) -> None:
        environ = {variable(key): given for key, given in REQUIRED.items()}
        if name in REQUIRED:
            with pytest.raises(ConfigError, match=f"^{name} is required"):
                Config.load({**environ, variable(name): ""})
        else:
            config = Config.load({**environ, variable(name): ""})
            assert getattr(config, name) == DEFAULTS[name]

    @pytest.mark.parametrize("name", sorted(ONLY_ARGUMENTS))
    def test_a_field_that_is_not_plain_is_not_read(self, name: str) -> None:
        assert getattr(load({variable(name): "anything"}), name) == DEFAULTS[name]

    @pytest.mark.parametrize(
        ("name", "text", "fix"),
        [
            ("batch_size", "many", "must be a whole number, got 'many'"),
            ("batch_size", "1.5", "must be a whole number, got '1.5'"),
            ("timeout", "soon", "must be a number, got 'soon'"),
            ("strict", "maybe", "must be true or false, got 'maybe'"),
        ],
    )
    def test_a_variable_that_cannot_be_read_is_an_error_with_its_name(
        self, name: str, text: str, fix: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            load({variable(name): text})
        assert str(caught.value) == f"{variable(name)} {fix}"

    @pytest.mark.parametrize(
        ("name", "text"),
        [("batch_size", "-1"), ("timeout", "inf"), ("jitter", "nan"), ("durability", "disk")],
    )
    def test_a_value_out_of_bounds_is_an_error_in_the_environment_too(
        self, name: str, text: str
    ) -> None:
        with pytest.raises(ConfigError, match=f"^{name} must be"):
            load({variable(name): text})

    @pytest.mark.parametrize("word", ["1", "true", "YES", "On", " true "])
    def test_words_for_true(self, word: str) -> None:
        config = load({"CAUSALITY_STRICT": word, "CAUSALITY_VERIFY": word})
        assert (config.strict, config.verify) == (True, True)

    @pytest.mark.parametrize("word", ["0", "false", "NO", "Off"])
    def test_words_for_false(self, word: str) -> None:
        config = load({"CAUSALITY_START": word, "CAUSALITY_VERIFY": word})
        assert (config.start, config.verify) == (False, False)

    def test_load_reads_the_environment_of_the_process(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CAUSALITY_BATCH_SIZE", "12")
        assert Config.load(None, **REQUIRED).batch_size == 12

    def test_config_itself_reads_no_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CAUSALITY_BATCH_SIZE", "12")
        assert Config(**REQUIRED).batch_size == 50

    def test_a_misspelt_variable_is_told_of_once(self, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(2):
            load({"CAUSALITY_JITTERR": "0"})
        assert caplog.messages == [
            "causality: CAUSALITY_JITTERR is not read; did you mean CAUSALITY_JITTER?"
        ]

    def test_a_value_out_of_bounds_says_which_variable_it_came_from(self) -> None:
        with pytest.raises(ConfigError, match=r"got -1 \(from CAUSALITY_BATCH_SIZE\)$"):
            load({"CAUSALITY_BATCH_SIZE": "-1"})
        with pytest.raises(ConfigError, match=r"got -1$"):
            load({"CAUSALITY_BATCH_SIZE": "7"}, batch_size=-1)

    def test_other_variables_with_the_prefix_are_left_alone(self) -> None:
        assert load({"CAUSALITY_SOMETHING": "x"}) == load()


class TestTheKeyInAFile:
    """Secrets of Docker and Kubernetes are mounted as files."""

    @pytest.mark.parametrize(
        ("load_from", "prefix"), [(Config.load, "CAUSALITY"), (PackTrackConfig.load, "PACKTRACK")]
    )
    def test_it_is_read_without_its_line_break(
        self, tmp_path: Path, load_from: Callable[..., Any], prefix: str
    ) -> None:
        variable, options = f"{prefix}_API_KEY_FILE", REQUIRED.copy()
        del options["api_key"]
        if prefix == "PACKTRACK":
            options = {}
        file = tmp_path / "key"
        for text in (KEY, f"{KEY}\n", f"{KEY}\r\n", f"\ufeff{KEY}"):
            file.write_bytes(text.encode())
            assert load_from({variable: str(file)}, **options).api_key == KEY
        # The argument wins, and then the file is not even opened.
        found = load_from({variable: "/nowhere"}, **options, api_key="mine")
        assert found.api_key == "mine"
        with pytest.raises(ConfigError, match="are both set; set one of them") as caught:
            load_from({variable: str(file), f"{prefix}_API_KEY": KEY}, **options)
        assert KEY not in everything_about(caught.value)
        assert load_from({variable: "", f"{prefix}_API_KEY": KEY}, **options).api_key == KEY

    @pytest.mark.parametrize(
        ("content", "fix"),
        [
            (None, "cannot be read: No such file or directory"),
            (b"", "is empty; write the api key into it"),
            (b"\n", "is empty"),
            (b"\xff\xfe", "cannot be read: it is not text"),
        ],
    )
    def test_what_is_wrong_with_the_file_is_told(
        self, tmp_path: Path, content: bytes | None, fix: str
    ) -> None:
        file = tmp_path / "key"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            Config.load({"CAUSALITY_API_KEY_FILE": str(file)})
        assert str(caught.value).startswith(f"CAUSALITY_API_KEY_FILE {file} {fix}")

    def test_a_key_that_is_wrong_names_the_variable_and_not_the_key(self, tmp_path: Path) -> None:
        file = tmp_path / "key"
        file.write_text(f"{KEY}\n\n")
        with pytest.raises(ConfigError, match=r"\(from CAUSALITY_API_KEY_FILE\)") as caught:
            Config.load({"CAUSALITY_API_KEY_FILE": str(file)}, endpoint="http://x", app_id="a")
        assert KEY not in everything_about(caught.value)

    def test_tracking_that_is_switched_off_needs_no_file(self) -> None:
        environ = {"CAUSALITY_API_KEY_FILE": "/nowhere", "CAUSALITY_ENABLED": "false"}
        assert Config.load(environ).enabled is False


def _unreadable_environment() -> object:
    return load({"CAUSALITY_API_KEY": KEY, "CAUSALITY_TIMEOUT": "x"})


class TestTheKeyIsShownNowhere:
    def test_not_in_repr_or_str(self) -> None:
        config = load(headers={"Authorization": KEY}, proxies={"https": f"http://u:{KEY}@p"})
        for shown in (repr(config), str(config), f"{config}", repr([config])):
            assert KEY not in shown

    def test_a_copy_and_a_pickle_keep_the_key(self) -> None:
        config = load()
        assert copy.deepcopy(config).api_key == KEY
        assert pickle.loads(pickle.dumps(config)).api_key == KEY  # noqa: S301

    @pytest.mark.parametrize(
        "key",
        [KEY + "\n", "\r\n" + KEY, KEY + "\r\nX-Admin: 1", KEY + " ", KEY + "\0", KEY + "é"],
    )
    def test_not_in_the_error_about_a_wrong_key(self, key: str) -> None:
        with pytest.raises(ConfigError, match=r"^api_key must be printable ASCII") as caught:
            load(api_key=key)
        assert KEY not in everything_about(caught.value)
        with pytest.raises(ConfigError) as caught:
            Config.load({**{variable(k): v for k, v in REQUIRED.items()}, variable("api_key"): key})
        assert KEY not in everything_about(caught.value)

    @pytest.mark.parametrize("key", [KEY.encode(), [KEY], {"key": KEY}])
    def test_not_in_the_error_about_a_key_of_a_wrong_type(self, key: object) -> None:
        with pytest.raises(ConfigError, match=r"^api_key must be a string") as caught:
            load(api_key=key)
        assert KEY not in everything_about(caught.value)

    @pytest.mark.parametrize(
        "endpoint",
        [
            f"https://user:{KEY}@host",
            f"https://{KEY}@host",
            f"https://user:a/{KEY}@host",
            f"https://user:a?{KEY}@host",
            f"https://a@{KEY}@host",
            f"user:{KEY}@host",
            f"//user:{KEY}@host",
            f"https://host/?key={KEY}",
            f"https://host/#{KEY}",
            f"https://u@host/?{KEY}",
            f"host?{KEY}",
        ],
    )
    def test_not_in_the_error_about_an_endpoint_that_holds_it(self, endpoint: str) -> None:
        with pytest.raises(ConfigError, match=r"^endpoint must not") as caught:
            load(endpoint=endpoint)
        assert KEY not in everything_about(caught.value)

    def test_not_in_the_error_when_key_and_endpoint_are_swapped(self) -> None:
        with pytest.raises(ConfigError, match="swapped") as caught:
            load(api_key="https://events.example.com", endpoint=KEY)
        assert KEY not in everything_about(caught.value)

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda: load(headers={"Authorization": KEY + "\n"}),
            lambda: load(user_agent=KEY + "\n"),
            lambda: load(proxies=f"http://user:{KEY}@proxy"),
            _unreadable_environment,
        ],
    )
    def test_not_in_the_error_about_another_option(self, wrong: Callable[[], object]) -> None:
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert KEY not in everything_about(caught.value)


NASTY_IDS = [
    "kiosk-7", "../x", "..", ".", "...", ". .", "a/b", "a\\b", "a%2Fb", "a:b", "con:1", "con",
    "CON.txt", "%63on", "nul", "lpt1", "ünï", "u\u0308ni\u0308", "a.", "a", "a ", " a", "a%20",
    "/etc/passwd", "~", "~root", "C:\\x", "a\0b", "a\nb", "*?", "$HOME", "x" * 60, "",
]  # fmt: skip


class TestQueuePath:
    @pytest.fixture(autouse=True)
    def _own_data_dir(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        monkeypatch.setenv("HOME", str(tmp_path))

    def test_the_default_lies_in_the_user_data_directory(self) -> None:
        base = Path(platformdirs.user_data_dir("causality", appauthor=False))
        assert load().resolved_queue_path == base / "kiosk-7" / "queue.db"

    @pytest.mark.parametrize("app_id", NASTY_IDS[:-1])
    def test_no_app_id_leaves_the_user_data_directory(self, app_id: str) -> None:
        base = Path(platformdirs.user_data_dir("causality", appauthor=False))
        directory = default_queue_path(app_id).parent
        assert directory.parent == base
        assert Path(os.path.normpath(directory)) == directory
        assert directory.name not in ("", ".", "..")
        directory.mkdir(parents=True)
        assert [entry.name for entry in base.iterdir()] == [directory.name]

    def test_no_two_app_ids_share_a_directory(self) -> None:
        paths = [default_queue_path(app_id) for app_id in NASTY_IDS]
        assert len(set(paths)) == len(NASTY_IDS)

    @given(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        )
    )
    def test_paths_are_equal_only_for_equal_ids(self, ids: tuple[str, str]) -> None:
        first, second = (default_queue_path(app_id) for app_id in ids)
        assert (first == second) == (ids[0] == ids[1])

    @pytest.mark.parametrize("app_id", ["con", "CON", "nul.txt", "Lpt9", "a.", "a "])
    def test_no_directory_has_a_name_that_windows_keeps(self, app_id: str) -> None:
        name = default_queue_path(app_id).parent.name
        assert name.partition(".")[0].lower() not in ("con", "nul", "lpt9")
        assert not name.endswith((".", " "))

    def test_a_queue_path_of_ones_own_is_taken(self, tmp_path: Path) -> None:
        config = load(queue_path=tmp_path / "own.db")
        assert config.queue_path == config.resolved_queue_path == tmp_path / "own.db"

    def test_a_relative_path_is_made_absolute_before_anybody_changes_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        config = load(queue_path="queues/own.db")
        monkeypatch.chdir("/")
        assert config.resolved_queue_path == tmp_path / "queues" / "own.db"

    @pytest.mark.skipif(os.name == "nt", reason="Windows keeps a directory that is in use")
    def test_a_relative_path_in_a_directory_that_is_gone_is_a_config_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        (tmp_path / "gone").rmdir()
        for option in ("queue_path", "verify"):
            with pytest.raises(ConfigError, match=f"^{option} .*use an absolute path|^{option}"):
                load_one(option, "own.db")
        with pytest.raises(ConfigError, match=r"the working directory is gone; use an absolute"):
            load(queue_path="own.db")
        assert load(queue_path=tmp_path / "own.db").queue_path == tmp_path / "own.db"

    @pytest.mark.skipif(os.name == "nt", reason="HOME is the home directory on POSIX only")
    def test_a_tilde_is_the_home_directory(self, tmp_path: Path) -> None:
        assert load(queue_path="~/own.db").resolved_queue_path == tmp_path / "own.db"
