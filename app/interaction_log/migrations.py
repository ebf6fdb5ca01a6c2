"""The numbered steps that make a workspace's tables. A step, once released, is never edited; add the next one.

Times are integers, microseconds since 1970-01-01T00:00Z. Columns named ``*_w`` hold the id of a text in ``word``:
the few hundred texts that repeat (devices, commands, statuses, codes) cost one or two bytes a row and make every
index small. JSON columns are text. The view ``log`` shows interactions with their words, for people with a SQL shell.
"""

from __future__ import annotations

from typing import Final

STEP_1: Final = (
    """CREATE TABLE word(
        id INTEGER PRIMARY KEY,
        text TEXT NOT NULL UNIQUE
    ) STRICT""",
    """CREATE TABLE meta(
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    # A clock that was set back starts a new era; inside an era times grow with ids, so a time is found by bisection.
    """CREATE TABLE era(
        first_id INTEGER PRIMARY KEY
    ) STRICT""",
    """CREATE TABLE interaction(
        id INTEGER PRIMARY KEY,
        seq INTEGER NOT NULL,
        device_w INTEGER NOT NULL REFERENCES word(id),
        adapter_w INTEGER NOT NULL REFERENCES word(id),
        command_w INTEGER NOT NULL REFERENCES word(id),
        kind_w INTEGER NOT NULL REFERENCES word(id),
        status_w INTEGER NOT NULL REFERENCES word(id),
        origin_w INTEGER NOT NULL REFERENCES word(id),
        is_open INTEGER NOT NULL,
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        finished INTEGER,
        priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        code_w INTEGER REFERENCES word(id),
        followup_of INTEGER,
        commissioning INTEGER,
        batch INTEGER,
        replay_of INTEGER,
        expires_at INTEGER,
        field_group TEXT,
        order_ref TEXT,
        deferred_kind TEXT,
        token TEXT,
        params TEXT,
        failure TEXT,
        result TEXT
    ) STRICT""",
    "CREATE INDEX interaction_device ON interaction(device_w)",
    "CREATE INDEX interaction_command ON interaction(command_w)",
    "CREATE INDEX interaction_status ON interaction(status_w)",
    "CREATE INDEX interaction_kind ON interaction(kind_w)",
    "CREATE INDEX interaction_origin ON interaction(origin_w)",
    "CREATE INDEX interaction_code ON interaction(code_w) WHERE code_w IS NOT NULL",
    "CREATE INDEX interaction_open ON interaction(id) WHERE is_open = 1",
    "CREATE INDEX interaction_followup ON interaction(followup_of) WHERE followup_of IS NOT NULL",
    "CREATE INDEX interaction_commissioning ON interaction(commissioning) WHERE commissioning IS NOT NULL",
    "CREATE INDEX interaction_batch ON interaction(batch) WHERE batch IS NOT NULL",
    """CREATE TABLE step(
        id INTEGER PRIMARY KEY,
        interaction INTEGER NOT NULL REFERENCES interaction(id),
        at INTEGER NOT NULL,
        step INTEGER NOT NULL,
        event_w INTEGER NOT NULL REFERENCES word(id),
        status_w INTEGER REFERENCES word(id),
        code_w INTEGER REFERENCES word(id),
        attempt INTEGER,
        actor_w INTEGER NOT NULL REFERENCES word(id),
        text TEXT
    ) STRICT""",
    "CREATE INDEX step_interaction ON step(interaction)",
    """CREATE TABLE message(
        id INTEGER PRIMARY KEY,
        interaction INTEGER NOT NULL REFERENCES interaction(id),
        device_w INTEGER NOT NULL REFERENCES word(id),
        lane_w INTEGER NOT NULL REFERENCES word(id),
        created INTEGER NOT NULL,
        state_w INTEGER NOT NULL REFERENCES word(id),
        priority INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        group_rank INTEGER NOT NULL,
        retry_count INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        state_since INTEGER,
        due INTEGER,
        accepted INTEGER,
        holds_slot INTEGER NOT NULL,
        field_group TEXT,
        phase TEXT,
        ref TEXT,
        hold_reason TEXT
    ) STRICT""",
    "CREATE INDEX message_interaction ON message(interaction)",
    """CREATE TABLE attempt(
        interaction INTEGER NOT NULL REFERENCES interaction(id),
        message INTEGER NOT NULL REFERENCES message(id),
        number INTEGER NOT NULL,
        started INTEGER NOT NULL,
        end_w INTEGER NOT NULL REFERENCES word(id),
        ended INTEGER,
        code_w INTEGER REFERENCES word(id),
        ref TEXT,
        text TEXT,
        PRIMARY KEY (interaction, message, number)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE frame(
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        device_w INTEGER NOT NULL REFERENCES word(id),
        link_w INTEGER NOT NULL REFERENCES word(id),
        direction_w INTEGER NOT NULL REFERENCES word(id),
        interaction INTEGER REFERENCES interaction(id),
        attempt INTEGER,
        truncated INTEGER NOT NULL,
        note TEXT,
        data BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX frame_interaction ON frame(interaction) WHERE interaction IS NOT NULL",
    "CREATE INDEX frame_device ON frame(device_w, at)",
    """CREATE TABLE series(
        id INTEGER PRIMARY KEY,
        device_w INTEGER NOT NULL REFERENCES word(id),
        name TEXT NOT NULL,
        unit TEXT NOT NULL,
        title TEXT NOT NULL,
        obis TEXT NOT NULL,
        UNIQUE (device_w, name, unit)
    ) STRICT""",
    """CREATE TABLE sample(
        series INTEGER NOT NULL REFERENCES series(id),
        at INTEGER NOT NULL,
        value REAL NOT NULL,
        meter_time INTEGER,
        PRIMARY KEY (series, at)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE finding(
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        device_w INTEGER NOT NULL REFERENCES word(id),
        severity_w INTEGER NOT NULL REFERENCES word(id),
        code_w INTEGER NOT NULL REFERENCES word(id),
        interaction INTEGER REFERENCES interaction(id),
        cleared INTEGER NOT NULL,
        text TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX finding_device ON finding(device_w)",
    "CREATE INDEX finding_interaction ON finding(interaction) WHERE interaction IS NOT NULL",
    """CREATE TABLE device(
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        parent TEXT NOT NULL,
        adapter TEXT NOT NULL,
        serial TEXT NOT NULL,
        model TEXT NOT NULL,
        settings TEXT NOT NULL,
        attributes TEXT NOT NULL,
        enabled INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE device_state(
        device TEXT PRIMARY KEY,
        link TEXT NOT NULL,
        link_text TEXT NOT NULL,
        link_since INTEGER,
        last_contact INTEGER,
        busy_with TEXT NOT NULL,
        facts TEXT NOT NULL,
        facts_at TEXT NOT NULL
    ) STRICT""",
    # AUTOINCREMENT: finished items are deleted, and their numbers must not come back.
    """CREATE TABLE outbox(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        interaction INTEGER NOT NULL REFERENCES interaction(id),
        effect TEXT NOT NULL,
        payload TEXT NOT NULL,
        created INTEGER NOT NULL,
        given_up INTEGER,
        failed TEXT
    ) STRICT""",
    "CREATE INDEX outbox_pending ON outbox(id) WHERE given_up IS NULL",
    """CREATE TABLE setting(
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE VIEW log AS
        SELECT i.id, datetime(i.created / 1000000, 'unixepoch') AS created_utc, device.text AS device,
               command.text AS command, status.text AS status, kind.text AS kind, origin.text AS origin,
               adapter.text AS adapter, code.text AS code, i.attempts,
               (i.finished - i.created) / 1000.0 AS took_ms, i.params, i.result, i.failure
        FROM interaction AS i
        JOIN word AS device ON device.id = i.device_w
        JOIN word AS adapter ON adapter.id = i.adapter_w
        JOIN word AS command ON command.id = i.command_w
        JOIN word AS status ON status.id = i.status_w
        JOIN word AS kind ON kind.id = i.kind_w
        JOIN word AS origin ON origin.id = i.origin_w
        LEFT JOIN word AS code ON code.id = i.code_w""",
)

# Full text has its own rows, written in batches long after the interaction: never a trigger, and contentless, so that
# a second text of the same interaction adds its words. ``text_todo``: rows below the mark whose text has grown since.
STEP_2: Final = (
    """CREATE VIRTUAL TABLE log_text USING fts5(
        body, content='', columnsize=0, tokenize="unicode61 remove_diacritics 2"
    )""",
    "CREATE TABLE text_todo(id INTEGER PRIMARY KEY) STRICT",
    "INSERT INTO meta(key, value) VALUES ('text_mark', '0')",
)

# A flow record (app/model/flow.py) is found by the columns and kept whole in ``body``.
STEP_3: Final = (
    "ALTER TABLE interaction ADD COLUMN shared_with INTEGER",
    "ALTER TABLE device_state ADD COLUMN facts_from TEXT NOT NULL DEFAULT '{}'",
    """CREATE TABLE flow(
        kind TEXT NOT NULL,
        id INTEGER NOT NULL,
        device TEXT,
        state TEXT NOT NULL,
        is_open INTEGER NOT NULL,
        updated INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, id)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX flow_open ON flow(kind, id) WHERE is_open = 1",
    "CREATE INDEX flow_device ON flow(kind, device, id) WHERE device IS NOT NULL",
)

# ``seen``: names of events of services, so that one that comes again after a restart is known (head-end 7.2).
STEP_4: Final = (
    "ALTER TABLE device ADD COLUMN route TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE device ADD COLUMN routes TEXT NOT NULL DEFAULT '[]'",
    """CREATE TABLE seen(
        scope TEXT NOT NULL,
        name TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (scope, name)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX seen_at ON seen(at)",
)

# ``crc``: CRC-32 of ``data`` as it was written, NULL in rows of older formats.
STEP_5: Final = (
    "ALTER TABLE frame ADD COLUMN crc INTEGER",
    "CREATE INDEX finding_code ON finding(code_w, interaction) WHERE interaction IS NOT NULL",
)

# ``inputs``: what the gatekeeper's verdict depended on, JSON. ``attachment``: photos and files of flow records.
STEP_6: Final = (
    "ALTER TABLE step ADD COLUMN inputs TEXT",
    """CREATE TABLE attachment(
        sha256 TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        media_type TEXT NOT NULL,
        at INTEGER NOT NULL,
        data BLOB NOT NULL
    ) STRICT""",
)

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (STEP_1, STEP_2, STEP_3, STEP_4, STEP_5, STEP_6)
"""``MIGRATIONS[n]`` takes a file from version n to n + 1."""
