-- The log: outbox and event store in one. Rows are only ever added.
--
-- The sequence must not cache: the horizon relies on `last_value` being the highest position that
-- any session was ever given.
CREATE SEQUENCE cqrs_event_position AS bigint CACHE 1;

CREATE TABLE cqrs_event (
    position          bigint      NOT NULL DEFAULT nextval('cqrs_event_position'),
    event_id          uuid        NOT NULL,
    tenant_id         text        COLLATE "C",
    aggregate_type    text        COLLATE "C" NOT NULL,
    aggregate_id      text        COLLATE "C" NOT NULL,
    aggregate_version bigint      NOT NULL,
    event_type        text        COLLATE "C" NOT NULL,
    schema_version    integer     NOT NULL,
    schema_id         text,
    payload           json        NOT NULL,
    content_hash      bytea       NOT NULL,
    correlation_id    uuid        NOT NULL,
    causation_id      uuid,
    actor             text,
    traceparent       text,
    tracestate        text,
    occurred_at       timestamptz NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_event_pkey PRIMARY KEY (position),
    CONSTRAINT cqrs_event_stream_key UNIQUE (aggregate_type, aggregate_id, aggregate_version)
);

ALTER SEQUENCE cqrs_event_position OWNED BY cqrs_event.position;

-- How far each subscription has come. A worker holds the row's lock for the length of one page.
CREATE TABLE cqrs_subscription (
    name            text        COLLATE "C" NOT NULL,
    position        bigint      NOT NULL DEFAULT 0,
    status          text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'halted')),
    failed_attempts integer     NOT NULL DEFAULT 0,
    failed_position bigint,
    error           text,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_subscription_pkey PRIMARY KEY (name)
);
