-- The receipts of commits that carried an idempotency key. `scope` is the tenant; '' is none.
CREATE TABLE cqrs_receipt (
    scope           TEXT    NOT NULL,
    idempotency_key TEXT    NOT NULL,
    fingerprint     BLOB,
    output          TEXT    NOT NULL,
    events          TEXT    NOT NULL,
    position        INTEGER,
    recorded_at     TEXT    NOT NULL,
    PRIMARY KEY (scope, idempotency_key)
) WITHOUT ROWID;

-- For forgetting the old ones.
CREATE INDEX cqrs_receipt_recorded_at ON cqrs_receipt (recorded_at);
