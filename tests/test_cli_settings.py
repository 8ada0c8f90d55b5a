"""Options of the command line: which layer wins, what is shown, what stays secret."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest
from shell import KEY, Shell

from causality_sdk import Config, ConfigError
from causality_sdk.cli.option_words import PROGRAM_ONLY
from causality_sdk.cli.options import ConfigOption, client_options
from causality_sdk.cli.settings import FIELDS, Settings, flag_name


def resolve(tmp_path: Path, text: str = "", *, flags: object = None, **environ: str) -> Settings:
    path = tmp_path / "config.toml"
    path.write_text(text)
    given = flags if isinstance(flags, dict) else {}
    return Settings.resolve(given, path, environ)


class TestPrecedence:
    def test_flag_environment_file_default_in_that_order(self, tmp_path: Path) -> None:
        text = "batch_size = 3\nmax_retries = 3\ntimeout = 3.0\n"
        found = resolve(
            tmp_path, text, flags={"batch_size": 1},
            CAUSALITY_BATCH_SIZE="2", CAUSALITY_MAX_RETRIES="2",
        )  # fmt: skip
        sources = {
            name: (found[name], found.values[name].source)
            for name in ("batch_size", "max_retries", "timeout", "close_timeout")
        }
        assert sources == {
            "batch_size": (1, "flag"),
            "max_retries": (2, "environment"),
            "timeout": (3.0, "file"),
            "close_timeout": (2.0, "default"),
        }
        assert found.values["max_retries"].detail == "CAUSALITY_MAX_RETRIES"
        assert found.values["timeout"].detail == str(tmp_path / "config.toml")

    def test_a_key_file_stands_for_the_key_in_its_layer(self, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("from-file\n")
        key = str(tmp_path / "key")
        assert resolve(tmp_path, f"api_key_file = '{key}'")["api_key"] == "from-file"
        found = resolve(tmp_path, f"api_key_file = '{key}'", CAUSALITY_API_KEY="from-environ")
        assert found["api_key"] == "from-environ"
        found = resolve(tmp_path, flags={"api_key_file": key}, CAUSALITY_API_KEY="from-environ")
        assert (found["api_key"], found.values["api_key"].source) == ("from-file", "flag")

    def test_headers_and_proxies_come_from_every_layer(self, tmp_path: Path) -> None:
        text = '[headers]\nX-Tenant = "a"\n[proxies]\nhttps = "http://proxy:3128"\n'
        found = resolve(tmp_path, text, CAUSALITY_HEADERS='{"X-Tenant":"b"}')
        assert found["headers"] == {"X-Tenant": "b"}
        assert found["proxies"] == {"https": "http://proxy:3128"}

    def test_an_empty_variable_counts_as_not_set(self, tmp_path: Path) -> None:
        assert resolve(tmp_path, CAUSALITY_BATCH_SIZE="").is_default("batch_size")

    @pytest.mark.parametrize(
        ("text", "environ", "complaint"),
        [
            ("batchsize = 1", {}, "batchsize is not an option; did you mean batch_size?"),
            ("write_key = 'secret'", {}, "write_key is not an option; here it is api_key"),
            ("colour = 1", {}, "colour is not an option; the options are api_key"),
            (f"api_key_file = '{os.devnull}'", {}, "is empty; write the api key into it"),
            ("batch_size = ", {}, "is not TOML"),
            ("api_key = 'secret'\napi_key_file = 'x'", {}, "are both given"),
            ("api_key_file = '/nowhere'", {}, "/nowhere cannot be read: No such file"),
            ("", {"CAUSALITY_BATCH_SIZE": "x"}, "CAUSALITY_BATCH_SIZE must be a whole number"),
            ("", {"CAUSALITY_HEADERS": "secret"}, "must be a JSON object"),
        ],
    )
    def test_a_mistake_is_named_and_no_secret_with_it(
        self, tmp_path: Path, text: str, environ: dict[str, str], complaint: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve(tmp_path, text, **environ)
        assert complaint in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_a_wrong_value_says_where_it_comes_from(self, tmp_path: Path) -> None:
        need = "api_key = 'k'\napp_id = 'a'\nendpoint = 'http://x'\n"
        with pytest.raises(ConfigError) as caught:
            resolve(tmp_path, f"{need}flush_interval = '3'").config()
        assert str(caught.value) == (
            f"flush_interval must be a number, got '3' (from config file {tmp_path}/config.toml)"
        )
        with pytest.raises(ConfigError, match=r"got -1.0 \(from CAUSALITY_JITTER\)$"):
            resolve(tmp_path, need, CAUSALITY_JITTER="-1").config()
        with pytest.raises(ConfigError, match=r"got -1.0 \(from --jitter\)$"):
            resolve(tmp_path, need, flags={"jitter": -1.0}).config()

    def test_everything_that_is_missing_is_told_at_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            resolve(tmp_path).config()
        assert str(caught.value) == (
            "api_key, endpoint and app_id are required: give --api-key-file FILE, --endpoint … and"
            " --app-id …, set CAUSALITY_API_KEY, CAUSALITY_ENDPOINT and CAUSALITY_APP_ID, or write"
            f" api_key = …, endpoint = … and app_id = … into {tmp_path}/config.toml"
        )
        with pytest.raises(ConfigError, match=r"^endpoint is required: give --endpoint …, set"):
            resolve(tmp_path, "api_key = 'k'\napp_id = 'a'").config()

    def test_a_config_file_that_was_named_must_be_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="does not exist"):
            Settings.resolve({}, tmp_path / "nowhere.toml", {})


class TestFlags:
    def test_every_field_that_can_be_given_has_a_flag_with_a_help(self) -> None:
        @click.command()
        @client_options
        def command() -> None: ...

        options = {each.field: each for each in command.params if isinstance(each, ConfigOption)}
        assert list(options) == [name for name in FIELDS if name not in PROGRAM_ONLY]
        assert set(Config.__dataclass_fields__) - set(FIELDS) == {
            "session", "transport", "logger", "on_delivered", "on_dropped", "on_error",
        }  # fmt: skip
        for name, option in options.items():
            assert flag_name(name) in option.opts
            assert len(option.help) > 10, name

    def test_they_all_reach_the_config(self, tmp_path: Path) -> None:
        shell = Shell(tmp_path)
        arguments = [
            "--batch-size", "7", "--flush-interval", "7.5", "--attempt-timeout", "3",
            "--overflow", "reject", "--durability", "power", "--gzip", "--no-verify-placeholder",
            "--header", "X-Tenant=a=b", "--proxy", "https=http://u:hidden@p:1", "--take-over",
            "--queue-path", "x.db", "--verify", "no",
        ]  # fmt: skip
        arguments.remove("--no-verify-placeholder")
        options = shell("config", "--json", *arguments).json["options"]
        values = {name: each["value"] for name, each in options.items() if each["source"] == "flag"}
        assert values == {
            "batch_size": 7, "flush_interval": 7.5, "timeout": 3.0, "overflow": "reject",
            "durability": "power", "compression": "gzip", "headers": {"X-Tenant": "***"},
            "proxies": {"https": "http://...@p:1"}, "take_over": True, "queue_path": "x.db",
            "verify": False,
        }  # fmt: skip

    def test_the_key_on_the_command_line_is_warned_of(self, tmp_path: Path) -> None:
        result = Shell(tmp_path)("track", "a", "--no-flush", "--api-key", KEY)
        assert "others see --api-key in the list of processes" in result.err

    def test_the_key_is_no_positional_and_not_echoed(self, tmp_path: Path) -> None:
        shell = Shell(tmp_path)
        for arguments in (["health", "--api-key", f"{KEY}\n"], ["config", "--api-key", "é" + KEY]):
            shell(*arguments, code=1)


class TestConfigCommand:
    def test_it_shows_value_and_origin_and_masks_the_key(self, tmp_path: Path) -> None:
        shell = Shell(tmp_path)
        (tmp_path / "c.toml").write_text("max_retries = 9\n")
        out = shell("config", "--config", tmp_path / "c.toml").out
        lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
        assert lines["api_key"] == ["***", "environment", "CAUSALITY_API_KEY"]
        assert lines["max_retries"] == ["9", "file", str(tmp_path / "c.toml")]
        assert lines["batch_size"] == ["50", "default"]
        assert out.splitlines()[-1] == f"config file: {tmp_path / 'c.toml'}"

    def test_it_finds_the_file_of_the_user(self, tmp_path: Path) -> None:
        if os.name == "nt":
            pytest.skip("the place follows no variable there")
        shell = Shell(tmp_path)
        place = Path(shell("config", "--json").json["config_file"])
        assert place.is_relative_to(tmp_path)
        place.parent.mkdir(parents=True)
        place.write_text("max_retries = 9\n")
        found = shell("config", "--json").json
        assert found["config_file_exists"]
        assert found["options"]["max_retries"]["value"] == 9

    def test_1_what_no_client_could_use_is_shown_and_said(self, tmp_path: Path) -> None:
        result = Shell(tmp_path)("config", "--json", "--batch-size", "0", code=1)
        assert "batch_size must be at least 1" in result.json["problem"]
        assert "batch_size must be at least 1" in result.err
