-- SPDX-License-Identifier: Apache-2.0
-- The results store. Each "-- version N" section takes a store from version N - 1 to N; sections
-- are only ever added, so that an old store is brought up to date when it is opened for writing.
-- Result tables hold no clocks: their rows, read in key order, are equal however a sweep was run.

-- version 1

-- A recording. shape: JSON of the model's dimensions and channel order.
CREATE TABLE trace (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    model_name TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    model_source TEXT NOT NULL,
    weights_as TEXT NOT NULL,
    task_name TEXT NOT NULL,
    task_path TEXT NOT NULL,
    task_prompt TEXT NOT NULL,
    task_digest TEXT NOT NULL,
    subset TEXT NOT NULL,
    window_tokens INTEGER NOT NULL,
    n_items INTEGER NOT NULL,
    n_tokens INTEGER NOT NULL,
    shape TEXT NOT NULL,
    tool_version TEXT NOT NULL,
    blas TEXT NOT NULL
);

-- One question or text window of a trace. key: hash of tokens and boundaries; context_key: hash of
-- the context's tokens, shared by items that ask about one context.
CREATE TABLE item (
    trace INTEGER NOT NULL REFERENCES trace (id),
    item INTEGER NOT NULL,
    id TEXT NOT NULL,
    source TEXT NOT NULL,
    gold INTEGER NOT NULL, -- -1 for text
    n_context INTEGER NOT NULL,
    n_choices INTEGER NOT NULL,
    n_tokens INTEGER NOT NULL,
    key TEXT NOT NULL,
    context_key TEXT NOT NULL,
    PRIMARY KEY (trace, item)
) WITHOUT ROWID;

-- A policy and a format in canonical spelling. oracle: reads the future.
CREATE TABLE policy_spec (
    id INTEGER PRIMARY KEY,
    spec TEXT NOT NULL UNIQUE,
    policy TEXT NOT NULL,
    format TEXT NOT NULL, -- '' when the policy needs none
    tag TEXT NOT NULL,
    oracle INTEGER NOT NULL
);

-- One spec replayed one way over one trace. variant: further settings as canonical key=value text,
-- '' for none.
CREATE TABLE run (
    id INTEGER PRIMARY KEY,
    spec INTEGER NOT NULL REFERENCES policy_spec (id),
    trace INTEGER NOT NULL REFERENCES trace (id),
    fidelity TEXT NOT NULL,
    mode TEXT NOT NULL,
    self TEXT NOT NULL,
    compute TEXT NOT NULL,
    variant TEXT NOT NULL,
    seed INTEGER NOT NULL,
    redraw INTEGER NOT NULL,
    version TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    cpu TEXT NOT NULL,
    blas TEXT NOT NULL,
    UNIQUE (spec, trace, fidelity, mode, self, compute, variant, seed, redraw, version, git_commit)
);

-- What a run gave on an item. Picks are NULL where the fidelity cannot know them; pick_ref_* are
-- the 16-bit run's. kl_nats is a scored token's.
CREATE TABLE outcome_item (
    run INTEGER NOT NULL REFERENCES run (id),
    item INTEGER NOT NULL,
    pick_acc INTEGER,
    pick_acc_norm INTEGER,
    pick_acc_bytes INTEGER,
    pick_acc_token INTEGER,
    pick_ref_acc INTEGER,
    pick_ref_acc_norm INTEGER,
    pick_ref_acc_bytes INTEGER,
    pick_ref_acc_token INTEGER,
    margin REAL,
    kl_nats REAL,
    n_scored INTEGER NOT NULL,
    nominal_bits REAL,
    effective_bits REAL,
    allocated_bits REAL,
    entropy_bits REAL,
    bytes_per_token REAL,
    PRIMARY KEY (run, item)
) WITHOUT ROWID;

-- ... on each choice. kl_nats is the sum over the choice's scored positions.
CREATE TABLE outcome_choice (
    run INTEGER NOT NULL REFERENCES run (id),
    item INTEGER NOT NULL,
    choice INTEGER NOT NULL,
    logprob REAL,
    logprob_ref REAL,
    kl_nats REAL,
    tokens INTEGER NOT NULL,
    chars INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    logprob_after_prefix REAL,
    tokens_after_prefix INTEGER NOT NULL,
    PRIMARY KEY (run, item, choice)
) WITHOUT ROWID;

