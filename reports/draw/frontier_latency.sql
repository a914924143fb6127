-- SPDX-License-Identifier: Apache-2.0
-- What frontier_latency.gp draws: a panel for each context; panel 0: the list of names. kvsim report
-- fills point, price and mark.
SELECT m.panel, r.step_ns / 1e6 AS x, 100 * p.acc AS y, 100 * p.acc_low AS low,
       100 * p.acc_high AS high, m.on_frontier, m.hollow, p.oracle, m.label, m.label_x, m.label_y,
       m.justify, m.leader
FROM mark AS m
JOIN point AS p ON p.id = m.id
JOIN price AS r ON r.id = m.id AND r.panel = m.panel
WHERE m.figure = ?1 AND m.panel > 0
UNION ALL
SELECT panel, NULL, NULL, NULL, NULL, on_frontier, hollow, 0, label, label_x, label_y, justify, leader
FROM mark
WHERE figure = ?1 AND panel = 0
ORDER BY panel, on_frontier, x, label_y;
