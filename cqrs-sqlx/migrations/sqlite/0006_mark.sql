-- How far the segment had come before it was reset: handlers with side effects are not given what is
-- not behind it.
ALTER TABLE cqrs_segment ADD COLUMN mark INTEGER NOT NULL DEFAULT 0;