-- Share of an item's cached values at a width. side: 0 = K, 1 = V; bits: 0..16, 17 = float32.
CREATE TABLE outcome_share (
    run INTEGER NOT NULL REFERENCES run (id),
    item INTEGER NOT NULL,
    side INTEGER NOT NULL,
    bits INTEGER NOT NULL,
    share REAL NOT NULL,
    PRIMARY KEY (run, item, side, bits)
) WITHOUT ROWID;

-- A latency model and the real runs it was fitted to. parameters: the device file's JSON.
CREATE TABLE device (
    name TEXT PRIMARY KEY,
    summary TEXT NOT NULL,
    provenance TEXT NOT NULL,
    parameters TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE device_run (
    device TEXT NOT NULL REFERENCES device (name),
    run INTEGER NOT NULL,
    context INTEGER NOT NULL,
    mix TEXT NOT NULL,
    measured_ns INTEGER NOT NULL,
    predicted_ns INTEGER,
    held_out INTEGER NOT NULL,
    PRIMARY KEY (device, run)
) WITHOUT ROWID;

-- Predicted price of a decode step. ceiling_ns: the same step with a cache of zero bytes.
CREATE TABLE latency (
    run INTEGER NOT NULL REFERENCES run (id),
    device TEXT NOT NULL,
    context INTEGER NOT NULL,
    step_ns INTEGER NOT NULL,
    cache_ns INTEGER NOT NULL,
    ceiling_ns INTEGER NOT NULL,
    cache_bytes REAL NOT NULL,
    extrapolated INTEGER NOT NULL,
    PRIMARY KEY (run, device, context)
) WITHOUT ROWID;

-- How long runs took. Kept apart: the only table that differs from sweep to sweep.
CREATE TABLE timing (
    run INTEGER PRIMARY KEY REFERENCES run (id),
    wall_s REAL NOT NULL,
    cpu_s REAL NOT NULL,
    items INTEGER NOT NULL
);

-- Runs that differ in the redraw alone form a family, named by its first run.
CREATE VIEW family AS
SELECT id AS run,
       MIN(id) OVER (PARTITION BY spec, trace, fidelity, mode, self, compute, variant, seed,
                     version, git_commit) AS family
FROM run;

-- A family's result on an item, redraws averaged before anything is compared. right_*: 1 when the
-- pick is the gold choice; ref_*: the 16-bit run's; agree: same pick as 16 bit.
CREATE VIEW item_result AS
SELECT f.family, o.item, i.id, i.source, i.gold, i.context_key, COUNT(*) AS redraws,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc = i.gold) END AS right_acc,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc_norm = i.gold) END AS right_acc_norm,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc_bytes = i.gold) END AS right_acc_bytes,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc_token = i.gold) END AS right_acc_token,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc = i.gold) END AS ref_acc,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc_norm = i.gold) END AS ref_acc_norm,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc_bytes = i.gold) END AS ref_acc_bytes,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc_token = i.gold) END AS ref_acc_token,
       AVG(o.pick_acc = o.pick_ref_acc) AS agree, AVG(o.margin) AS margin,
       AVG(o.kl_nats) AS kl_nats, AVG(o.n_scored) AS n_scored,
       AVG(o.nominal_bits) AS nominal_bits, AVG(o.effective_bits) AS effective_bits,
       AVG(o.allocated_bits) AS allocated_bits, AVG(o.entropy_bits) AS entropy_bits,
       AVG(o.bytes_per_token) AS bytes_per_token,
       CASE WHEN i.n_choices > 0 THEN 1.0 / i.n_choices END AS chance,
       i.n_context + (i.n_tokens - i.n_context) * 1.0 / MAX(i.n_choices, 1) AS context_tokens
FROM outcome_item AS o
JOIN run AS r ON r.id = o.run
JOIN family AS f ON f.run = o.run
JOIN item AS i ON i.trace = r.trace AND i.item = o.item
GROUP BY f.family, o.item;

