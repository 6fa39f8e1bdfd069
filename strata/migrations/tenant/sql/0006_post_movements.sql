-- The write path of stock, as 0003 made it, with the movements' custom values; and one event for each call that posts anything: «stock.moved», with what
-- changed by balance. An import's batch is one call, so one event. Written last, while the balances are locked: whoever
-- changes one of them next has the greater position in the outbox.
--
-- One call, whatever the number of movements: resolve, create, lock, judge, write, tell.
--
-- p_movements is an array of {id, kind, lines, reference, reason, note, occurred_at, reverses_id, custom}; a line is
-- {sku, bin, to_bin, quantity, batch, expires_on}. The answer is an array in the same order, each element with an
-- `outcome`: posted, refused (problems by line), shortage (shortages by balance) or cancelled-out (nothing would change).
-- Movements are judged one after the other, each seeing those before it; a refused one leaves no trace and does not
-- hinder the rest.
--
-- No two callers deadlock: missing balances are created first, in key order, and only then are balances locked, in key
-- order. A row that somebody has created and not committed is invisible to whoever locks, so waits for a creation and
-- waits for a lock never form a ring. That holds for one call in a transaction: batch, rather than call twice.
--
-- What is decided per movement is decided in memory, on arrays; the number of SQL statements does not grow with them.
-- The planner settings: plans of this function are generic and kept, perhaps made while the tables were empty. Every
-- access below is a look-up by key, so nested loops over indexes are right at any size, and a pruned partition is
-- chosen when the plan starts. Without them the planner plans anew each time, for longer than the work takes.
CREATE OR REPLACE FUNCTION post_movements(p_tenant uuid, p_actor text, p_movements jsonb, p_detailed boolean DEFAULT false)
RETURNS jsonb
LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off
SET enable_bitmapscan = off
SET enable_material = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $function$
DECLARE
    c_limit CONSTANT bigint := 9007199254740992;
    -- Legs: a line's effect on one bin, in order of movement and line. A transfer's line has two.
    leg_movement integer[];
    leg_key      integer[];
    leg_quantity bigint[];
    leg_product  uuid[];
    leg_bin      uuid[];
    leg_batch    text[];
    leg_sku      text[];
    leg_code     text[];
    leg_line     integer[];
    leg_new      boolean[];
    leg_counts   boolean[];
    leg_arrives  boolean[];
    leg_expires  date[];
    leg_dated    text[];
    leg_problems jsonb[];
    -- Keys: the balances concerned, in the order in which they are created and locked.
    key_leg      integer[];
    key_product  uuid[];
    key_bin      uuid[];
    key_batch    text[];
    key_new      boolean[];
    key_id       uuid[];
    key_on_hand  bigint[];
    key_sequence bigint[];
    key_expires  date[];
    key_arriving date[];
    key_delta    bigint[];
    key_changed  boolean[];
    -- What the lock found; shorter than the keys when a balance does not exist.
    found_key      bigint[];
    found_id       uuid[];
    found_on_hand  bigint[];
    found_sequence bigint[];
    found_expires  date[];
    -- Ledger lines to write.
    out_movement uuid[] := '{}';
    out_balance  uuid[] := '{}';
    out_product  uuid[] := '{}';
    out_bin      uuid[] := '{}';
    out_batch    text[] := '{}';
    out_quantity bigint[] := '{}';
    out_after    bigint[] := '{}';
    out_sequence bigint[] := '{}';
    out_count    integer := 0;
    posted       integer[] := '{}';
    posted_count integer := 0;
    results      jsonb[] := '{}';
    document     jsonb;
    problems     jsonb;
    shortages    jsonb;
    line_results jsonb[];
    movement_id  uuid;
    touched      integer[];
    touched_count integer;
    changes      integer;
    legs         integer;
    keys         integer;
    leg          integer := 1;
    key          integer;
    after        bigint;
    arriving     date;
    any_new      boolean := false;
    key_before   bigint[];
    told         jsonb[] := '{}';
    told_count   integer := 0;
