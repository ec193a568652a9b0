-- How far each segment of a subscription has come: its share of the aggregates, by a hash of type
-- and id. A worker holds the row's lock for the length of one page.
CREATE TABLE cqrs_segment (
    subscription    text        COLLATE "C" NOT NULL,
    segment         integer     NOT NULL,
    -- Of how many it is one, from 0.
    segments        integer     NOT NULL,
    position        bigint      NOT NULL,
    -- No page goes beyond; set while the number of segments changes.
    barrier         bigint,
    status          text        NOT NULL DEFAULT 'active',
    failed_attempts integer     NOT NULL DEFAULT 0,
    failed_position bigint,
    error           text,
    retry_at        timestamptz,
    -- Whether events of its aggregates may be parked, and when some are to be replayed.
    parks           boolean     NOT NULL DEFAULT false,
    replay_at       timestamptz,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_segment_pkey PRIMARY KEY (subscription, segment)
);

INSERT INTO cqrs_segment (subscription, segment, segments, position, status, failed_attempts,
                          failed_position, error, updated_at)
SELECT name, 0, 1, position, status, failed_attempts, failed_position, error, updated_at
FROM cqrs_subscription;

ALTER TABLE cqrs_subscription
    DROP COLUMN position,
    DROP COLUMN status,
    DROP COLUMN failed_attempts,
    DROP COLUMN failed_position,
    DROP COLUMN error,
    -- How many segments it is to have.
    ADD COLUMN segments integer NOT NULL DEFAULT 1,
    -- Whether it may have more than one.
    ADD COLUMN splits boolean NOT NULL DEFAULT false;
