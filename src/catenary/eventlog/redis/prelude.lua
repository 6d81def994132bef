-- What every script begins with. Before it stand the constants of the log:
-- PROCESS, TRUST, PUBLISH, EVENTS, BYTES, AGE, OPEN_EVENTS, OPEN_BYTES, IDLE, KEYS_KEPT.
--
-- Each log has a hash (meta) with these fields:
--   e  the epoch               h  the head             f  the first seq retained
--   T  the former terms, as "epoch:last epoch:last"    p  the process it was written on
--   n  events retained         b  bytes retained       a  when the oldest was appended
--   oc how many runs are open  u  when its keys were last given their time to live
--   s  the place that was seen, as "epoch:seq"
--   n:<producer>  that producer's last batch, as "number first at epoch"
--   o:<run>  of an open run: "first_seq holder"
--   l:<run>  of an open run, its last event: "seq at"
--   x:<run>  of an open run: who asked for its cancel, packed
-- and a hash of runs:
--   i:<run>  what its start says: "first_seq " and the packed rest
--   e:<run>  its end: "type seq at"        x:<run>  its cancel
--   t:<run>  its open tools, packed        f:<run>  what was folded of it, packed
--
-- A batch is one string wherever it stands: in the stream, among the rewritten
-- ones, and in what is published:
--   "b epoch first last at events bytes producer\n" and the packed records.

if #KEYS == 0 then return 1 end -- only to be loaded

