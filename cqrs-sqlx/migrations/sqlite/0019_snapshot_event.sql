-- The last event that a snapshot stands for: the log may have been restored from a backup and grown
-- past its version again, with other events. Older snapshots name none, and are made anew.
ALTER TABLE cqrs_snapshot ADD COLUMN event_id BLOB;
