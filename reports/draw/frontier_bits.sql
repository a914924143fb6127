-- SPDX-License-Identifier: Apache-2.0
-- What frontier_bits.gp draws. A panel of accuracy in percent, one of divergence no lower than the
-- axis shows (?2); panel 0: the list of names. kvsim report fills point and mark.
SELECT m.panel, p.effective_bits AS x,
       CASE m.quantity WHEN 'acc' THEN 100 * p.acc ELSE MAX(p.kl_nats, ?2) END AS y,
       CASE m.quantity WHEN 'acc' THEN 100 * p.acc_low ELSE MAX(p.kl_low, ?2) END AS low,
       CASE m.quantity WHEN 'acc' THEN 100 * p.acc_high ELSE MAX(p.kl_high, ?2) END AS high,
       m.on_frontier, m.hollow, p.oracle, m.label, m.label_x, m.label_y, m.justify, m.leader
FROM mark AS m
JOIN point AS p ON p.id = m.id
WHERE m.figure = ?1 AND m.panel > 0
UNION ALL
SELECT panel, NULL, NULL, NULL, NULL, on_frontier, hollow, 0, label, label_x, label_y, justify, leader
FROM mark
WHERE figure = ?1 AND panel = 0
ORDER BY panel, on_frontier, x, label_y;
