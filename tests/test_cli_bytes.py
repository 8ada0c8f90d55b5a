"""Any bytes that a person can have: in names, in the environment, in files. No command stumbles."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shell import KEY, NOWHERE, SECONDS, Shell

from causality_sdk.cli.settings import FLAGS
from causality_sdk.cli.words import (
    cut,
    escaped,
    in_shell,
    json_bytes,
    json_for_people,
    json_text,
    padded,
    printable,
    width,
)

NEEDS_ANY_NAME = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="macOS and Windows have names of text only"
)

LATIN = b"caf\xe9"  # in Latin-1; no UTF-8
EVENT = b'{"event_type":"a","idempotency_key":"k-1","timestamp_ms":1700000000000,"app_id":"shop"}'


class Bytes:
    """A user whose files are named in Latin-1."""

    def __init__(self, home: Path) -> None:
        self.home = os.fsencode(home) + b"/" + LATIN
        Path(os.fsdecode(self.home)).mkdir()
        self.queue = self.home + b"/q\x1b[2J/queue.db"
        environ = Shell(home, NOWHERE).environ
        self.environ = {os.fsencode(name): os.fsencode(text) for name, text in environ.items()} | {
            b"HOME": self.home,
            b"CAUSALITY_QUEUE_PATH": self.queue,
            b"CAUSALITY_MAX_RETRIES": b"0",
        }
        self.file("events", EVENT + b"\n")

    def file(self, name: str, data: bytes) -> bytes:
        path = self.home + b"/" + name.encode() + LATIN
        with open(path, "wb") as file:  # noqa: PTH123 (a path of bytes)
            file.write(data)
        return path

    def __call__(self, *arguments: str | bytes, **environ: bytes) -> tuple[int, bytes, bytes]:
        """Runs it; the code, stdout, stderr. Never a traceback, never the key."""
        given = {os.fsencode(name): value for name, value in environ.items()}
        process = subprocess.run(
            [os.fsencode(sys.executable), b"-m", b"causality_sdk", *map(os.fsencode, arguments)],
            env=self.environ | given, capture_output=True, timeout=SECONDS, check=False,
            cwd=self.home, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        for stream in (process.stdout, process.stderr):
            assert b"Traceback" not in stream, stream.decode(errors="replace")
            assert b"\x1b" not in stream
            assert KEY.encode() not in stream
        assert process.returncode in range(6), process.stderr
        return process.returncode, process.stdout, process.stderr


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a user in whose queue an event waits."""
    place = tmp_path_factory.mktemp("filled")
    user = Bytes(place)
    assert user("queue", "import", b"events" + LATIN)[0] == 0
    return Path(os.fsdecode(user.home))


@pytest.fixture
def user(tmp_path: Path, filled: Path) -> Bytes:
    found = Bytes(tmp_path)
    shutil.rmtree(found.home)
    shutil.copytree(filled, os.fsdecode(found.home))
    return found


def lines(stream: bytes) -> list[Any]:
    """Each line as JSON, read by a strict reader."""
    import orjson

    return [orjson.loads(line) for line in stream.splitlines()]


