-- The log: outbox and event store in one. Rows are only ever added.
--
-- AUTOINCREMENT: a position is never given out again, even after old events were removed.
CREATE TABLE cqrs_event (
    position          INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id          BLOB    NOT NULL,
    tenant_id         TEXT,
    aggregate_type    TEXT    NOT NULL,
    aggregate_id      TEXT    NOT NULL,
    aggregate_version INTEGER NOT NULL,
    event_type        TEXT    NOT NULL,
    schema_version    INTEGER NOT NULL,
    schema_id         TEXT,
    payload           TEXT    NOT NULL,
    content_hash      BLOB    NOT NULL,
    correlation_id    BLOB    NOT NULL,
    causation_id      BLOB,
    actor             TEXT,
    traceparent       TEXT,
    tracestate        TEXT,
    occurred_at       TEXT    NOT NULL,
    recorded_at       TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'),
    CONSTRAINT cqrs_event_stream_key UNIQUE (aggregate_type, aggregate_id, aggregate_version)
);

-- How far each subscription has come.
CREATE TABLE cqrs_subscription (
    name            TEXT    NOT NULL PRIMARY KEY,
    position        INTEGER NOT NULL DEFAULT 0,
    status          TEXT    NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'halted')),
    failed_attempts INTEGER NOT NULL DEFAULT 0,
    failed_position INTEGER,
    error           TEXT,
    updated_at      TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
) WITHOUT ROWID;
