-- The instances of process managers. `scope` is the tenant; '' is none.
CREATE TABLE cqrs_process (
    process      text        COLLATE "C" NOT NULL,
    scope        text        COLLATE "C" NOT NULL,
    instance     text        COLLATE "C" NOT NULL,
    -- Its id over all managers and tenants.
    instance_id  uuid        NOT NULL,
    state        jsonb       NOT NULL,
    -- Those that hold, by name: the number of the task, and when.
    deadlines    jsonb       NOT NULL,
    -- How many tasks there were.
    tasks        bigint      NOT NULL,
    started_at   timestamptz NOT NULL,
    completed_at timestamptz,
    CONSTRAINT cqrs_process_pkey PRIMARY KEY (process, scope, instance)
);

-- What is to be done for them: commands, and deadlines that pass. A row goes with the transaction
-- that does it.
CREATE TABLE cqrs_process_task (
    instance_id    uuid        NOT NULL,
    number         bigint      NOT NULL,
    process        text        COLLATE "C" NOT NULL,
    scope          text        COLLATE "C" NOT NULL,
    instance       text        COLLATE "C" NOT NULL,
    -- The name of the deadline; else there is a command.
    deadline       text        COLLATE "C",
    command        jsonb,
    due_at         timestamptz NOT NULL,
    attempts       integer     NOT NULL,
    error          text,
    parked_at      timestamptz,
    correlation_id uuid        NOT NULL,
    causation_id   uuid        NOT NULL,
    trace          jsonb,
    CONSTRAINT cqrs_process_task_pkey PRIMARY KEY (instance_id, number)
);

-- For what is due next.
CREATE INDEX cqrs_process_task_due ON cqrs_process_task (process, due_at, instance_id, number)
    WHERE parked_at IS NULL;
