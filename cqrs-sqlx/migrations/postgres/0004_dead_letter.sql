-- Events that a subscription could not apply. Parked ones hold back the later events of their
-- aggregate, which are parked behind them; skipped ones are a record. The events themselves are in
-- the log.
CREATE TABLE cqrs_dead_letter (
    subscription      text        COLLATE "C" NOT NULL,
    position          bigint      NOT NULL,
    status            text        NOT NULL CHECK (status IN ('parked', 'skipped')),
    event_id          uuid        NOT NULL,
    tenant_id         text        COLLATE "C",
    aggregate_type    text        COLLATE "C" NOT NULL,
    aggregate_id      text        COLLATE "C" NOT NULL,
    aggregate_version bigint      NOT NULL,
    event_type        text        COLLATE "C" NOT NULL,
    -- 0 and NULL where it was never tried: it stands behind another.
    attempts          integer     NOT NULL DEFAULT 0,
    error             text,
    -- When it was tried and why it failed, as JSON.
    history           text        NOT NULL DEFAULT '[]',
    parked_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When it is replayed; only the first of an aggregate has one.
    replay_at         timestamptz,
    CONSTRAINT cqrs_dead_letter_pkey PRIMARY KEY (subscription, position)
);

CREATE INDEX cqrs_dead_letter_aggregate
    ON cqrs_dead_letter (subscription, aggregate_type, aggregate_id, position)
    WHERE status = 'parked';

-- What operators did: who, when, to which subscription.
CREATE TABLE cqrs_operation (
    id             bigint      GENERATED ALWAYS AS IDENTITY,
    operation      text        COLLATE "C" NOT NULL,
    subscription   text        COLLATE "C" NOT NULL,
    detail         text        NOT NULL,
    actor          text,
    correlation_id uuid        NOT NULL,
    done_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_operation_pkey PRIMARY KEY (id)
);
