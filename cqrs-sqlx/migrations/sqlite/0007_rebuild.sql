-- The version of the projection whose rows a segment keeps; projectors of another leave them alone.
ALTER TABLE cqrs_segment ADD COLUMN version INTEGER NOT NULL DEFAULT 1;

-- Read models that are being built anew, beside the rows that are read.
CREATE TABLE cqrs_rebuild (
    subscription   TEXT    NOT NULL PRIMARY KEY,
    -- The subscription that builds them.
    building       TEXT    NOT NULL,
    read_table     TEXT    NOT NULL,
    -- Whether they take the place of the others as soon as they can.
    switches       INTEGER NOT NULL,
    -- Who asked for it.
    actor          TEXT,
    correlation_id BLOB    NOT NULL,
    started_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
) WITHOUT ROWID;
