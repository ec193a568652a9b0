-- Events that a subscription could not apply. Parked ones hold back the later events of their
-- aggregate, which are parked behind them; skipped ones are a record. The events themselves are in
-- the log.
CREATE TABLE cqrs_dead_letter (
    subscription      TEXT    NOT NULL,
    position          INTEGER NOT NULL,
    status            TEXT    NOT NULL CHECK (status IN ('parked', 'skipped')),
    event_id          BLOB    NOT NULL,
    tenant_id         TEXT,
    aggregate_type    TEXT    NOT NULL,
    aggregate_id      TEXT    NOT NULL,
    aggregate_version INTEGER NOT NULL,
    event_type        TEXT    NOT NULL,
    -- 0 and NULL where it was never tried: it stands behind another.
    attempts          INTEGER NOT NULL DEFAULT 0,
    error             TEXT,
    -- When it was tried and why it failed, as JSON.
    history           TEXT    NOT NULL DEFAULT '[]',
    parked_at         TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'),
    -- When it is replayed; only the first of an aggregate has one.
    replay_at         TEXT,
    PRIMARY KEY (subscription, position)
) WITHOUT ROWID;

CREATE INDEX cqrs_dead_letter_aggregate
    ON cqrs_dead_letter (subscription, aggregate_type, aggregate_id, position)
    WHERE status = 'parked';

-- What operators did: who, when, to which subscription.
CREATE TABLE cqrs_operation (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    operation      TEXT    NOT NULL,
    subscription   TEXT    NOT NULL,
    detail         TEXT    NOT NULL,
    actor          TEXT,
    correlation_id BLOB    NOT NULL,
    done_at        TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z')
);
