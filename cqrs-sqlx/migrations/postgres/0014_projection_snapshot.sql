-- Up to which position events of an aggregate type have left the log. What is folded from a
-- position before that would miss them.
CREATE TABLE cqrs_removed (
    aggregate_type text   COLLATE "C" NOT NULL,
    position       bigint NOT NULL,
    CONSTRAINT cqrs_removed_pkey PRIMARY KEY (aggregate_type)
);

-- Copies of what a subscription keeps, each with its checkpoints of the same moment.
CREATE TABLE cqrs_projection_snapshot (
    id             uuid        NOT NULL,
    subscription   text        COLLATE "C" NOT NULL,
    -- Where each of its segments stood: a JSON array.
    checkpoints    text        NOT NULL,
    -- Its tables, with their versions, columns, and the tables that hold the copies: JSON.
    tables         text        NOT NULL,
    -- Who asked for it.
    actor          text,
    correlation_id uuid        NOT NULL,
    taken_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_projection_snapshot_pkey PRIMARY KEY (id)
);
