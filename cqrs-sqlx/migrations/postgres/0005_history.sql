-- What aggregates with a history were after each change; before it, where it deleted their row.
CREATE TABLE cqrs_history (
    aggregate_type text        COLLATE "C" NOT NULL,
    aggregate_id   text        COLLATE "C" NOT NULL,
    version        bigint      NOT NULL,
    tenant_id      text        COLLATE "C",
    kind           text        COLLATE "C" NOT NULL,
    -- The columns of its row.
    state          json        NOT NULL,
    -- The rows of its children, by table.
    children       json,
    actor          text,
    correlation_id uuid        NOT NULL,
    changed_at     timestamptz NOT NULL,
    CONSTRAINT cqrs_history_pkey PRIMARY KEY (aggregate_type, aggregate_id, version)
);
