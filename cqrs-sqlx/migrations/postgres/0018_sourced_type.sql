-- The aggregate types that are event-sourced now, whatever they were when their first events were
-- written: retention, which runs without their code, leaves all their events.
CREATE TABLE cqrs_sourced_type (
    aggregate_type text COLLATE "C" NOT NULL,
    CONSTRAINT cqrs_sourced_type_pkey PRIMARY KEY (aggregate_type)
);
INSERT INTO cqrs_sourced_type (aggregate_type)
    SELECT DISTINCT aggregate_type FROM cqrs_event WHERE sourced;
