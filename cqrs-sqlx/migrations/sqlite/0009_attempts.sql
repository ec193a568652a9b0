-- When the time of a replay was set. Where the clock was set back since, it is not waited for.
ALTER TABLE cqrs_dead_letter ADD COLUMN replay_set_at TEXT;
ALTER TABLE cqrs_segment ADD COLUMN replay_set_at TEXT;
-- When the event after the checkpoint was tried and why it failed: JSON objects with commas between.
ALTER TABLE cqrs_segment ADD COLUMN history TEXT NOT NULL DEFAULT '';
