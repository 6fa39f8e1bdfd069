-- The control schema of a cell: who lives here (fence), what opens the door (secret, enter), what policies ask (tenant).
-- Run as the administrator, who owns everything here; application roles own nothing. The schema and its table
-- `revision` (the ledger of what has been applied) exist already: they are what applies this.

REVOKE ALL ON SCHEMA strata FROM PUBLIC;
GRANT USAGE ON SCHEMA strata TO PUBLIC;

-- One row. `timeline` is the one the catalog approved: a promoted standby runs on another and stays closed.
CREATE TABLE strata.cell (
    single     boolean PRIMARY KEY DEFAULT true CHECK (single),
    name       text    NOT NULL,
    app_role   name    NOT NULL,
    timeline   text    NOT NULL,
    partitions integer NOT NULL CHECK (partitions BETWEEN 1 AND 256)
);

INSERT INTO strata.cell (name, app_role, timeline, partitions)
VALUES (current_setting('strata.install_name'), current_setting('strata.install_app_role'),
        left(pg_walfile_name(pg_current_wal_lsn()), 8), current_setting('strata.install_partitions')::int);

-- HMAC (RFC 2104) needs the key only as its two padded blocks; keeping those saves the padding at every call.
CREATE TABLE strata.secret (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    ipad   bytea NOT NULL CHECK (octet_length(ipad) = 64),
    opad   bytea NOT NULL CHECK (octet_length(opad) = 64)
);

INSERT INTO strata.secret (ipad, opad)
VALUES (decode(current_setting('strata.install_ipad'), 'hex'), decode(current_setting('strata.install_opad'), 'hex'));

-- What this cell enforces about each tenant; the catalog's placement leads, and differs only during a cut-over.
CREATE TABLE strata.fence (
    tenant_id   uuid   PRIMARY KEY,
    epoch       bigint NOT NULL CHECK (epoch > 0),
    state       text   NOT NULL CHECK (state IN ('active', 'moving', 'moved')),
    schema_name name   NOT NULL,
    attempt     bigint
);

REVOKE ALL ON ALL TABLES IN SCHEMA strata FROM PUBLIC;
