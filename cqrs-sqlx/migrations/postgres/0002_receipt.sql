-- The receipts of commits that carried an idempotency key. `scope` is the tenant; '' is none.
CREATE TABLE cqrs_receipt (
    scope           text        COLLATE "C" NOT NULL,
    idempotency_key text        COLLATE "C" NOT NULL,
    fingerprint     bytea,
    output          text        NOT NULL,
    events          text        NOT NULL,
    position        bigint,
    recorded_at     timestamptz NOT NULL,
    CONSTRAINT cqrs_receipt_pkey PRIMARY KEY (scope, idempotency_key)
);

-- For forgetting the old ones.
CREATE INDEX cqrs_receipt_recorded_at ON cqrs_receipt (recorded_at);
