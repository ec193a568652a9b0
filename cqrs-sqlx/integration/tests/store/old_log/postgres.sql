-- A database of the first layout of the log, with what an application had written to it. It is a
-- record: nothing makes it, and nothing may change it. `events.json` says what is in the log.

CREATE TABLE _cqrs_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMPTZ NOT NULL DEFAULT now(),
    success BOOLEAN NOT NULL,
    checksum BYTEA NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO _cqrs_migrations VALUES
(1, 'log', '2025-03-01T08:00:00Z', true,
 '\x30ce649081707281e33f7bf51655214fe6f7ac54135061f7208fc94b85cbcd5148f30296a42c80b7f270261fc82e677e', 4000000);

-- The log: outbox and event store in one. Rows are only ever added.
--
-- The sequence must not cache: the horizon relies on `last_value` being the highest position that
-- any session was ever given.
CREATE SEQUENCE cqrs_event_position AS bigint CACHE 1;

CREATE TABLE cqrs_event (
    position          bigint      NOT NULL DEFAULT nextval('cqrs_event_position'),
    event_id          uuid        NOT NULL,
    tenant_id         text        COLLATE "C",
    aggregate_type    text        COLLATE "C" NOT NULL,
    aggregate_id      text        COLLATE "C" NOT NULL,
    aggregate_version bigint      NOT NULL,
    event_type        text        COLLATE "C" NOT NULL,
    schema_version    integer     NOT NULL,
    schema_id         text,
    payload           json        NOT NULL,
    content_hash      bytea       NOT NULL,
    correlation_id    uuid        NOT NULL,
    causation_id      uuid,
    actor             text,
    traceparent       text,
    tracestate        text,
    occurred_at       timestamptz NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_event_pkey PRIMARY KEY (position),
    CONSTRAINT cqrs_event_stream_key UNIQUE (aggregate_type, aggregate_id, aggregate_version)
);

ALTER SEQUENCE cqrs_event_position OWNED BY cqrs_event.position;

-- How far each subscription has come. A worker holds the row's lock for the length of one page.
CREATE TABLE cqrs_subscription (
    name            text        COLLATE "C" NOT NULL,
    position        bigint      NOT NULL DEFAULT 0,
    status          text        NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'halted')),
    failed_attempts integer     NOT NULL DEFAULT 0,
    failed_position bigint,
    error           text,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT cqrs_subscription_pkey PRIMARY KEY (name)
);

CREATE TABLE shipment (
    version    bigint NOT NULL,
    tenant_id  text COLLATE "C" NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by text COLLATE "C",
    updated_at timestamp with time zone NOT NULL,
    updated_by text COLLATE "C",
    id         text COLLATE "C" NOT NULL,
    customer   text COLLATE "C" NOT NULL,
    kilograms  double precision NOT NULL,
    driver     text COLLATE "C",
    CONSTRAINT shipment_pkey PRIMARY KEY (id)
);
CREATE INDEX shipment_tenant ON shipment (tenant_id, id);
INSERT INTO shipment VALUES
(3, 'north', '2025-03-01T09:00:01.000001Z', 'ann', '2025-03-01T09:00:12.000012Z', 'ann',
 'S1', 'Ada', 13, E'Kim "K" Öz\n'),
(1, 'south', '2025-03-01T09:00:03.000003Z', 'ben', '2025-03-01T09:00:03.000003Z', 'ben',
 'S2', 'Béla', 1e300, NULL);

CREATE TABLE meter (
    version bigint NOT NULL,
    id      bigint NOT NULL,
    count   bigint NOT NULL,
    CONSTRAINT meter_pkey PRIMARY KEY (id)
);
INSERT INTO meter VALUES (3, 7, 9223372036854775806), (1, 8, 0);

CREATE TABLE account_total (
    number text COLLATE "C" NOT NULL,
    events bigint NOT NULL,
    cents  bigint NOT NULL,
    CONSTRAINT account_total_pkey PRIMARY KEY (number)
);
INSERT INTO account_total VALUES ('A1', 3, 700), ('A2', 1, 0);

INSERT INTO cqrs_event
(position, event_id, tenant_id, aggregate_type, aggregate_id, aggregate_version, event_type,
 schema_version, schema_id, payload, content_hash, correlation_id, causation_id, actor, traceparent,
 tracestate, occurred_at, recorded_at)