-- One row a family: means over items; kl_nats a scored token. context_tokens: mean length at which
-- the accuracy was measured.
CREATE VIEW summary AS
SELECT r.id AS family, s.spec, s.policy, s.format, s.tag, s.oracle, r.trace, t.task_name,
       t.task_prompt, t.subset, t.model_name, t.digest AS trace_digest, r.fidelity, r.mode, r.self,
       r.compute, r.variant, r.seed, r.version, r.git_commit, MAX(x.redraws) AS redraws,
       COUNT(*) AS n, t.n_items AS n_trace, COUNT(x.right_acc) AS n_judged, AVG(x.chance) AS chance,
       AVG(x.right_acc) AS acc, AVG(x.right_acc_norm) AS acc_norm,
       AVG(x.right_acc_bytes) AS acc_bytes, AVG(x.right_acc_token) AS acc_token,
       AVG(x.ref_acc) AS ref_acc, AVG(x.ref_acc_norm) AS ref_acc_norm,
       AVG(x.ref_acc_bytes) AS ref_acc_bytes, AVG(x.ref_acc_token) AS ref_acc_token,
       AVG(x.agree) AS agree, AVG(x.margin) AS margin,
       SUM(x.kl_nats * x.n_scored) / SUM(CASE WHEN x.kl_nats IS NOT NULL THEN x.n_scored END)
           AS kl_nats,
       AVG(x.nominal_bits) AS nominal_bits, AVG(x.effective_bits) AS effective_bits,
       AVG(x.allocated_bits) AS allocated_bits, AVG(x.entropy_bits) AS entropy_bits,
       AVG(x.bytes_per_token) AS bytes_per_token, AVG(x.context_tokens) AS context_tokens
FROM item_result AS x
JOIN run AS r ON r.id = x.family
JOIN policy_spec AS s ON s.id = r.spec
JOIN trace AS t ON t.id = r.trace
GROUP BY x.family
ORDER BY s.spec, x.family;

-- Against the 16-bit run on the same items: won = right only here, lost = right only there.
CREATE VIEW paired AS
SELECT family, COUNT(right_acc) AS n, SUM(MAX(right_acc - ref_acc, 0)) AS won,
       SUM(MAX(ref_acc - right_acc, 0)) AS lost, AVG(right_acc - ref_acc) AS difference,
       AVG(right_acc_norm - ref_acc_norm) AS difference_norm, AVG(agree) AS agree
FROM item_result
WHERE right_acc IS NOT NULL
GROUP BY family
ORDER BY family;

-- Rows of the summary that no other of the same trace and fidelity beats in accuracy and bits.
CREATE VIEW frontier AS
WITH s AS MATERIALIZED (SELECT * FROM summary WHERE acc IS NOT NULL)
SELECT * FROM s AS a
WHERE NOT EXISTS (SELECT 1 FROM s AS b
                  WHERE b.trace = a.trace AND b.fidelity = a.fidelity AND b.acc >= a.acc
                    AND b.effective_bits <= a.effective_bits
                    AND (b.acc > a.acc OR b.effective_bits < a.effective_bits))
ORDER BY trace, fidelity, effective_bits, family;

-- Mean over items and redraws of the widths' shares.
CREATE VIEW share AS
WITH held AS (SELECT run, side, bits, SUM(share) AS total FROM outcome_share
              GROUP BY run, side, bits),
     counted AS MATERIALIZED (SELECT f.family, COUNT(*) AS n FROM outcome_item AS o
                              JOIN family AS f ON f.run = o.run GROUP BY f.family)
SELECT f.family, h.side, h.bits, SUM(h.total) / c.n AS share
FROM held AS h
JOIN family AS f ON f.run = h.run
JOIN counted AS c ON c.family = f.family
GROUP BY f.family, h.side, h.bits
ORDER BY f.family, h.side, h.bits;

-- version 2

