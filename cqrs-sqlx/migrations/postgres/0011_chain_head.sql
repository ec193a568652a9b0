-- How far the stream of each event-sourced aggregate goes whose events are a chain. Others have their
-- head in their own row.
CREATE TABLE cqrs_chain_head (
    aggregate_type text   COLLATE "C" NOT NULL,
    aggregate_id   text   COLLATE "C" NOT NULL,
    tenant_id      text   COLLATE "C",
    version        bigint NOT NULL,
    -- That of the last event.
    content_hash   bytea  NOT NULL,
    CONSTRAINT cqrs_chain_head_pkey PRIMARY KEY (aggregate_type, aggregate_id)
);
