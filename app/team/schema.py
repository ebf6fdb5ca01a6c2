"""The tables of a team's database, in a PostgreSQL schema of their own. A step, once released, is never edited.

``workspaces``    one row a workspace: how far its interactions are (``interaction_mark``: the newest id; ``step_mark``:
                  the newest line of their history) and ``turn``, which grows with every batch
``series``        one row a curve: workspace, device, quantity, unit; how far its samples are (``sample_mark``,
                  microseconds since 1970, and ``sample_count`` up to there)
``sample_rows``   (series, time) -> value, the meter's own time; a hypertable where TimescaleDB is
``samples``       a view of both, for people and dashboards
``interactions``  (workspace, id) -> the version pushed last; parameters, result and failure as JSON, without secrets.
                  Plain also where TimescaleDB is: its rows change, and a hypertable's key would have to hold a time
"""

from __future__ import annotations

from typing import Final

SCHEMA: Final = "meterwright"
LOCK: Final = 0x6D77_7465_616D  # of whoever makes or changes the tables
EXTENSION: Final = "timescaledb"
CHUNK: Final = "7 days"
START: Final = -(1 << 63)  # the mark of a series none of whose samples are there

STEP_1: Final = (
    f"CREATE TABLE {SCHEMA}.schema_version(version integer NOT NULL)",
    f"INSERT INTO {SCHEMA}.schema_version VALUES (0)",
    f"""CREATE TABLE {SCHEMA}.workspaces(
        id text PRIMARY KEY,
        name text NOT NULL,
        turn bigint NOT NULL DEFAULT 0,
        interaction_mark bigint NOT NULL DEFAULT 0,
        step_mark bigint NOT NULL DEFAULT 0,
        first_push timestamptz NOT NULL DEFAULT now(),
        last_push timestamptz
    )""",
    f"""CREATE TABLE {SCHEMA}.series(
        id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        workspace text NOT NULL REFERENCES {SCHEMA}.workspaces(id),
        device text NOT NULL,
        quantity text NOT NULL,
        unit text NOT NULL,
        title text NOT NULL,
        obis text NOT NULL,
        sample_mark bigint NOT NULL DEFAULT {START},
        sample_count bigint NOT NULL DEFAULT 0,
        UNIQUE (workspace, device, quantity, unit)
    ) WITH (fillfactor = 50)""",
    f"""CREATE TABLE {SCHEMA}.sample_rows(
        series integer NOT NULL,
        time timestamptz NOT NULL,
        value double precision NOT NULL,
        meter_time timestamptz,
        PRIMARY KEY (series, time)
    )""",
    f"""CREATE VIEW {SCHEMA}.samples AS
        SELECT s.workspace, s.device, s.quantity, s.unit, r.time, r.value, r.meter_time, r.series
        FROM {SCHEMA}.sample_rows AS r JOIN {SCHEMA}.series AS s ON s.id = r.series""",
    f"""CREATE TABLE {SCHEMA}.interactions(
        workspace text NOT NULL REFERENCES {SCHEMA}.workspaces(id),
        id bigint NOT NULL,
        version integer NOT NULL,
        device text NOT NULL,
        adapter text NOT NULL,
        command text NOT NULL,
        kind text NOT NULL,
        status text NOT NULL,
        origin text NOT NULL,
        created timestamptz NOT NULL,
        updated timestamptz NOT NULL,
        finished timestamptz,
        expires_at timestamptz,
        priority integer NOT NULL,
        attempts integer NOT NULL,
        failure_code text,
        failure jsonb,
        params jsonb NOT NULL,
        result jsonb,
        field_group text,
        followup_of bigint,
        commissioning bigint,
        batch bigint,
        order_ref text,
        replay_of bigint,
        shared_with bigint,
        PRIMARY KEY (workspace, id)
    )""",
    f"CREATE INDEX interactions_device ON {SCHEMA}.interactions(workspace, device, created)",
    f"CREATE INDEX interactions_created ON {SCHEMA}.interactions(created)",
    f"COMMENT ON TABLE {SCHEMA}.interactions IS 'Commands and reports of meters: the version pushed last'",
    f"COMMENT ON TABLE {SCHEMA}.sample_rows IS 'Values of meters; the view samples shows them with their names'",
    f"COMMENT ON COLUMN {SCHEMA}.sample_rows.time IS 'When the value came, by the clock of the recording computer'",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (STEP_1,)
"""``MIGRATIONS[n]`` takes the tables from version n to n + 1."""
VERSION: Final = len(MIGRATIONS)