-- The processor level is a part of what a run is: a sweep that goes on where there is another level
-- makes a run of its own. Views are made again, since they cannot outlive the table they read.
DROP VIEW share;
DROP VIEW frontier;
DROP VIEW paired;
DROP VIEW summary;
DROP VIEW item_result;
DROP VIEW family;
CREATE TABLE run_by_level (
    id INTEGER PRIMARY KEY,
    spec INTEGER NOT NULL REFERENCES policy_spec (id),
    trace INTEGER NOT NULL REFERENCES trace (id),
    fidelity TEXT NOT NULL,
    mode TEXT NOT NULL,
    self TEXT NOT NULL,
    compute TEXT NOT NULL,
    variant TEXT NOT NULL,
    seed INTEGER NOT NULL,
    redraw INTEGER NOT NULL,
    version TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    cpu TEXT NOT NULL,
    blas TEXT NOT NULL,
    UNIQUE (spec, trace, fidelity, mode, self, compute, variant, seed, redraw, version, git_commit,
            cpu)
);
INSERT INTO run_by_level SELECT * FROM run;
DROP TABLE run;
ALTER TABLE run_by_level RENAME TO run;

-- Runs that differ in the redraw alone form a family, named by its first run.
CREATE VIEW family AS
SELECT id AS run,
       MIN(id) OVER (PARTITION BY spec, trace, fidelity, mode, self, compute, variant, seed,
                     version, git_commit, cpu) AS family
FROM run;

-- A family's result on an item, redraws averaged before anything is compared. right_*: 1 when the
-- pick is the gold choice; ref_*: the 16-bit run's; agree: same pick as 16 bit.
CREATE VIEW item_result AS
SELECT f.family, o.item, i.id, i.source, i.gold, i.context_key, COUNT(*) AS redraws,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc = i.gold) END AS right_acc,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc_norm = i.gold) END AS right_acc_norm,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc_bytes = i.gold) END AS right_acc_bytes,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_acc_token = i.gold) END AS right_acc_token,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc = i.gold) END AS ref_acc,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc_norm = i.gold) END AS ref_acc_norm,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc_bytes = i.gold) END AS ref_acc_bytes,
       CASE WHEN i.gold >= 0 THEN AVG(o.pick_ref_acc_token = i.gold) END AS ref_acc_token,
       AVG(o.pick_acc = o.pick_ref_acc) AS agree, AVG(o.margin) AS margin,
       AVG(o.kl_nats) AS kl_nats, AVG(o.n_scored) AS n_scored,
       AVG(o.nominal_bits) AS nominal_bits, AVG(o.effective_bits) AS effective_bits,
       AVG(o.allocated_bits) AS allocated_bits, AVG(o.entropy_bits) AS entropy_bits,
       AVG(o.bytes_per_token) AS bytes_per_token,
       CASE WHEN i.n_choices > 0 THEN 1.0 / i.n_choices END AS chance,
       i.n_context + (i.n_tokens - i.n_context) * 1.0 / MAX(i.n_choices, 1) AS context_tokens
FROM outcome_item AS o
JOIN run AS r ON r.id = o.run
JOIN family AS f ON f.run = o.run
JOIN item AS i ON i.trace = r.trace AND i.item = o.item
GROUP BY f.family, o.item;

-- One row a family: means over items; kl_nats a scored token. context_tokens: mean length at which
-- the accuracy was measured.
CREATE VIEW summary AS
SELECT r.id AS family, s.spec, s.policy, s.format, s.tag, s.oracle, r.trace, t.task_name,
       t.task_prompt, t.subset, t.model_name, t.digest AS trace_digest, r.fidelity, r.mode, r.self,
       r.compute, r.variant, r.seed, r.version, r.git_commit, r.cpu,
       MAX(x.redraws) AS redraws,
       COUNT(*) AS n, t.n_items AS n_trace, COUNT(x.right_acc) AS n_judged, AVG(x.chance) AS chance,
       AVG(x.right_acc) AS acc, AVG(x.right_acc_norm) AS acc_norm,
       AVG(x.right_acc_bytes) AS acc_bytes, AVG(x.right_acc_token) AS acc_token,
       AVG(x.ref_acc) AS ref_acc, AVG(x.ref_acc_norm) AS ref_acc_norm,
       AVG(x.ref_acc_bytes) AS ref_acc_bytes, AVG(x.ref_acc_token) AS ref_acc_token,
       AVG(x.agree) AS agree, AVG(x.margin) AS margin,
       SUM(x.kl_nats * x.n_scored) / SUM(CASE WHEN x.kl_nats IS NOT NULL THEN x.n_scored END)
           AS kl_nats,
       AVG(x.nominal_bits) AS nominal_bits, AVG(x.effective_bits) AS effective_bits,
       AVG(x.allocated_bits) AS allocated_bits, AVG(x.entropy_bits) AS entropy_bits,
       AVG(x.bytes_per_token) AS bytes_per_token, AVG(x.context_tokens) AS context_tokens
