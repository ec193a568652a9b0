-- Events of event-sourced aggregates are their state: retention leaves them alone.
ALTER TABLE cqrs_event ADD COLUMN sourced INTEGER NOT NULL DEFAULT 0;

-- The last snapshot of each event-sourced aggregate that has them. They may be deleted at any time.
CREATE TABLE cqrs_snapshot (
    aggregate_type TEXT    NOT NULL,
    aggregate_id   TEXT    NOT NULL,
    tenant_id      TEXT,
    version        INTEGER NOT NULL,
    -- What the aggregate looked like in the code that wrote it.
    shape          TEXT    NOT NULL,
    state          TEXT    NOT NULL,
    recorded_at    TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'),
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITHOUT ROWID;
