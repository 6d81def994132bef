-- Append batches of logs of one bucket: each wholly, or not at all with the reason.
--
-- KEYS  open, due, ended; for each batch: meta, stream, rewritten, runs, known;
--       then the keys of the ids of the runs that start
-- ARGV  the time or '', the producer, the batches packed, then their packed records; a batch is
--   { log, channel, number, epoch, parts, starts, uses, ends, tools, lasts, keys }
--   parts   { events, bytes, which of ARGV } each   starts  { run, info, lease, its id's key, index }
--   uses    { run, holder or '', index or false } each: open runs, with their last
--           event here, which must be held by that holder if one is given
--   ends    { run, type, index } each        tools   { run, call, name or '', began } each
--   lasts   { run, index }, of runs that start   keys    { key, digest, index } each
--
-- Answers one thing for each batch:
--   { 1, epoch, first, at, cancels, must_fold, fields of runs }   appended, now or before
--   { 2, { run, reason } each, { key, digest, epoch, seq } each }   not appended
--   { 3 }   a later batch of this producer is in the log: nobody waits for this one
local open, due, ended = KEYS[1], KEYS[2], KEYS[3]
local now, producer = time_of(ARGV[1]), ARGV[2]

local function refusals(b, r, k, held)
  local closed, known = {}, {}
  for _, start in ipairs(b[6]) do
    if redis.call('HEXISTS', r, 'i:' .. start[1]) == 1 then
      closed[#closed + 1] = { start[1], 'a run with this id has been before' }
    end
  end
  for i, use in ipairs(b[7]) do
    if use[2] ~= '' then
      local holder = held[i] and string.match(held[i], ' (.*)$')
      if holder ~= use[2] then
        closed[#closed + 1] = { use[1],
          holder and 'another process holds it' or 'it has ended' }
      end
    end
  end
  for _, key in ipairs(b[11]) do
    local value = redis.call('HGET', k, key[1])
    if value then
      local seq, epoch, digest = string.match(value, '^(%d+) (%w+) (.*)$')
      known[#known + 1] = { key[1], digest, epoch, tonumber(seq) }
    end
  end
  return closed, known
end

local function forget_old_keys(k)
  if redis.call('HLEN', k) <= 2 * KEYS_KEPT then return end
  local all, seqs = redis.call('HGETALL', k), {}
  for i = 2, #all, 2 do seqs[#seqs + 1] = tonumber(string.match(all[i], '^%d+')) end
  table.sort(seqs)
  local first_kept = seqs[#seqs - KEYS_KEPT + 1]
  for i = 1, #all, 2 do
    if tonumber(string.match(all[i + 1], '^%d+')) < first_kept then
      redis.call('HDEL', k, all[i])
    end
  end
end

local function note_tools(r, tools)
  for _, tool in ipairs(tools) do
    local field = 't:' .. tool[1]
    local packed = redis.call('HGET', r, field)
    local known = packed and cmsgpack.unpack(packed) or {}
    known[tool[2]] = tool[3] ~= '' and { tool[3], tool[4] } or nil
    if next(known) then
      redis.call('HSET', r, field, cmsgpack.pack(known))
    else
      redis.call('HDEL', r, field)
    end
  end
end

local function append(b, m, s, z, r, k)
  local log, channel, number, epoch = b[1], b[2], b[3], b[4]
  local fields = { unpack(META) }
  fields[#fields + 1] = 'n:' .. producer
  local base = #fields
  for _, use in ipairs(b[7]) do fields[#fields + 1] = 'o:' .. use[1] end
  for _, use in ipairs(b[7]) do fields[#fields + 1] = 'x:' .. use[1] end
  local v = hmget(m, fields)
  if number > 0 and v[base] then
    local n, first, at, of = string.match(v[base], '^(%d+) (%d+) (%d+) (%w+)$')
    if tonumber(n) == number then
      -- Written again, so that replicas that are waited for have seen all before it.
      redis.call('HSET', m, 'n:' .. producer, v[base])
      return { 1, of, tonumber(first), tonumber(at), {}, false, 0 }
    end
    if tonumber(n) > number then return { 3 } end
  end
  local held, cancels = {}, {}
  for i, use in ipairs(b[7]) do
    held[i] = v[base + i]
    local cancel = v[base + #b[7] + i]
    if cancel then cancels[#cancels + 1] = { use[1], cancel } end
  end
  local closed, known = refusals(b, r, k, held)
  if #closed > 0 or #known > 0 then return { 2, closed, known } end

  local meta = meta_of(v, s, epoch)
  settle_process(meta, epoch)
  local first = meta.h + 1
  for _, part in ipairs(b[5]) do
    add(meta, s, due, log, now, producer, part[1], part[2], ARGV[part[3]])
  end
  local more = {}
  for _, start in ipairs(b[6]) do
    local run, id_key = start[1], KEYS[start[4]]
    more[#more + 1] = 'o:' .. run
    more[#more + 1] = (first + start[5]) .. ' ' .. producer
    redis.call('HSET', r, 'i:' .. run, (first + start[5]) .. ' ' .. start[2])
    redis.call('HSET', open, run_member(log, run), start[3] > 0 and '' or producer)
    redis.call('SADD', id_key, log)
    redis.call('PEXPIRE', id_key, IDLE)
    if start[3] > 0 then redis.call('ZADD', due, now + start[3], due_member('l', log, run)) end
    meta.oc = meta.oc + 1
  end
  for _, last in ipairs(b[10]) do
    more[#more + 1] = 'l:' .. last[1]
    more[#more + 1] = (first + last[2]) .. ' ' .. now
  end
  for i, use in ipairs(b[7]) do
    if held[i] and use[3] then
      more[#more + 1] = 'l:' .. use[1]
      more[#more + 1] = (first + use[3]) .. ' ' .. now
    end
  end
  if number > 0 then
    more[#more + 1] = 'n:' .. producer
    more[#more + 1] = number .. ' ' .. first .. ' ' .. now .. ' ' .. meta.e
    -- Producers come and go; those of days ago ask for no answer any more.
    if not v[base] and redis.call('HLEN', m) > 400 then
      local all = redis.call('HGETALL', m)
      for i = 1, #all, 2 do
        local at = string.sub(all[i], 1, 2) == 'n:' and string.match(all[i + 1], '^%d+ %d+ (%d+)')
        if at and tonumber(at) < now - 86400000 then redis.call('HDEL', m, all[i]) end
      end
    end
  end
  if #b[9] > 0 then note_tools(r, b[9]) end
  for _, key in ipairs(b[11]) do
    redis.call('HSET', k, key[1], (first + key[3]) .. ' ' .. meta.e .. ' ' .. key[2])
  end
  if #b[11] > 0 then forget_old_keys(k) end
  local runs = 0
  if #b[6] > 0 or #b[8] > 0 then
    -- Written now: closing takes it away again, and trimming asks which runs are open.
    hset(m, more)
    more = {}
  end
  for i, stop in ipairs(b[8]) do
    local run, seq = stop[1], first + stop[3]
    redis.call('HSET', r, 'e:' .. run, stop[2] .. ' ' .. seq .. ' ' .. now)
    -- In the order of their ends, also within a millisecond.
    redis.call('ZADD', ended, now * 1000 + seq % 1000, run_member(log, run))
    redis.call('ZREMRANGEBYSCORE', ended, '-inf', (now - IDLE) * 1000)
    redis.call('PEXPIRE', ended, IDLE)
    redis.call('ZADD', due, now, due_member('c', log, run))
    close(meta, m, r, open, run, log)
    runs = redis.call('HLEN', r)
  end
  local must_fold = is_over(meta) and trim(m, meta, s, z, due, log, now)
  if meta.a > 0 and meta.a < now - AGE then
    must_fold = trim(m, meta, s, z, due, log, now) or must_fold
  end
  keep(meta, now, m, s, z, r, k)
  finish(m, meta, channel, more)
  return { 1, meta.e, first, now, cancels, must_fold, runs }
end

local answers = {}
for i, b in ipairs(cmsgpack.unpack(ARGV[3])) do
  local at = 3 + (i - 1) * 5
  answers[i] = append(b, KEYS[at + 1], KEYS[at + 2], KEYS[at + 3], KEYS[at + 4], KEYS[at + 5])
end
return cmsgpack.pack(answers)