FROM item_result AS x
JOIN run AS r ON r.id = x.family
JOIN policy_spec AS s ON s.id = r.spec
JOIN trace AS t ON t.id = r.trace
GROUP BY x.family
ORDER BY s.spec, x.family;

-- Against the 16-bit run on the same items: won = right only here, lost = right only there.
CREATE VIEW paired AS
SELECT family, COUNT(right_acc) AS n, SUM(MAX(right_acc - ref_acc, 0)) AS won,
       SUM(MAX(ref_acc - right_acc, 0)) AS lost, AVG(right_acc - ref_acc) AS difference,
       AVG(right_acc_norm - ref_acc_norm) AS difference_norm, AVG(agree) AS agree
FROM item_result
WHERE right_acc IS NOT NULL
GROUP BY family
ORDER BY family;

-- Rows of the summary that no other of the same trace and fidelity beats in accuracy and bits.
CREATE VIEW frontier AS
WITH s AS MATERIALIZED (SELECT * FROM summary WHERE acc IS NOT NULL)
SELECT * FROM s AS a
WHERE NOT EXISTS (SELECT 1 FROM s AS b
                  WHERE b.trace = a.trace AND b.fidelity = a.fidelity AND b.acc >= a.acc
                    AND b.effective_bits <= a.effective_bits
                    AND (b.acc > a.acc OR b.effective_bits < a.effective_bits))
ORDER BY trace, fidelity, effective_bits, family;

-- Mean over items and redraws of the widths' shares.
CREATE VIEW share AS
WITH held AS (SELECT run, side, bits, SUM(share) AS total FROM outcome_share
              GROUP BY run, side, bits),
     counted AS MATERIALIZED (SELECT f.family, COUNT(*) AS n FROM outcome_item AS o
                              JOIN family AS f ON f.run = o.run GROUP BY f.family)
SELECT f.family, h.side, h.bits, SUM(h.total) / c.n AS share
FROM held AS h
JOIN family AS f ON f.run = h.run
JOIN counted AS c ON c.family = f.family
GROUP BY f.family, h.side, h.bits
ORDER BY f.family, h.side, h.bits;

-- version 3

-- label: the short name that tables print, made from the spec and its trace alone: what is at its
-- default is left out, and the channel order where it is the one that the format takes by itself.
ALTER TABLE run ADD COLUMN label TEXT NOT NULL DEFAULT '';
DROP VIEW frontier;
DROP VIEW summary;

-- One row a family: means over items; kl_nats a scored token. label: the name that tables print.
-- context_tokens: mean length at which the accuracy was measured.
CREATE VIEW summary AS
SELECT r.id AS family, r.label, s.spec, s.policy, s.format, s.tag, s.oracle, r.trace, t.task_name,
       t.task_prompt, t.subset, t.model_name, t.digest AS trace_digest, r.fidelity, r.mode, r.self,
       r.compute, r.variant, r.seed, r.version, r.git_commit, r.cpu,
       MAX(x.redraws) AS redraws,
       COUNT(*) AS n, t.n_items AS n_trace, COUNT(x.right_acc) AS n_judged, AVG(x.chance) AS chance,
       AVG(x.right_acc) AS acc, AVG(x.right_acc_norm) AS acc_norm,
       AVG(x.right_acc_bytes) AS acc_bytes, AVG(x.right_acc_token) AS acc_token,
       AVG(x.ref_acc) AS ref_acc, AVG(x.ref_acc_norm) AS ref_acc_norm,
       AVG(x.ref_acc_bytes) AS ref_acc_bytes, AVG(x.ref_acc_token) AS ref_acc_token,
       AVG(x.agree) AS agree, AVG(x.margin) AS margin,
       SUM(x.kl_nats * x.n_scored) / SUM(CASE WHEN x.kl_nats IS NOT NULL THEN x.n_scored END)
           AS kl_nats,
       AVG(x.nominal_bits) AS nominal_bits, AVG(x.effective_bits) AS effective_bits,
       AVG(x.allocated_bits) AS allocated_bits, AVG(x.entropy_bits) AS entropy_bits,
       AVG(x.bytes_per_token) AS bytes_per_token, AVG(x.context_tokens) AS context_tokens
