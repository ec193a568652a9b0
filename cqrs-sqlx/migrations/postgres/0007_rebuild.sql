-- The version of the projection whose rows a segment keeps; projectors of another leave them alone.
ALTER TABLE cqrs_segment ADD COLUMN version integer NOT NULL DEFAULT 1;

-- Read models that are being built anew, beside the rows that are read.
CREATE TABLE cqrs_rebuild (
    subscription   text        COLLATE "C" NOT NULL,
    -- The subscription that builds them.
    building       text        COLLATE "C" NOT NULL,
    read_table     text        COLLATE "C" NOT NULL,
    -- Whether they take the place of the others as soon as they can.
    switches       boolean     NOT NULL,
    -- Who asked for it.
    actor          text,
    correlation_id uuid        NOT NULL,
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_rebuild_pkey PRIMARY KEY (subscription)
);
