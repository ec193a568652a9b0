-- What aggregates with a history were after each change; before it, where it deleted their row.
CREATE TABLE cqrs_history (
    aggregate_type TEXT    NOT NULL,
    aggregate_id   TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    tenant_id      TEXT,
    kind           TEXT    NOT NULL,
    -- The columns of its row.
    state          TEXT    NOT NULL,
    -- The rows of its children, by table.
    children       TEXT,
    actor          TEXT,
    correlation_id BLOB    NOT NULL,
    changed_at     TEXT    NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id, version)
);