local function time_of(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function header(d)
  local epoch, first, last, at, events, bytes =
    string.match(d, '^b (%w+) (%d+) (%d+) (%d+) (%d+) (%d+) ')
  return { epoch = epoch, first = tonumber(first), last = tonumber(last), at = tonumber(at),
    events = tonumber(events), bytes = tonumber(bytes) }
end

local function hmget(key, fields)
  -- Lua hands over a bounded number of values at a time.
  local found = {}
  for begin = 1, #fields, 1000 do
    local part = redis.call('HMGET', key, unpack(fields, begin, math.min(begin + 999, #fields)))
    for i = 1, #part do found[begin + i - 1] = part[i] end
  end
  return found
end

local function hset(key, pairs_)
  for begin = 1, #pairs_, 1000 do
    redis.call('HSET', key, unpack(pairs_, begin, math.min(begin + 999, #pairs_)))
  end
end

local META = { 'e', 'h', 'f', 'T', 'p', 'n', 'b', 'a', 'oc', 'u', 's' }

-- Make a log's meta from its fields. A log without meta is new, or its meta was
-- lost alone: then it goes on after what its stream holds.
local function meta_of(v, stream, epoch)
  if v[1] then
    return { e = v[1], h = tonumber(v[2]), f = tonumber(v[3]), T = v[4], p = v[5],
      n = tonumber(v[6]), b = tonumber(v[7]), a = tonumber(v[8]), oc = tonumber(v[9]),
      u = tonumber(v[10]), s = v[11] or '', was = v }
  end
  local meta = { e = epoch, h = 0, f = 1, T = '', p = PROCESS, n = 0, b = 0, a = 0, oc = 0,
    u = 0, s = '', is_new = true }
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if last then
    meta.h = header(last[2][2]).last
    meta.f = header(redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][2][2]).first
    for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+')) do
      local has = header(entry[2][2])
      meta.n, meta.b = meta.n + has.events, meta.b + has.bytes
      if meta.a == 0 then meta.a = has.at end
    end
  end
  return meta
end

local function load(key, stream, epoch)
  return meta_of(redis.call('HMGET', key, unpack(META)), stream, epoch)
end

-- Store what has changed of a log's meta, with other fields of the same hash.
local function save(key, meta, fields)
  fields = fields or {}
  local was = meta.was or {}
  for i = 1, 10 do
    local value = meta[META[i]]
    if tostring(value) ~= was[i] then
      fields[#fields + 1] = META[i]
      fields[#fields + 1] = value
    end
  end
  if #fields > 0 then hset(key, fields) end
end

-- End the current term at the head; the last eight are kept.
local function begin_term(meta, epoch)
  local terms = {}
  for term in string.gmatch(meta.T, '%S+') do terms[#terms + 1] = term end
  terms[#terms + 1] = meta.e .. ':' .. meta.h
  meta.T = table.concat(terms, ' ', math.max(1, #terms - 7))
  meta.e = epoch
end

-- Before anything is appended: what was written on another process may lack its
-- end, so the numbering begins a new term.
local function settle_process(meta, epoch)
  if meta.p ~= PROCESS then
    if not TRUST then begin_term(meta, epoch) end
    meta.p = PROCESS
  end
end

local function due_member(kind, log, run) return cmsgpack.pack({ kind, log, run or '' }) end
local function run_member(log, run) return cmsgpack.pack({ log, run }) end

-- Append records that were packed together; they get the next numbers.
local function add(meta, stream, due, log, now, producer, events, bytes, body)
  local first, last = meta.h + 1, meta.h + events
  local d = 'b ' .. meta.e .. ' ' .. first .. ' ' .. last .. ' ' .. now .. ' ' .. events .. ' '
    .. bytes .. ' ' .. producer .. '\n' .. body
  redis.call('XADD', stream, last .. '-0', 'd', d)
  meta.to_tell = meta.to_tell or {}
  table.insert(meta.to_tell, d)
  if meta.n == 0 then
    meta.a, meta.f = now, first
    redis.call('ZADD', due, now + AGE, due_member('a', log))
  end
  meta.h, meta.n, meta.b = last, meta.n + events, meta.b + bytes
  return first
end

-- Store a log's meta, then tell its readers what was added: last, so that a call
-- that may not publish has stored all that tells a repeat from a new batch.
local function finish(key, meta, channel, fields)
  save(key, meta, fields)
  for _, d in ipairs(meta.to_tell or {}) do redis.call(PUBLISH, channel, d) end
end

-- The oldest batch that is retained, wherever it stands.
local function oldest(stream, rewritten)
  local s = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local z = redis.call('ZRANGE', rewritten, 0, 0)[1]
  local from_s, from_z = s and header(s[2][2]), z and header(z)
  if from_s and (not from_z or from_s.first < from_z.first) then return from_s end
  return from_z
end

local function drop_through(stream, rewritten, seq)
  redis.call('XTRIM', stream, 'MINID', (seq + 1) .. '-0')
  redis.call('ZREMRANGEBYSCORE', rewritten, '-inf', seq)
end

-- What a batch counts for whose numbers before f are retained no more. It goes as
-- a whole, once the last of them has gone.
local function share(has, f)
  if has.first >= f then return has.events, has.bytes end
  local left, span = math.max(0, has.last - f + 1), has.last - has.first + 1
  return math.floor(has.events * left / span), math.floor(has.bytes * left / span)
end

local function oldest_open(key, meta)
  local first
  if meta.oc > 0 then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 2) == 'o:' then
        local begun = tonumber(string.match(all[i + 1], '^%d+'))
        if not first or begun < first then first = begun end
      end
    end
  end
  return first
end

-- Drop the oldest batch, or its first numbers; false if it stays, or was enough.
local function trim_one(meta, stream, rewritten, first, most_events, most_bytes, needed, now)
  local is_old = first.at < now - AGE
  local over_events, over_bytes = meta.n - most_events, meta.b - most_bytes
  if not is_old and over_events <= 0 and over_bytes <= 0 then return false end
  local events, bytes = share(first, meta.f)
  local begin, through = math.max(first.first, meta.f), first.last
  if not is_old then
    local part = math.max(over_events / math.max(1, events), over_bytes / math.max(1, bytes))
    through = math.min(through, begin - 1 + math.ceil(part * (first.last - begin + 1)))
  end
  through = math.min(through, needed - 1)
  if through < begin then return false end
  meta.f = through + 1
  if through == first.last then drop_through(stream, rewritten, through) end
  local left_events, left_bytes = share(first, meta.f)
  meta.n, meta.b = meta.n - events + left_events, meta.b - bytes + left_bytes
  return through == first.last
end

-- Let the oldest go beyond what is kept, down to the limits. What an open run still
-- needs is spared by age; beyond numbers and bytes it must be folded first, which
-- is not done here: then true is returned.
local function trim(key, meta, stream, rewritten, due, log, now)
  local most_events = meta.oc > 0 and OPEN_EVENTS or EVENTS
  local most_bytes = meta.oc > 0 and OPEN_BYTES or BYTES
  local needed = oldest_open(key, meta) or math.huge
  local before = meta.f
  while true do
    local first = oldest(stream, rewritten)
    if not first then
      meta.n, meta.b, meta.f = 0, 0, meta.h + 1
      break
    end
    if first.last < meta.f then
      drop_through(stream, rewritten, first.last)
    elseif not trim_one(meta, stream, rewritten, first, most_events, most_bytes, needed, now) then
      break
    end
  end
  local first = oldest(stream, rewritten)
  local must_fold = first and needed <= first.last
    and (meta.n > most_events or meta.b > most_bytes) or false
  if meta.f ~= before then
    meta.a = first and first.at or 0
    if first then
      redis.call('ZADD', due, meta.a + AGE, due_member('a', log))
    else
      redis.call('ZREM', due, due_member('a', log))
    end
  end
  if first and first.at < now - AGE then
    -- An open run needs it still: looked at again in a minute.
    redis.call('ZADD', due, now + 60000, due_member('a', log))
  end
  return must_fold
end

local function is_over(meta)
  local events = meta.oc > 0 and OPEN_EVENTS or EVENTS
  local bytes = meta.oc > 0 and OPEN_BYTES or BYTES
  return meta.n > events + math.max(16, math.floor(EVENTS / 16))
    or meta.b > bytes + math.floor(BYTES / 16)
end

-- Give a log's keys their time to live: at most hourly, and none while a run is open.
local function keep(meta, now, m, s, z, r, k)
  if meta.oc > 0 then
    if meta.u ~= -1 then
      for _, key in ipairs({ m, s, z, r }) do redis.call('PERSIST', key) end
      redis.call('PEXPIRE', k, IDLE)
      meta.u = -1
    end
  elseif meta.u == -1 or now - meta.u > 3600000 or now < meta.u then
    for _, key in ipairs({ s, z }) do redis.call('PEXPIRE', key, AGE + 3600000) end
    for _, key in ipairs({ m, r, k }) do redis.call('PEXPIRE', key, IDLE + 3600000) end
    meta.u = now
  end
end

-- An open run has ended: it is nobody's any more.
local function close(meta, m, r, open, run, log)
  redis.call('HDEL', m, 'o:' .. run, 'l:' .. run, 'x:' .. run)
  redis.call('HDEL', r, 't:' .. run)
  redis.call('HDEL', open, run_member(log, run))
  meta.oc = math.max(0, meta.oc - 1)
end