BEGIN
    SELECT array_agg(r.movement), array_agg(r.key), array_agg(r.quantity), array_agg(r.product_id),
           array_agg(r.bin_id), array_agg(r.batch), array_agg(r.sku), array_agg(r.code), array_agg(r.line),
           array_agg(r.is_new), array_agg(r.counts), array_agg(r.arrives), array_agg(r.expires_on),
           array_agg(r.dated), array_agg(r.problems), count(*), coalesce(max(r.key), 0)
      INTO leg_movement, leg_key, leg_quantity, leg_product,
           leg_bin, leg_batch, leg_sku, leg_code, leg_line,
           leg_new, leg_counts, leg_arrives, leg_expires,
           leg_dated, leg_problems, legs, keys
      FROM (
        SELECT line.movement::integer AS movement,
               line.number::integer AS line,
               dense_rank() OVER (ORDER BY p.id, b.id, line.batch)::integer AS key,
               l.quantity,
               p.id AS product_id,
               b.id AS bin_id,
               line.batch,
               line.sku,
               l.code,
               s.id IS NULL AND l.quantity > 0 AS is_new,
               line.kind = 'count' AS counts,
               l.arrives,
               line.expires_on,
               CASE WHEN line.kind = 'receive' THEN p.expiry_policy END AS dated,
               CASE WHEN p.usable AND b.usable THEN NULL ELSE
                   CASE WHEN p.usable OR l.arrives THEN '[]'::jsonb
                        ELSE jsonb_build_array(jsonb_build_object(
                            'line', line.number - 1, 'field', 'sku', 'value', line.sku,
                            'code', CASE WHEN p.id IS NULL THEN 'unknown' ELSE 'inactive' END)) END
                   || CASE WHEN b.usable THEN '[]'::jsonb
                        ELSE jsonb_build_array(jsonb_build_object(
                            'line', line.number - 1, 'value', l.code,
                            'field', CASE WHEN l.arrives THEN 'to_bin' ELSE 'bin' END,
                            'code', CASE WHEN b.id IS NULL THEN 'unknown' ELSE 'inactive' END)) END
               END AS problems
          FROM (
               SELECT m.ordinality AS movement, m.document ->> 'kind' AS kind, d.ordinality AS number,
                      d.sku, d.bin, d.to_bin, d.quantity, coalesce(d.batch, '') AS batch, d.expires_on
                 FROM jsonb_array_elements(p_movements) WITH ORDINALITY AS m (document, ordinality)
                CROSS JOIN LATERAL ROWS FROM (
                      jsonb_to_recordset(m.document -> 'lines')
                          AS (sku text, bin text, to_bin text, quantity bigint, batch text, expires_on date)
                      ) WITH ORDINALITY AS d (sku, bin, to_bin, quantity, batch, expires_on, ordinality)
               -- OFFSET fences this off, or every line would carry its movement's whole document through the sorts.
               OFFSET 0
               ) AS line
         CROSS JOIN LATERAL (
               SELECT line.bin AS code, false AS arrives,
                      CASE WHEN line.kind IN ('pick', 'transfer') THEN - line.quantity ELSE line.quantity END AS quantity
                UNION ALL
               SELECT line.to_bin, true, line.quantity WHERE line.kind = 'transfer'
               ) AS l
          -- LIMIT keeps the planner from turning these look-ups into joins over the whole table.
          LEFT JOIN LATERAL (
               SELECT product.id, product.expiry_policy,
                      product.active OR line.kind = 'reversal' AS usable
                 FROM product WHERE product.tenant_id = p_tenant AND product.sku = line.sku LIMIT 1
               ) AS p ON true
          LEFT JOIN LATERAL (
               SELECT bin.id, bin.active OR line.kind = 'reversal' AS usable
                 FROM bin WHERE bin.tenant_id = p_tenant AND bin.code = l.code LIMIT 1
               ) AS b ON true
          LEFT JOIN LATERAL (
               SELECT balance.id FROM stock_balance AS balance
                WHERE balance.tenant_id = p_tenant AND balance.product_id = p.id AND balance.bin_id = b.id
                  AND balance.batch = line.batch LIMIT 1
               ) AS s ON true
         ORDER BY line.movement, line.number, l.arrives
      ) AS r;

    key_leg := array_fill(NULL::integer, ARRAY[keys]);
    key_product := array_fill(NULL::uuid, ARRAY[keys]);
    key_bin := key_product;
    key_batch := array_fill(NULL::text, ARRAY[keys]);
    key_new := array_fill(NULL::boolean, ARRAY[keys]);
    key_changed := key_new;
    FOR i IN 1 .. legs LOOP
        key := leg_key[i];
        IF key_leg[key] IS NULL THEN
            key_leg[key] := i;
            key_product[key] := leg_product[i];
            key_bin[key] := leg_bin[i];
            key_batch[key] := leg_batch[i];
        END IF;
        IF leg_new[i] AND leg_problems[i] IS NULL THEN
            key_new[key] := true;
            any_new := true;
        END IF;
    END LOOP;

    IF any_new THEN
        INSERT INTO stock_balance (tenant_id, product_id, bin_id, batch)
        SELECT p_tenant, k.product_id, k.bin_id, k.batch
          FROM unnest(key_product, key_bin, key_batch, key_new) WITH ORDINALITY
               AS k (product_id, bin_id, batch, is_new, ordinality)
         WHERE k.is_new
         ORDER BY k.ordinality
        ON CONFLICT (tenant_id, product_id, bin_id, batch) DO NOTHING;
    END IF;

    SELECT array_agg(f.ordinality), array_agg(f.id), array_agg(f.on_hand), array_agg(f.sequence), array_agg(f.expires_on)
      INTO found_key, found_id, found_on_hand, found_sequence, found_expires
      FROM (
        SELECT k.ordinality, b.id, b.on_hand, b.sequence, b.expires_on
          FROM unnest(key_product, key_bin, key_batch) WITH ORDINALITY AS k (product_id, bin_id, batch, ordinality)
         CROSS JOIN LATERAL (
               SELECT balance.id, balance.on_hand, balance.sequence, balance.expires_on
                 FROM stock_balance AS balance
                WHERE balance.tenant_id = p_tenant AND balance.product_id = k.product_id
                  AND balance.bin_id = k.bin_id AND balance.batch = k.batch
                LIMIT 1 FOR NO KEY UPDATE
               ) AS b
      ) AS f;

    IF coalesce(array_length(found_id, 1), 0) = keys THEN
        key_id := found_id;
        key_on_hand := found_on_hand;
        key_sequence := found_sequence;
        key_expires := found_expires;
    ELSE
        key_id := array_fill(NULL::uuid, ARRAY[keys]);
        key_on_hand := array_fill(0::bigint, ARRAY[keys]);
        key_sequence := array_fill(0::bigint, ARRAY[keys]);
        key_expires := array_fill(NULL::date, ARRAY[keys]);
        FOR i IN 1 .. coalesce(array_length(found_id, 1), 0) LOOP
            key := found_key[i];
            key_id[key] := found_id[i];
            key_on_hand[key] := found_on_hand[i];
            key_sequence[key] := found_sequence[i];
            key_expires[key] := found_expires[i];
        END LOOP;
    END IF;
    key_before := key_on_hand;
    key_delta := array_fill(NULL::bigint, ARRAY[keys]);
    key_arriving := array_fill(NULL::date, ARRAY[keys]);

    FOR number IN 1 .. jsonb_array_length(p_movements) LOOP
        document := p_movements -> (number - 1);
        problems := NULL;
        shortages := NULL;
        touched := '{}';
        touched_count := 0;
        changes := 0;

        WHILE leg <= legs AND leg_movement[leg] = number LOOP
            key := leg_key[leg];
            IF leg_problems[leg] IS NOT NULL THEN
                problems := coalesce(problems, '[]') || leg_problems[leg];
            ELSE
                IF key_delta[key] IS NULL THEN
                    touched_count := touched_count + 1;
                    touched[touched_count] := key;
                    key_delta[key] := CASE WHEN leg_counts[leg] THEN - key_on_hand[key] ELSE 0 END;
                END IF;
                key_delta[key] := key_delta[key] + leg_quantity[leg];

                -- A batch has one expiry date. The first receipt that names it sets it, a transfer takes it along.
                IF leg_dated[leg] IS NOT NULL OR leg_arrives[leg] THEN
                    arriving := CASE WHEN leg_arrives[leg] THEN key_expires[leg_key[leg - 1]] ELSE leg_expires[leg] END;
                    IF arriving <> coalesce(key_arriving[key], key_expires[key])
                       OR (leg_dated[leg] = 'none' AND arriving IS NOT NULL)
                       OR (leg_dated[leg] = 'required'
                           AND coalesce(arriving, key_arriving[key], key_expires[key]) IS NULL) THEN
                        problems := coalesce(problems, '[]') || jsonb_build_object(
                            'line', leg_line[leg] - 1, 'value', arriving,
                            'field', CASE WHEN leg_arrives[leg] THEN 'to_bin' ELSE 'expires_on' END,
                            'code', CASE WHEN leg_dated[leg] = 'none' THEN 'expiry-not-kept'
                                         WHEN arriving IS NULL THEN 'expiry-missing' ELSE 'expiry-differs' END);
                    ELSIF arriving IS NOT NULL THEN
                        key_arriving[key] := arriving;
                    END IF;
                END IF;
            END IF;
            leg := leg + 1;
        END LOOP;

        FOR i IN 1 .. touched_count LOOP
            key := touched[i];
            IF key_delta[key] <> 0 THEN
                changes := changes + 1;
                after := key_on_hand[key] + key_delta[key];
                IF after < 0 THEN
                    shortages := coalesce(shortages, '[]') || jsonb_build_object(
                        'sku', leg_sku[key_leg[key]], 'bin', leg_code[key_leg[key]], 'batch', key_batch[key],
                        'wanted', - key_delta[key], 'on_hand', key_on_hand[key]);
                ELSIF after >= c_limit THEN
                    problems := coalesce(problems, '[]') || jsonb_build_object(
                        'line', 0, 'field', 'quantity', 'value', after, 'code', 'too-large');
                END IF;
            END IF;
        END LOOP;

        IF problems IS NOT NULL THEN
            results[number] := jsonb_build_object('outcome', 'refused', 'problems', problems);
        ELSIF shortages IS NOT NULL THEN
            results[number] := jsonb_build_object('outcome', 'shortage', 'shortages', shortages);
        ELSIF changes = 0 AND document ->> 'kind' <> 'count' THEN
            results[number] := jsonb_build_object('outcome', 'cancelled-out');
        ELSE
            movement_id := document ->> 'id';
            posted_count := posted_count + 1;
            posted[posted_count] := number;
            line_results := '{}';
            changes := 0;
            FOR i IN 1 .. touched_count LOOP
                key := touched[i];
                CONTINUE WHEN key_delta[key] = 0;
                key_on_hand[key] := key_on_hand[key] + key_delta[key];
                key_sequence[key] := key_sequence[key] + 1;
                key_changed[key] := true;
                key_expires[key] := coalesce(key_expires[key], key_arriving[key]);
                out_count := out_count + 1;
                out_movement[out_count] := movement_id;
                out_balance[out_count] := key_id[key];
                out_product[out_count] := key_product[key];
                out_bin[out_count] := key_bin[key];
                out_batch[out_count] := key_batch[key];
                out_quantity[out_count] := key_delta[key];
                out_after[out_count] := key_on_hand[key];
                out_sequence[out_count] := key_sequence[key];
                IF p_detailed THEN
                    changes := changes + 1;
                    line_results[changes] := jsonb_build_object(
                        'sku', leg_sku[key_leg[key]], 'bin', leg_code[key_leg[key]], 'batch', key_batch[key],
                        'quantity', key_delta[key], 'on_hand', key_on_hand[key], 'sequence', key_sequence[key]);
                END IF;
            END LOOP;
            IF p_detailed THEN
                results[number] := jsonb_build_object('outcome', 'posted', 'movement', jsonb_build_object(
                    'id', movement_id, 'kind', document -> 'kind', 'reference', document -> 'reference',
                    'reason', document -> 'reason', 'note', document -> 'note',
                    'occurred_at', coalesce((document ->> 'occurred_at')::timestamptz, now()),
                    'created_at', now(), 'created_by', p_actor, 'reverses_id', document -> 'reverses_id', 'custom', coalesce(document -> 'custom', '{}'),
                    'lines', to_jsonb(line_results)));
            ELSE
                results[number] := '{"outcome":"posted"}';
            END IF;
        END IF;

        FOR i IN 1 .. touched_count LOOP
            key_delta[touched[i]] := NULL;
            key_arriving[touched[i]] := NULL;
        END LOOP;
    END LOOP;

    IF posted_count > 0 THEN
        WITH header AS (
            INSERT INTO movement (tenant_id, id, kind, reference, reason, note, occurred_at, created_by, reverses_id, custom)
            SELECT p_tenant, d.id, d.kind, d.reference, d.reason, d.note, coalesce(d.occurred_at, now()), p_actor,
                   d.reverses_id, coalesce(d.custom, '{}')
              FROM unnest(posted) AS n (number)
             CROSS JOIN LATERAL jsonb_to_record(p_movements -> (n.number - 1)) AS d (
                   id uuid, kind text, reference text, reason text, note text, occurred_at timestamptz, reverses_id uuid,
                   custom jsonb)
        ), history AS (
            INSERT INTO stock_ledger (tenant_id, movement_id, balance_id, product_id, bin_id, batch,
                                      quantity, on_hand_after, sequence)
            SELECT p_tenant, o.movement_id, o.balance_id, o.product_id, o.bin_id, o.batch,
                   o.quantity, o.on_hand_after, o.sequence
              FROM unnest(out_movement, out_balance, out_product, out_bin, out_batch, out_quantity, out_after, out_sequence)
                   AS o (movement_id, balance_id, product_id, bin_id, batch, quantity, on_hand_after, sequence)
        )
        -- Every row exists and is locked. Said as an INSERT since it then goes through the key's index, whatever the planner
        -- believes of the table; an UPDATE's join turned quadratic when that was «hardly any rows».
        INSERT INTO stock_balance (tenant_id, product_id, bin_id, batch, on_hand, sequence, expires_on, updated_at)
        SELECT p_tenant, k.product_id, k.bin_id, k.batch, k.on_hand, k.sequence, k.expires_on, now()
          FROM unnest(key_product, key_bin, key_batch, key_on_hand, key_sequence, key_expires, key_changed)
               AS k (product_id, bin_id, batch, on_hand, sequence, expires_on, changed)
         WHERE k.changed
        ON CONFLICT (tenant_id, product_id, bin_id, batch) DO UPDATE
           SET on_hand = excluded.on_hand, sequence = excluded.sequence, expires_on = excluded.expires_on,
               updated_at = excluded.updated_at;

        FOR i IN 1 .. keys LOOP
            CONTINUE WHEN key_changed[i] IS NULL;
            told_count := told_count + 1;
            told[told_count] := jsonb_build_object(
                'product_id', key_product[i], 'sku', leg_sku[key_leg[i]],
                'bin_id', key_bin[i], 'bin', leg_code[key_leg[i]], 'batch', key_batch[i],
                'quantity', key_on_hand[i] - key_before[i], 'on_hand', key_on_hand[i]);
        END LOOP;
        document := p_movements -> (posted[1] - 1);
        PERFORM strata.emit('stock.moved', 1, jsonb_build_object(
            'movements', posted_count,
            'movement_id', CASE WHEN posted_count = 1 THEN document -> 'id' END,
            'movement_kind', CASE WHEN posted_count = 1 THEN document -> 'kind' END,
            'actor', p_actor, 'changes', to_jsonb(told)));
    END IF;

    -- A balance made for a movement that was then refused goes again; a product that never moved has none.
    IF any_new AND posted_count < jsonb_array_length(p_movements) THEN
        FOR i IN 1 .. keys LOOP
            IF key_new[i] AND key_sequence[i] = 0 THEN
                DELETE FROM stock_balance AS balance
                 WHERE balance.tenant_id = p_tenant AND balance.id = key_id[i] AND balance.product_id = key_product[i];
            END IF;
        END LOOP;
    END IF;

    RETURN to_jsonb(results);
END
$function$;
