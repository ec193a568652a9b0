-- The instances of process managers. `scope` is the tenant; '' is none.
CREATE TABLE cqrs_process (
    process      TEXT    NOT NULL,
    scope        TEXT    NOT NULL,
    instance     TEXT    NOT NULL,
    -- Its id over all managers and tenants.
    instance_id  BLOB    NOT NULL,
    state        TEXT    NOT NULL,
    -- Those that hold, by name: the number of the task, and when.
    deadlines    TEXT    NOT NULL,
    -- How many tasks there were.
    tasks        INTEGER NOT NULL,
    started_at   TEXT    NOT NULL,
    completed_at TEXT,
    PRIMARY KEY (process, scope, instance)
) WITHOUT ROWID;

-- What is to be done for them: commands, and deadlines that pass. A row goes with the transaction
-- that does it.
CREATE TABLE cqrs_process_task (
    instance_id    BLOB    NOT NULL,
    number         INTEGER NOT NULL,
    process        TEXT    NOT NULL,
    scope          TEXT    NOT NULL,
    instance       TEXT    NOT NULL,
    -- The name of the deadline; else there is a command.
    deadline       TEXT,
    command        TEXT,
    due_at         TEXT    NOT NULL,
    attempts       INTEGER NOT NULL,
    error          TEXT,
    parked_at      TEXT,
    correlation_id BLOB    NOT NULL,
    causation_id   BLOB    NOT NULL,
    trace          TEXT,
    PRIMARY KEY (instance_id, number)
) WITHOUT ROWID;

-- For what is due next.
CREATE INDEX cqrs_process_task_due ON cqrs_process_task (process, due_at) WHERE parked_at IS NULL;
