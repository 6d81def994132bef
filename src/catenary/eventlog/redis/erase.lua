-- Erase all of a log but its numbering, and append the event that says so.
--
-- KEYS  meta, stream, rewritten, runs, known, commands, open, due, ended
-- ARGV  the time or '', an epoch, the log, the channel, bytes and body of the event
-- Answers how many events there were.
local now = time_of(ARGV[1])
local m, s, z, r, k, c = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local open, due, ended = KEYS[7], KEYS[8], KEYS[9]
local log = ARGV[3]
local meta = load(m, s, ARGV[2])
settle_process(meta, ARGV[2])
local count = meta.n
local fields = redis.call('HKEYS', m)
for _, field in ipairs(fields) do
  if string.match(field, '^[olx]:') then redis.call('HDEL', m, field) end
end
for _, field in ipairs(redis.call('HKEYS', r)) do
  if string.sub(field, 1, 2) == 'i:' then
    local run = string.sub(field, 3)
    redis.call('HDEL', open, run_member(log, run))
    redis.call('ZREM', ended, run_member(log, run))
    for _, kind in ipairs({ 'l', 'x', 'c' }) do
      redis.call('ZREM', due, due_member(kind, log, run))
    end
  end
end
redis.call('DEL', z, r, k, c)
redis.call('XTRIM', s, 'MAXLEN', 0)
meta.n, meta.b, meta.a, meta.oc, meta.f, meta.u = 0, 0, 0, 0, meta.h + 1, 0
add(meta, s, due, log, now, '-', 1, tonumber(ARGV[5]), ARGV[6])
keep(meta, now, m, s, z, r, k)
redis.call(PUBLISH, ARGV[4], 'x all')
finish(m, meta, ARGV[4])
return count
