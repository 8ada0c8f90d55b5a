"""The schema of a queue file, step by step.

A step is never changed once it was released: files written by it are out there. `schema.py` applies
the missing ones in one transaction and then sets `PRAGMA user_version` to the number of steps,
which is how a file of a newer release is told apart.
"""

from sqlite_utils import Database, Migrations

migrations = Migrations("causality_queue")


@migrations()
def m001_queue(db: Database) -> None:
    """The FIFO, its one state row, the dead letters, and views for people."""
    # `total` is the running total of payload bytes, so that pending bytes are a difference.
    # No index but the rowid, no AUTOINCREMENT: each would write another page in every commit.
    db.execute(
        """
        CREATE TABLE queue (
            id INTEGER PRIMARY KEY,
            total INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            payload BLOB NOT NULL
        )
        """
    )
    # Written by every transaction that removes rows, and by no insert.
    db.execute(
        """
        CREATE TABLE state (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            file_uuid TEXT NOT NULL,
            created_ms INTEGER NOT NULL,
            endpoint TEXT NOT NULL,
            wire TEXT NOT NULL,
            key_fingerprint TEXT NOT NULL,
            mark INTEGER NOT NULL DEFAULT 0,
            mark_total INTEGER NOT NULL DEFAULT 0,
            acknowledged INTEGER NOT NULL DEFAULT 0,
            acknowledged_bytes INTEGER NOT NULL DEFAULT 0,
            buried INTEGER NOT NULL DEFAULT 0,
            buried_bytes INTEGER NOT NULL DEFAULT 0,
            requeued INTEGER NOT NULL DEFAULT 0,
            requeued_bytes INTEGER NOT NULL DEFAULT 0,
            evicted_max_queue_events INTEGER NOT NULL DEFAULT 0,
            evicted_max_queue_events_bytes INTEGER NOT NULL DEFAULT 0,
            evicted_max_queue_bytes INTEGER NOT NULL DEFAULT 0,
            evicted_max_queue_bytes_bytes INTEGER NOT NULL DEFAULT 0,
            evicted_corrupt INTEGER NOT NULL DEFAULT 0,
            evicted_corrupt_bytes INTEGER NOT NULL DEFAULT 0,
            evicted_purged INTEGER NOT NULL DEFAULT 0,
            evicted_purged_bytes INTEGER NOT NULL DEFAULT 0
        )
        """
    )
    db.execute(
        """
        CREATE TABLE dead_letters (
            id INTEGER PRIMARY KEY,
            crc INTEGER NOT NULL,
            payload BLOB NOT NULL,
            buried_ms INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            status INTEGER,
            reason TEXT NOT NULL
        )
        """
    )
    # Rows whose CRC is wrong, kept for whoever wants to look. Bounded by the code.
    db.execute(
        """
        CREATE TABLE corrupt_rows (
            id INTEGER PRIMARY KEY,
            crc INTEGER NOT NULL,
            payload BLOB NOT NULL,
            found_ms INTEGER NOT NULL
        )
        """
    )
    # For sqlite-utils and Datasette. The payload is bytes to the queue, so what is not JSON shows
    # as nulls and breaks nothing.
    for view, table, extra in (
        ("queued_events", "queue", ""),
        ("dead_letter_events", "dead_letters", ", attempts, status, reason"),
    ):
        db.execute(
            f"""
            CREATE VIEW {view} AS
            SELECT
                id,
                json_extract(event, '$.idempotency_key') AS idempotency_key,
                json_extract(event, '$.event_type') AS event_type,
                strftime(
                    '%Y-%m-%dT%H:%M:%fZ',
                    json_extract(event, '$.timestamp_ms') / 1000.0,
                    'unixepoch'
                ) AS time,
                size{extra}
            FROM (
                SELECT
                    id,
                    length(payload) AS size,
                    CASE WHEN json_valid(CAST(payload AS TEXT))
                        THEN CAST(payload AS TEXT) END AS event{extra}
                FROM {table}
            )
            """  # noqa: S608 - the names are those of the line above
        )


@migrations()
def m002_adopted(db: Database) -> None:
    """What keeps the counters of a dead process's file from being added to two others, or twice.

    `heir` is the uuid of the file that takes them over, and `adopted` lists the uuids of the files
    that this one took over.
    """
    db.execute("ALTER TABLE state ADD COLUMN heir TEXT")
    db.execute(
        """
        CREATE TABLE adopted (
            file_uuid TEXT PRIMARY KEY,
            adopted_ms INTEGER NOT NULL
        ) WITHOUT ROWID
        """
    )
