-- The keys of sealed fields. `scope` is the tenant of the subject; '' is none. The row of a subject
-- that was forgotten stays, without a key.
CREATE TABLE cqrs_subject_key (
    scope        TEXT NOT NULL,
    subject      TEXT NOT NULL,
    -- In clear, or under a master key.
    secret       BLOB,
    created_at   TEXT NOT NULL,
    forgotten_at TEXT,
    forgotten_by TEXT,
    PRIMARY KEY (scope, subject),
    CONSTRAINT cqrs_subject_key_forgotten CHECK ((secret IS NULL) = (forgotten_at IS NOT NULL))
) WITHOUT ROWID;
