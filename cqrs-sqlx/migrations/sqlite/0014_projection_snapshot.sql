-- Up to which position events of an aggregate type have left the log. What is folded from a
-- position before that would miss them.
CREATE TABLE cqrs_removed (
    aggregate_type TEXT    NOT NULL PRIMARY KEY,
    position       INTEGER NOT NULL
) WITHOUT ROWID;

-- Copies of what a subscription keeps, each with its checkpoints of the same moment.
CREATE TABLE cqrs_projection_snapshot (
    id             BLOB NOT NULL PRIMARY KEY,
    subscription   TEXT NOT NULL,
    -- Where each of its segments stood: a JSON array.
    checkpoints    TEXT NOT NULL,
    -- Its tables, with their versions, columns, and the tables that hold the copies: JSON.
    tables         TEXT NOT NULL,
    -- Who asked for it.
    actor          TEXT,
    correlation_id BLOB NOT NULL,
    taken_at       TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
) WITHOUT ROWID;
