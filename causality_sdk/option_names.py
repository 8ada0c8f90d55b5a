"""Names that are no options: which one was meant, and what other trackers call ours.

Neighbours: `config` and the command's config file ask when they meet one. Pure. Invariant: a
message has names in it, and never a value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from causality_sdk.errors import ConfigError

CLOSE = 0.75  # of difflib: "flush_intervall" is close to "flush_interval", "colour" to nothing
SEVERAL = 3  # suggestions at most

# Name -> what to use here. The page of those who come from other trackers has the same tables.
SEGMENT = {
    "write_key": "api_key",
    "host": "endpoint",
    "flush_at": "batch_size",
    "upload_size": "max_batch_events",
    "upload_interval": "flush_interval",
    "max_queue_size": "max_queue_events",
    "sync_mode": "start=False, and flush()",
    "thread": "start",
    "send": "enabled",
    "gzip": 'compression="gzip"',
}
POSTHOG = {
    "project_api_key": "api_key",
    "api_host": "endpoint",
    "poll_interval": "flush_interval",
    "disabled": "enabled=False",
    "before_send": "a function of your own before track()",
    "super_properties": "properties of each event",
}
AMPLITUDE = {
    "server_url": "endpoint",
    "server_zone": "endpoint",
    "flush_queue_size": "batch_size",
    "flush_interval_millis": "flush_interval, in seconds",
    "flush_max_retries": "max_retries",
    "opt_out": "enabled=False",
    "callback": "on_delivered",
    "storage_provider": "queue_path",
}
MIXPANEL = {
    "token": "api_key",
    "events_url": "endpoint",
    "max_size": "max_batch_events",
    "retry_limit": "max_retries",
    "retry_backoff_factor": "backoff_initial",
    "request_timeout": "timeout",
    "verify_cert": "verify",
    "consumer": "transport",
}
SENTRY = {
    "dsn": "endpoint and api_key",
    "environment": "a property of each event",
    "release": "a property of each event",
    "shutdown_timeout": "close_timeout",
    "transport_queue_size": "max_queue_events",
    "http_proxy": "proxies",
    "https_proxy": "proxies",
    "ca_certs": "verify",
}
OTHERS = {
    "key": "api_key",
    "api_key_file": "the variable CAUSALITY_API_KEY_FILE",
    "url": "endpoint",
    "base_url": "endpoint",
    "api_url": "endpoint",
    "server": "endpoint",
    "app": "app_id",
    "app_name": "app_id",
    "application_id": "app_id",
    "queue_size": "max_queue_events",
    "queue_capacity": "max_queue_events",
    "path": "queue_path",
    "db_path": "queue_path",
    "queue_dir": "queue_path",
    "interval": "flush_interval",
    "max_batch_size": "max_batch_events",
    "retries": "max_retries",
    "attempt_timeout": "timeout",
    "insecure": "verify=False",
    "log_level": "debug=True, or a level of the logger",
    "level": "debug=True, or a level of the logger",
}
# The same for the fields of an event.
FIELDS = {
    "event": "event_type",
    "name": "event_type",
    "event_name": "event_type",
    "type": "event_type",
    "user": "user_id",
    "uid": "user_id",
    "distinct_id": "user_id",
    "anonymous_id": "device_id",
    "session": "session_id",
    "device": "device_id",
    "time": "timestamp",
    "ts": "timestamp",
    "date": "timestamp",
    "datetime": "timestamp",
    "created_at": "timestamp",
    "original_timestamp": "timestamp",
    "message_id": "idempotency_key",
    "insert_id": "idempotency_key",
    "uuid": "idempotency_key",
    "event_properties": "properties",
    "props": "properties",
    "data": "properties",
    "payload": "properties",
    "extra": "properties",
    "tags": "properties",
}
COUNTERPARTS = {**SEGMENT, **POSTHOG, **AMPLITUDE, **MIXPANEL, **SENTRY, **OTHERS}


def unknown_option(
    name: str, known: Iterable[str], counterparts: Mapping[str, str] = COUNTERPARTS
) -> str:
    """What is to be said about one option that does not exist."""
    known = list(known)
    hint = meant(name, known, counterparts)
    return f"{name} is not an option; {hint or 'the options are ' + ', '.join(known)}"


def refuse_unknown(
    given: Iterable[str], known: Iterable[str], counterparts: Mapping[str, str] = COUNTERPARTS
) -> None:
    """Raises `ConfigError` that names every option that does not exist."""
    known = list(known)
    wrong = [name for name in given if name not in known]
    if wrong:
        raise ConfigError("; ".join(unknown_option(name, known, counterparts) for name in wrong))


def meant(name: str, known: Iterable[str], counterparts: Mapping[str, str] = COUNTERPARTS) -> str:
    """The option that was probably meant, in words; nothing where that cannot be told."""
    known = list(known)
    options = {_squeezed(option): option for option in known}
    foreign = {_squeezed(other): words for other, words in counterparts.items()}
    wanted = _squeezed(name)
    if wanted in options:
        return f"did you mean {options[wanted]}?"
    if wanted in foreign:
        return f"here it is {foreign[wanted]}"
    from difflib import get_close_matches  # 2 ms, for whoever mistypes

    close = get_close_matches(wanted, {**options, **foreign}, SEVERAL, CLOSE)
    if close and close[0] in foreign and close[0] not in options:
        return f"here it is {foreign[close[0]]}"
    found = [options[each] for each in close if each in options]
    return f"did you mean {' or '.join(found)}?" if found else ""


def unread_variables(environ: Iterable[str], read: Iterable[str], prefix: str) -> dict[str, str]:
    """Variables that begin with `prefix` and are probably misspelt, with what to say of each.

    What resembles nothing is left alone: a platform may have variables of its own with it.
    """
    options = [each.removeprefix(prefix).lower() for each in read]
    found = {}
    for variable in sorted(environ):
        name = variable.removeprefix(prefix).lower()
        if not variable.startswith(prefix) or name in options:
            continue
        hint = meant(name, options)
        if hint:
            found[variable] = f"{variable} is not read; {_as_variables(hint, options, prefix)}"
    return found


def _as_variables(hint: str, options: list[str], prefix: str) -> str:
    """The same hint with the names of variables in it."""
    words = (word.rstrip("?") for word in hint.split())
    for option in {word for word in words if word in options}:
        hint = hint.replace(f" {option}", f" {prefix}{option.upper()}")
    return hint


def _squeezed(name: str) -> str:
    """Without what camelCase, dashes and capitals make of the same name."""
    return name.replace("_", "").replace("-", "").lower()