EVERY = [
    ["track", "x", "--no-flush"],
    ["track", LATIN, "--no-flush"],
    ["track", "x", b"k=" + LATIN, "--no-flush"],
    ["track", "x", b"k:=" + LATIN, "--no-flush"],
    ["track", "x", LATIN + b"=1", "--no-flush"],
    ["track", "x", "--properties", LATIN],
    ["track", "x", "--user-id", LATIN],
    ["track", "x", "--timestamp", LATIN],
    ["track", "x", "--idempotency-key", LATIN],
    ["track", "--file", LATIN],
    ["track", "--file", ""],
    ["track", "--file", b"events" + LATIN, "--no-flush"],
    ["track", "--ndjson", b"events" + LATIN, "--no-flush", "--dry-run"],
    ["track", "x", "--app-id", LATIN, "--no-flush"],
    ["track", "x", "--endpoint", b"http://" + LATIN],
    ["track", "x", "--api-key", LATIN],
    ["track", "x", "--api-key-file", LATIN],
    ["track", "x", "--config", LATIN],
    ["track", "x", "--header", LATIN + b"=" + LATIN, "--no-flush"],
    ["track", "x", "--proxy", b"http=" + LATIN, "--no-flush"],
    ["track", "x", "--wire", LATIN],
    ["track", "x", "--verify", LATIN, "--timeout", "1"],
    ["track", "x", "--queue-path", LATIN + b"/" + LATIN + b".db", "--no-flush"],
    ["send", "x", "--spool"],
    ["send", "--file", b"events" + LATIN],
    ["queue", "status"],
    ["queue", "list"],
    ["queue", "list", "--type", LATIN, "--key", LATIN],
    ["queue", "list", "--since", LATIN],
    ["queue", "show", "k-1"],
    ["queue", "show", LATIN],
    ["queue", "export"],
    ["queue", "export", "--format", "csv"],
    ["queue", "export", "--format", "table"],
    ["queue", "export", "--output", LATIN + b".gz"],
    ["queue", "export", "--output", LATIN + b"/" + LATIN],
    ["queue", "import", b"events" + LATIN],
    ["queue", "import", LATIN],
    ["queue", "replay"],
    ["queue", "replay", "--dry-run"],
    ["queue", "purge", "--dry-run"],
    ["queue", "purge", "--yes", "--type", LATIN],
    ["queue", "doctor"],
    ["queue", "status", "--queue-path", LATIN],
    ["dead-letters", "list"],
    ["dead-letters", "show", LATIN],
    ["dead-letters", "requeue", LATIN],
    ["dead-letters", "delete", "--all", "--yes"],
    ["health"],
    ["config"],
    ["demo", "--file", LATIN],
    ["bench", "--directory", LATIN],
    ["completion", LATIN],
    [LATIN],
    [b"--" + LATIN],
    ["queue", LATIN],
]


@NEEDS_ANY_NAME
@pytest.mark.parametrize(
    "arguments", EVERY, ids=lambda words: b" ".join(map(os.fsencode, words)).decode("latin-1")
)
def test_no_command_stumbles_over_names_that_are_no_text(
    user: Bytes, filled: Path, arguments: list[str | bytes]
) -> None:
    """With --json, and without it where the terminal knows ASCII alone."""
    code, _, said = user(*arguments, PYTHONIOENCODING=b"ascii", LC_ALL=b"C")
    shutil.rmtree(user.home)
    shutil.copytree(filled, os.fsdecode(user.home))
    if arguments[0] in (LATIN, b"--" + LATIN, "completion") or arguments == ["queue", LATIN]:
        return  # no command that has --json
    again, found, errors = user(*arguments, "--json")
    assert again == code or b"--json prints NDJSON" in errors, said
    if "export" not in arguments:
        lines(found)
    lines(errors)


@NEEDS_ANY_NAME
def test_a_name_that_is_no_text_is_shown_escaped(user: Bytes) -> None:
    user("track", "x", "--no-flush")
    _, text, _ = user("queue", "status")
    assert rb"caf\xe9/q\x1b[2J/queue.db" in text
    _, found, _ = user("queue", "status", "--json")
    (document,) = lines(found)
    assert "caf\\xe9/q\x1b[2J/queue.db" in document["files"][0]["path"]


@NEEDS_ANY_NAME
@pytest.mark.parametrize(
    "name",
    [
        "API_KEY", "ENDPOINT", "APP_ID", "QUEUE_PATH", "CONFIG", "API_KEY_FILE", "HEADERS",
        "PROXIES", "VERIFY", "WIRE", "USER_AGENT", "BATCH_SIZE", "OVERFLOW", "ENABLED", "TIMEOUT",
        "NO_SUCH_OPTION",
    ],
)  # fmt: skip
def test_no_variable_makes_a_command_stumble(user: Bytes, name: str) -> None:
    given = {f"CAUSALITY_{name}": LATIN}
    for arguments in (["config"], ["track", "x", "--no-flush"], ["queue", "status"]):
        user(*arguments, **given)
        _, found, errors = user(*arguments, "--json", **given)
        lines(found)
        lines(errors)


