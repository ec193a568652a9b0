-- How far the stream of each event-sourced aggregate goes whose events are a chain. Others have their
-- head in their own row.
CREATE TABLE cqrs_chain_head (
    aggregate_type TEXT    NOT NULL,
    aggregate_id   TEXT    NOT NULL,
    tenant_id      TEXT,
    version        INTEGER NOT NULL,
    -- That of the last event.
    content_hash   BLOB    NOT NULL,
    PRIMARY KEY (aggregate_type, aggregate_id)
) WITHOUT ROWID;
