-- How far each segment of a subscription has come: its share of the aggregates, by a hash of type
-- and id.
CREATE TABLE cqrs_segment (
    subscription    TEXT    NOT NULL,
    segment         INTEGER NOT NULL,
    -- Of how many it is one, from 0.
    segments        INTEGER NOT NULL,
    position        INTEGER NOT NULL,
    -- No page goes beyond; set while the number of segments changes.
    barrier         INTEGER,
    status          TEXT    NOT NULL DEFAULT 'active',
    failed_attempts INTEGER NOT NULL DEFAULT 0,
    failed_position INTEGER,
    error           TEXT,
    retry_at        TEXT,
    -- Whether events of its aggregates may be parked, and when some are to be replayed.
    parks           INTEGER NOT NULL DEFAULT 0,
    replay_at       TEXT,
    updated_at      TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f', 'now') || '000Z'),
    PRIMARY KEY (subscription, segment)
) WITHOUT ROWID;

INSERT INTO cqrs_segment (subscription, segment, segments, position, status, failed_attempts,
                          failed_position, error, updated_at)
SELECT name, 0, 1, position, status, failed_attempts, failed_position, error, updated_at
FROM cqrs_subscription;

ALTER TABLE cqrs_subscription DROP COLUMN position;
ALTER TABLE cqrs_subscription DROP COLUMN status;
ALTER TABLE cqrs_subscription DROP COLUMN failed_attempts;
ALTER TABLE cqrs_subscription DROP COLUMN failed_position;
ALTER TABLE cqrs_subscription DROP COLUMN error;
-- How many segments it is to have.
ALTER TABLE cqrs_subscription ADD COLUMN segments INTEGER NOT NULL DEFAULT 1;
-- Whether it may have more than one.
ALTER TABLE cqrs_subscription ADD COLUMN splits INTEGER NOT NULL DEFAULT 0;
