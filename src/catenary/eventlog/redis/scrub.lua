-- Of some runs keep nothing but that they were: their events are being erased.
--
-- KEYS  meta, runs, open, due, ended
-- ARGV  the time or '', the log, the channel, then run and what is kept of its start by turns
local now = time_of(ARGV[1])
local m, r, open, due, ended, log = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[2]
if redis.call('EXISTS', m) == 0 then return 0 end
local meta = load(m, '', '')
for i = 4, #ARGV, 2 do
  local run = ARGV[i]
  local start = redis.call('HGET', r, 'i:' .. run)
  if start then
    redis.call('HSET', r, 'i:' .. run, string.match(start, '^%d+ ') .. ARGV[i + 1])
    if redis.call('HEXISTS', m, 'o:' .. run) == 1 then
      local last = redis.call('HGET', m, 'l:' .. run) or (meta.h .. ' ' .. now)
      redis.call('HSET', r, 'e:' .. run, '- ' .. last)
      close(meta, m, r, open, run, log)
    end
    redis.call('HDEL', r, 'f:' .. run, 't:' .. run, 'x:' .. run)
    redis.call('ZREM', ended, run_member(log, run))
    for _, kind in ipairs({ 'l', 'x', 'c' }) do
      redis.call('ZREM', due, due_member(kind, log, run))
    end
  end
end
redis.call('HSET', m, 'oc', meta.oc)
redis.call(PUBLISH, ARGV[3], 'x')
return 1
