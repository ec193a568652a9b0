-- The keys of sealed fields. `scope` is the tenant of the subject; '' is none. The row of a subject
-- that was forgotten stays, without a key.
CREATE TABLE cqrs_subject_key (
    scope        text        COLLATE "C" NOT NULL,
    subject      text        COLLATE "C" NOT NULL,
    -- In clear, or under a master key.
    secret       bytea,
    created_at   timestamptz NOT NULL,
    forgotten_at timestamptz,
    forgotten_by text,
    CONSTRAINT cqrs_subject_key_pkey PRIMARY KEY (scope, subject),
    CONSTRAINT cqrs_subject_key_forgotten CHECK ((secret IS NULL) = (forgotten_at IS NOT NULL))
);
