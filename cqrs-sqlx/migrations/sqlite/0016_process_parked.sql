-- For the commands that are put aside.
CREATE INDEX cqrs_process_task_parked ON cqrs_process_task (process, instance_id, number)
    WHERE parked_at IS NOT NULL;