class TestFiles:
    """Of events, of options, of the key."""

    @pytest.fixture
    def shell(self, tmp_path: Path) -> Shell:
        return Shell(tmp_path)

    @pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
    @pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
    def test_a_mark_of_utf8_and_the_line_ends_of_windows_are_read_over(
        self, shell: Shell, mark: bytes, ending: bytes
    ) -> None:
        data = mark + ending.join([EVENT, EVENT.replace(b"k-1", b"k-2"), b""])
        for arguments in (["track", "-"], ["track", "--ndjson", "-"], ["queue", "import", "-"]):
            out = shell(*arguments, "--dry-run", stdin=data).lines
            assert [event["idempotency_key"] for event in out] == ["k-1", "k-2"]
        array = mark + b"[" + EVENT + b"," + ending + EVENT + b"]"
        assert len(shell("track", "-", "--dry-run", stdin=array).lines) == 2

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
    @pytest.mark.parametrize("options", [["--file", "-"], ["--ndjson", "-"]])
    def test_what_is_utf16_is_named_with_the_fix(
        self, shell: Shell, encoding: str, options: list[str]
    ) -> None:
        mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
        data = mark + EVENT.decode().encode(encoding)
        result = shell("track", *options, "--no-flush", stdin=data, code=4)
        assert f"iconv -f {encoding.upper()[:6]} -t UTF-8" in result.err

    @pytest.mark.parametrize(
        ("line", "code"),
        [
            (b"\x00", 4),
            (b'{"event_type":"a\x00"}', 4),
            (b'{"event_type":"\\u0000"}', 0),
            (b'{"event_type":"caf\xe9"}', 4),
            (b'{"event_type":"\\ud800"}', 1),
            (b'{"event_type":"a","properties":{"\\udce9":1}}', 1),
            (b'{"\\udce9":"a"}', 1),
            (EVENT.decode().encode("utf-16-le"), 4),
            ('{"event_type":"日本\u202e"}'.encode(), 0),
            (b'{"event_type":"' + b"[" * 300_000 + b'"}', 1),
            (b"[" * 100_000, 4),
            (b'{"event_type":"a","properties":{"n":' + b"9" * 5000 + b"}}", 0),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("options", [[], ["--json"], ["--on-error", "skip", "--json"]])
    def test_a_line_of_any_bytes_is_an_event_or_named(
        self, shell: Shell, line: bytes, code: int, options: list[str]
    ) -> None:
        wanted = 0 if "skip" in options else code
        arguments = ("track", "--ndjson", "-", "--no-flush", *options)
        result = shell(*arguments, stdin=line + b"\n", code=wanted)
        if options:
            lines(result.out.encode())
            lines(result.err.encode())
        else:
            shell("queue", "list")
            shell("queue", "export", "--format", "csv")

    @pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
    @pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
    def test_options_and_key_may_be_written_on_windows(
        self, shell: Shell, mark: bytes, ending: bytes
    ) -> None:
        (shell.home / "key").write_bytes(mark + b"k-from-file" + ending)
        place = (shell.home / "key").as_posix()
        text = ending.join([b'app_id = "toml"', b'api_key_file = "%s"' % place.encode(), b""])
        (shell.home / "c.toml").write_bytes(mark + text)
        unset: Any = {"CAUSALITY_API_KEY": "", "CAUSALITY_APP_ID": ""}
        found = shell("config", "--json", "--config", shell.home / "c.toml", **unset).json
        assert found["options"]["app_id"]["value"] == "toml"
        assert found["problem"] is None

    @pytest.mark.parametrize(
        "data",
        [
            b"\xff\xfea\x00", b"app_id = '\xe9'", b"\x00", b"app_id = \"\\ud800\"",
            b'queue_path = "\\u0000"', b'api_key_file = "\\u0000"', b'"\\u001b" = 1',
        ],
    )  # fmt: skip
    def test_a_config_file_of_any_bytes_is_named(self, shell: Shell, data: bytes) -> None:
        path = shell.home / "c.toml"
        path.write_bytes(data)
        environ: Any = {"CAUSALITY_QUEUE_PATH": "", "CAUSALITY_API_KEY": ""}
        for command in (["config"], ["queue", "status"], ["track", "x"]):
            result = shell(*command, "--config", path, code=1, **environ)
            assert "Error: " in result.err
            assert "\x1b" not in result.err

    @pytest.mark.parametrize("data", [b"\xff\xfek\x00", b"k\xe9", b"\x00", b"k\x00", b""])
    def test_a_key_file_of_any_bytes_is_named(self, shell: Shell, data: bytes) -> None:
        path = shell.home / "key"
        path.write_bytes(data)
        result = shell("track", "x", "--api-key-file", path, code=1, CAUSALITY_API_KEY="")
        assert "api_key" in result.err


class TestWords:
    """What terminals and JSON get."""

    def test_what_cannot_be_shown_is_escaped(self) -> None:
        assert printable("a\nb\tc") == "a b c"
        assert printable("\x1b[2J\x7f\x9b") == "\\x1b[2J\\x7f\\x9b"
        assert printable("caf\udce9 \ud800 \u202e \U000e0001") == (
            "caf\\xe9 \\ud800 \\u202e \\U000e0001"
        )
        assert escaped("a\n\x1bb") == "a\n\\x1bb"

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ("check the server and timeout=", "check the server and --attempt-timeout"),
            ("or one with take_over=True", "or one with --take-over"),
            ("check proxies= and the environment", "check --proxy and the environment"),
            ("verify=, the clock", "--verify, the clock"),
            ("property {'timeout=5': 1} and unknown=", "property {'timeout=5': 1} and unknown="),
            ("did not answer within 9.99968 s;", "did not answer within 10 s;"),
            ("within 0.5 s", "within 0.5 s"),
        ],
    )
    def test_a_message_names_flags_where_the_library_names_arguments(
        self, text: str, wanted: str
    ) -> None:
        assert in_shell(text, FLAGS) == wanted

    def test_json_for_people_is_json_and_drives_no_terminal(self) -> None:
        document = {"a": "\x9b2J \u202e \U000e0001 日本 \x1b"}
        text = json_for_people(document)
        assert json.loads(text) == document
        assert all(character.isprintable() for character in text.replace("\n", ""))
        assert "日本" in text

    def test_json_takes_every_string(self) -> None:
        document = {"caf\udce9": ["\ud800", {"a": ("\udc80", Path("x\udce9"))}], "n": 1}
        whole = {"caf\\xe9": ["\\ud800", {"a": ["\\x80", "x\\xe9"]}], "n": 1}
        assert json.loads(json_bytes(document)) == whole
        assert json.loads(json_text(document)) == whole

    @pytest.mark.parametrize(
        ("text", "columns"), [("abc", 3), ("日本", 4), ("e\u0301", 1), ("\uff46", 2), ("한글", 4)]
    )
    def test_wide_characters_take_two_columns(self, text: str, columns: int) -> None:
        assert width(text) == columns
        assert width(padded(text, 10)) == 10
        assert width(padded(text, 10, right=True)) == 10

    def test_a_cut_never_takes_more_columns_than_it_may(self) -> None:
        for columns in range(1, 12):
            assert width(cut("日本語のテキスト", columns)) <= columns
        assert cut("日本語", 6) == "日本語"
        assert cut("日本語", 5) == "日本…"
        assert cut("日本語", 4) == "日…"


