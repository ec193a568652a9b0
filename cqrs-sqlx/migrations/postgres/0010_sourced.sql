-- Events of event-sourced aggregates are their state: retention leaves them alone.
ALTER TABLE cqrs_event ADD COLUMN sourced boolean NOT NULL DEFAULT false;

-- The last snapshot of each event-sourced aggregate that has them. They may be deleted at any time.
CREATE TABLE cqrs_snapshot (
    aggregate_type text        COLLATE "C" NOT NULL,
    aggregate_id   text        COLLATE "C" NOT NULL,
    tenant_id      text        COLLATE "C",
    version        bigint      NOT NULL,
    -- What the aggregate looked like in the code that wrote it.
    shape          text        COLLATE "C" NOT NULL,
    state          text        NOT NULL,
    recorded_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_snapshot_pkey PRIMARY KEY (aggregate_type, aggregate_id)
);