FROM item_result AS x
JOIN run AS r ON r.id = x.family
JOIN policy_spec AS s ON s.id = r.spec
JOIN trace AS t ON t.id = r.trace
GROUP BY x.family
ORDER BY s.spec, x.family;

-- What `kvsim frontier` marks by default: of each recording and setting, the rows that no other
-- beats in `value` (acc on the n_common items that all of them hold and judged) and effective bits.
-- Policies that read the future do not compete; of several builds the fullest run does, then the
-- newest.
CREATE VIEW frontier AS
WITH builds AS MATERIALIZED (
         SELECT *, ROW_NUMBER() OVER (PARTITION BY trace, spec, seed, fidelity, mode, self, compute,
                                      variant ORDER BY n DESC, family DESC) AS build
         FROM summary WHERE NOT oracle),
     row AS MATERIALIZED (
         SELECT *, DENSE_RANK() OVER (ORDER BY trace, fidelity, mode, self, compute,
                                      CASE fidelity WHEN 'exact' THEN variant LIKE '%closed%'
                                      ELSE variant END) AS setting
         FROM builds WHERE build = 1),
     judged AS MATERIALIZED (
         SELECT r.setting, r.family, x.item, x.right_acc
         FROM row AS r JOIN item_result AS x ON x.family = r.family
         WHERE x.right_acc IS NOT NULL),
     common AS (SELECT j.setting, j.item FROM judged AS j GROUP BY j.setting, j.item
                HAVING COUNT(*) = (SELECT COUNT(*) FROM row AS r WHERE r.setting = j.setting)),
     point AS MATERIALIZED (
         SELECT j.setting, j.family, AVG(j.right_acc) AS value, COUNT(*) AS n_common,
                r.effective_bits AS cost
         FROM judged AS j
         JOIN common AS c ON c.setting = j.setting AND c.item = j.item
         JOIN row AS r ON r.family = j.family
         GROUP BY j.setting, j.family)
SELECT s.*, a.value, a.n_common
FROM point AS a
JOIN summary AS s ON s.family = a.family
WHERE NOT EXISTS (SELECT 1 FROM point AS b
                  WHERE b.setting = a.setting AND b.value >= a.value AND b.cost <= a.cost
                    AND (b.value > a.value OR b.cost < a.cost))
ORDER BY s.trace, a.setting, s.effective_bits DESC, s.family;

-- version 4

-- name: what the user calls a spec (`sweep --as NAME=SPEC`), '' for no name. Labels are made again,
-- since lists over layers and heads are short in them now.
ALTER TABLE policy_spec ADD COLUMN name TEXT NOT NULL DEFAULT '';
UPDATE run SET label = '';
DROP VIEW frontier;
DROP VIEW summary;

-- One row a family: means over items; kl_nats a scored token. label: the name that tables print,
-- which is the one that `sweep --as` gave the spec, else short_label.
-- context_tokens: mean length at which the accuracy was measured.
CREATE VIEW summary AS
SELECT r.id AS family, CASE s.name WHEN '' THEN r.label ELSE s.name END AS label,
       r.label AS short_label, s.spec, s.policy, s.format, s.tag, s.oracle, r.trace, t.task_name,
       t.task_prompt, t.subset, t.model_name, t.digest AS trace_digest, r.fidelity, r.mode, r.self,
       r.compute, r.variant, r.seed, r.version, r.git_commit, r.cpu,
       MAX(x.redraws) AS redraws,
       COUNT(*) AS n, t.n_items AS n_trace, COUNT(x.right_acc) AS n_judged, AVG(x.chance) AS chance,
       AVG(x.right_acc) AS acc, AVG(x.right_acc_norm) AS acc_norm,
       AVG(x.right_acc_bytes) AS acc_bytes, AVG(x.right_acc_token) AS acc_token,
       AVG(x.ref_acc) AS ref_acc, AVG(x.ref_acc_norm) AS ref_acc_norm,
       AVG(x.ref_acc_bytes) AS ref_acc_bytes, AVG(x.ref_acc_token) AS ref_acc_token,
       AVG(x.agree) AS agree, AVG(x.margin) AS margin,
       SUM(x.kl_nats * x.n_scored) / SUM(CASE WHEN x.kl_nats IS NOT NULL THEN x.n_scored END)
           AS kl_nats,
       AVG(x.nominal_bits) AS nominal_bits, AVG(x.effective_bits) AS effective_bits,
       AVG(x.allocated_bits) AS allocated_bits, AVG(x.entropy_bits) AS entropy_bits,
       AVG(x.bytes_per_token) AS bytes_per_token, AVG(x.context_tokens) AS context_tokens