FLAGS_OF_TEXT = [
    "--api-key", "--base-url", "--timeout", "--retries", "--user-agent", "--idempotency-key",
    "--timestamp", "--source-system", "--workflow-id", "--actor-id", "--severity", "--status",
    "--message", "--metadata", "--extra", "--file", "--nonsense",
]  # fmt: skip


@NEEDS_ANY_NAME
@pytest.mark.parametrize("options", [[], ["--json"], ["--verbose"], ["--async", "--no-flush"]])
def test_packtrack_logger_takes_any_bytes_or_names_what_is_wrong(
    tmp_path: Path, options: list[str]
) -> None:
    """One process for all flags: each is given a value that is no text."""
    script = (
        "import os, sys\n"
        "from causality_sdk.packtrack_logger import main\n"
        "words = [os.fsdecode(word) for word in eval(sys.argv[1])]\n"
        "for flag in eval(sys.argv[2]):\n"
        "    try:\n"
        "        main([*words, flag, os.fsdecode(b'caf\\xe9\\x1b[2J')])\n"
        "    except SystemExit as end:\n"
        "        assert end.code in range(6), (flag, end.code)\n"
    )
    event = [
        "--source-system", "s", "--workflow-id", "w", "--actor-type", "cron", "--actor-id", "a",
        "--severity", "info", "--status", "ok", "--message", "m", "--retries", "0",
        "--base-url", NOWHERE, "--api-key", KEY,
    ]  # fmt: skip
    environ = Shell(tmp_path).environ | {"XDG_DATA_HOME": str(tmp_path), "LC_ALL": "C"}
    process = subprocess.run(
        [sys.executable, "-c", script, repr([*event, *options]), repr(FLAGS_OF_TEXT)],
        env=environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr.decode()
    for stream in (process.stdout, process.stderr):
        assert b"Traceback" not in stream
        assert b"\x1b" not in stream
        assert KEY.encode() not in stream
    if "--json" in options:
        lines(process.stdout)