VALUES
(1, '01900000-0000-7000-8000-000000000001', 'north', 'shipment', 'S1', 1, 'shipment.booked', 1, NULL,
 '{"customer":"Ada","kilograms":12.5,"note":null}',
 '\x643bced58fad5a55a4dae9a2096052f1f6b0e2de2317b48a8c99e81b71841b0d',
 '01900000-0000-7000-9000-0000000000c1', NULL, 'ann', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', 'vendor=1', '2025-03-01T09:00:01.000001Z', '2025-03-01T09:00:01.500000Z'),
(2, '01900000-0000-7000-8000-000000000002', 'north', 'shipment', 'S1', 2, 'shipment.dispatched', 1, NULL,
 '{"at":"2025-03-01T08:30:00.123456Z","driver":"Kim \"K\" Öz\n"}',
 '\xd891a2989b6a710a126273f6cba7e05f7af00d3bacfcbad601331e7875f862ff',
 '01900000-0000-7000-9000-0000000000c1', '01900000-0000-7000-a000-0000000000a1', 'ann', '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', NULL, '2025-03-01T09:00:02.000002Z', '2025-03-01T09:00:02.500000Z'),
(3, '01900000-0000-7000-8000-000000000003', 'south', 'shipment', 'S2', 1, 'shipment.booked', 1, NULL,
 '{"customer":"Béla","kilograms":1e300,"note":"vorsichtig, 1€"}',
 '\xacd505ff5dc5b14c7d748a52d7ab02462a546fa9c2a05ec2c68b5e0883cc9e0e',
 '01900000-0000-7000-9000-0000000000c2', NULL, 'ben', NULL, NULL, '2025-03-01T09:00:03.000003Z', '2025-03-01T09:00:03.500000Z'),
(4, '01900000-0000-7000-8000-000000000004', NULL, 'meter', '7', 1, 'meter.installed', 1, NULL,
 '[1,"cellar"]',
 '\x0625aead8da43e17521c844a7ae757824deeb1558cd4154c131ff5a9a8e44964',
 '01900000-0000-7000-9000-0000000000c3', NULL, NULL, NULL, NULL, '2025-03-01T09:00:04.000004Z', '2025-03-01T09:00:04.500000Z'),
(5, '01900000-0000-7000-8000-000000000005', NULL, 'meter', '7', 2, 'meter.counted', 1, NULL,
 '9223372036854775807',
 '\xb34a1c30a715f6bf8b7243afa7fab883ce3612b7231716bdcbbdc1982e1aed29',
 '01900000-0000-7000-9000-0000000000c3', NULL, NULL, NULL, NULL, '2025-03-01T09:00:05.000005Z', '2025-03-01T09:00:05.500000Z'),
(7, '01900000-0000-7000-8000-000000000007', 'north', 'account', 'A1', 1, 'account.opened', 1, NULL,
 '{"owner":"Ada"}',
 '\xe353cc7a7da4dbad4fbfbdfb242fb10ef0be5a70ad9f676e359018be5cc894a5',
 '01900000-0000-7000-9000-0000000000c1', NULL, 'ann', NULL, NULL, '2025-03-01T09:00:07.000007Z', '2025-03-01T09:00:07.500000Z'),
(8, '01900000-0000-7000-8000-000000000008', 'north', 'account', 'A1', 2, 'account.deposited', 1, NULL,
 '{"euros":3}',
 '\x761004829c74f633d19b2424738b15befc369b3e4b73da9ce028a3bb57228b3d',
 '01900000-0000-7000-9000-0000000000c1', NULL, 'ann', NULL, NULL, '2025-03-01T09:00:08.000008Z', '2025-03-01T09:00:08.500000Z'),
(9, '01900000-0000-7000-8000-000000000009', 'north', 'account', 'A1', 3, 'account.deposited', 1, NULL,
 '{"euros":4}',
 '\xac9a23b3daf0055021390c3c21de131be717d18b79201ed1558457b5a6e33b6f',
 '01900000-0000-7000-9000-0000000000c1', '01900000-0000-7000-a000-0000000000a1', NULL, '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01', 'vendor=2', '2025-03-01T09:00:09.000009Z', '2025-03-01T09:00:09.500000Z'),
(10, '01900000-0000-7000-8000-00000000000a', 'south', 'account', 'A2', 1, 'account.opened', 1, NULL,
 '{"owner":"Béla"}',
 '\x12e7662d5a404db6e4f4116f8671a2cd2e8f0d1ac423e977a32d189704796d2c',
 '01900000-0000-7000-9000-0000000000c2', NULL, 'ben', NULL, NULL, '2025-03-01T09:00:10.000010Z', '2025-03-01T09:00:10.500000Z'),
(11, '01900000-0000-7000-8000-00000000000b', 'north', 'shipment', 'S3', 1, 'shipment.booked', 1, NULL,
 '{"customer":"Cy","kilograms":0.1,"note":""}',
 '\x7ec2d08712b65986a16d3bab2a6832d1f894d59ae75061fbd6f5c8ab567c7100',
 '01900000-0000-7000-9000-0000000000c1', NULL, NULL, NULL, NULL, '2025-03-01T09:00:11.000011Z', '2025-03-01T09:00:11.500000Z'),
(12, '01900000-0000-7000-8000-00000000000c', 'north', 'shipment', 'S1', 3, 'cqrs.changed', 1, NULL,
 '{}',
 '\x44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
 '01900000-0000-7000-9000-0000000000c1', NULL, 'ann', NULL, NULL, '2025-03-01T09:00:12.000012Z', '2025-03-01T09:00:12.500000Z'),
(13, '01900000-0000-7000-8000-00000000000d', NULL, 'meter', '7', 3, 'meter.counted', 1, NULL,
 '-1',
 '\x1bad6b8cf97131fceab8543e81f7757195fbb1d36b376ee994ad1cf17699c464',
 '01900000-0000-7000-9000-0000000000c3', NULL, NULL, NULL, NULL, '2025-03-01T09:00:13.000013Z', '2025-03-01T09:00:13.500000Z'),
(15, '01900000-0000-7000-8000-00000000000f', 'north', 'shipment', 'S3', 2, 'cqrs.removed', 1, NULL,
 '{}',
 '\x44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
 '01900000-0000-7000-9000-0000000000c1', NULL, 'ann', NULL, NULL, '2025-03-01T09:00:15.000015Z', '2025-03-01T09:00:15.500000Z'),
(16, '01900000-0000-7000-8000-000000000010', 'south', 'account', 'A2', 2, 'account.deposited', 1, NULL,
 '{"euros":10}',
 '\x20ac79bfb734fe8c91f75dc289478444cf31bed05e8a6fa412b78c2c1a078de3',
 '01900000-0000-7000-9000-0000000000c2', NULL, 'ben', NULL, NULL, '2025-03-01T09:00:16.000016Z', '2025-03-01T09:00:16.500000Z'),
(17, '01900000-0000-7000-8000-000000000011', 'south', 'account', 'A2', 3, 'account.shut', 1, NULL,
 '{}',
 '\x44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
 '01900000-0000-7000-9000-0000000000c2', NULL, 'ben', NULL, NULL, '2025-03-01T09:00:17.000017Z', '2025-03-01T09:00:17.500000Z'),
(18, '01900000-0000-7000-8000-000000000012', NULL, 'meter', '8', 1, 'cqrs.created', 1, NULL,
 '{}',
 '\x44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a',
 '01900000-0000-7000-9000-0000000000c3', NULL, NULL, NULL, NULL, '2025-03-01T09:00:18.000018Z', '2025-03-01T09:00:18.500000Z'),
(19, '01900000-0000-7000-8000-000000000013', 'north', 'account', 'A1', 4, 'account.deposited', 1, NULL,
 '{"euros":-2}',
 '\x850ae930cbe0c0f351225ab0ae24617975f18d61b6fc96928f23e0e0a740cb56',
 '01900000-0000-7000-9000-0000000000c1', NULL, 'ann', NULL, NULL, '2025-03-01T09:00:19.000019Z', '2025-03-01T09:00:19.500000Z');
SELECT setval('cqrs_event_position', 20);

INSERT INTO cqrs_subscription (name, position, status, failed_attempts, failed_position, error, updated_at) VALUES
('account_total', 10, 'active', 0, NULL, NULL, '2025-03-01T09:00:30Z'),
('of_old', 5, 'halted', 4, 7, 'no such owner', '2025-03-01T09:00:31Z');