FROM item_result AS x
JOIN run AS r ON r.id = x.family
JOIN policy_spec AS s ON s.id = r.spec
JOIN trace AS t ON t.id = r.trace
GROUP BY x.family
ORDER BY s.spec, x.family;

-- What `kvsim frontier` marks by default: of each recording and setting, the rows that no other
-- beats in `value` (acc on the n_common items that all of them hold and judged) and effective bits.
-- Policies that read the future do not compete; of several builds the fullest run does, then the
-- newest.
CREATE VIEW frontier AS
WITH builds AS MATERIALIZED (
         SELECT *, ROW_NUMBER() OVER (PARTITION BY trace, spec, seed, fidelity, mode, self, compute,
                                      variant ORDER BY n DESC, family DESC) AS build
         FROM summary WHERE NOT oracle),
     row AS MATERIALIZED (
         SELECT *, DENSE_RANK() OVER (ORDER BY trace, fidelity, mode, self, compute,
                                      CASE fidelity WHEN 'exact' THEN variant LIKE '%closed%'
                                      ELSE variant END) AS setting
         FROM builds WHERE build = 1),
     judged AS MATERIALIZED (
         SELECT r.setting, r.family, x.item, x.right_acc
         FROM row AS r JOIN item_result AS x ON x.family = r.family
         WHERE x.right_acc IS NOT NULL),
     common AS (SELECT j.setting, j.item FROM judged AS j GROUP BY j.setting, j.item
                HAVING COUNT(*) = (SELECT COUNT(*) FROM row AS r WHERE r.setting = j.setting)),
     point AS MATERIALIZED (
         SELECT j.setting, j.family, AVG(j.right_acc) AS value, COUNT(*) AS n_common,
                r.effective_bits AS cost
         FROM judged AS j
         JOIN common AS c ON c.setting = j.setting AND c.item = j.item
         JOIN row AS r ON r.family = j.family
         GROUP BY j.setting, j.family)
SELECT s.*, a.value, a.n_common
FROM point AS a
JOIN summary AS s ON s.family = a.family
WHERE NOT EXISTS (SELECT 1 FROM point AS b
                  WHERE b.setting = a.setting AND b.value >= a.value AND b.cost <= a.cost
                    AND (b.value > a.value OR b.cost < a.cost))
ORDER BY s.trace, a.setting, s.effective_bits DESC, s.family;

-- version 5

-- What computed a run is called by its place, and by its precision where that is not float32.
UPDATE run SET compute = 'cpu' WHERE compute = 'f32';

-- A part of a run that a sweep with --shard was to fill: of the items first .. first + n - 1 every
-- `parts`-th, beginning with the `part`-th. `kvsim merge` takes the rows away of what is whole, so
-- that a merged store is the one that a single sweep makes.
CREATE TABLE shard (
    run INTEGER NOT NULL REFERENCES run (id),
    parts INTEGER NOT NULL,
    first INTEGER NOT NULL,
    n INTEGER NOT NULL,
    part INTEGER NOT NULL,
    PRIMARY KEY (run, parts, first, n, part)
) WITHOUT ROWID;

-- Of a text window, what each scored position gave. tokens, little-endian: two 32-bit numbers, how
-- many positions there are and whether gaps follow; the gaps from each position to the one before
-- (from -1 for the first) in 16 bits, left out where all are 1; KL(16 bit || policy) of each in
-- nats, float32, its sign bit set where another token is the likeliest; the change of the next
-- token's probability, float32.
CREATE TABLE outcome_tokens (
    run INTEGER NOT NULL REFERENCES run (id),
    item INTEGER NOT NULL,
    tokens BLOB NOT NULL,
    PRIMARY KEY (run, item)
) WITHOUT ROWID;

-- version 6

-- One spec that generated from the prompts of a benchmark: how, and by which rules. ends: whether a
-- model's own end of text ends a sequence. stop: texts that end one, a line each. floor: of tasks
-- with an answer, the share that always giving the commonest one gets right.
CREATE TABLE generation (
    id INTEGER PRIMARY KEY,
    spec INTEGER NOT NULL REFERENCES policy_spec (id),
    label TEXT NOT NULL,
    model_name TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    weights_as TEXT NOT NULL,
    task_name TEXT NOT NULL,
    task_prompt TEXT NOT NULL,
    task_digest TEXT NOT NULL,
    window_tokens INTEGER NOT NULL,
    mode TEXT NOT NULL,
    self TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    temperature REAL NOT NULL,
    ends INTEGER NOT NULL,
    stop TEXT NOT NULL,
    floor REAL,
    seed INTEGER NOT NULL,
    version TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    cpu TEXT NOT NULL,
    UNIQUE (spec, model_digest, weights_as, task_prompt, task_digest, window_tokens, mode, self,
            tokens, temperature, ends, stop, seed, version, git_commit, cpu)
);

-- What it generated from a prompt. key: hash of the prompt's tokens. reference, own: JSON lists of
-- tokens, the 16-bit run's and the policy's; equal: in how many they agree before they part, parted:
-- whether they do. own_kl, forced_kl: KL(16 bit || policy) in nats before each token, along the
-- policy's own tokens and along the reference's, null where a state was not finite; broken: the
-- policy's run ended there. own_strict, ...: 1 where what a filter finds is the task's answer, else
-- 0; null: the task has none.
CREATE TABLE generated_item (
    generation INTEGER NOT NULL REFERENCES generation (id),
    key TEXT NOT NULL,
    id TEXT NOT NULL,
    n_prompt INTEGER NOT NULL,
    reference TEXT NOT NULL,
    own TEXT NOT NULL,
    equal INTEGER NOT NULL,
    parted INTEGER NOT NULL,
    broken INTEGER NOT NULL,
    own_kl TEXT NOT NULL,
    forced_kl TEXT NOT NULL,
    own_strict INTEGER,
    own_flexible INTEGER,
    reference_strict INTEGER,
    reference_flexible INTEGER,
    PRIMARY KEY (generation, key)
) WITHOUT ROWID;

-- version 7

-- greedy: 1 where each token of the choice was the likeliest one after those before it, which is
-- what greedy decoding writes; NULL where the fidelity cannot know. greedy_ref: of the 16-bit run.
ALTER TABLE outcome_choice ADD COLUMN greedy INTEGER;
ALTER TABLE outcome_choice ADD COLUMN greedy_ref INTEGER;

-- version 8

-- What did the products is a part of what a generation is, as it is of a run: texts of two
-- arithmetics may part where logits are equal but for rounding. blas describes.
CREATE TABLE generation_by_compute (
    id INTEGER PRIMARY KEY,
    spec INTEGER NOT NULL REFERENCES policy_spec (id),
    label TEXT NOT NULL,
    model_name TEXT NOT NULL,
    model_digest TEXT NOT NULL,
    weights_as TEXT NOT NULL,
    task_name TEXT NOT NULL,
    task_prompt TEXT NOT NULL,
    task_digest TEXT NOT NULL,
    window_tokens INTEGER NOT NULL,
    mode TEXT NOT NULL,
    self TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    temperature REAL NOT NULL,
    ends INTEGER NOT NULL,
    stop TEXT NOT NULL,
    floor REAL,
    seed INTEGER NOT NULL,
    version TEXT NOT NULL,
    git_commit TEXT NOT NULL,
    cpu TEXT NOT NULL,
    compute TEXT NOT NULL,
    blas TEXT NOT NULL,
    UNIQUE (spec, model_digest, weights_as, task_prompt, task_digest, window_tokens, mode, self,
            tokens, temperature, ends, stop, seed, version, git_commit, cpu, compute)
);
INSERT INTO generation_by_compute SELECT *, 'cpu', '' FROM generation;
DROP TABLE generation;
ALTER TABLE generation_by_compute RENAME TO generation;
