-- Drop the oldest batches though open runs are in them: what these said is folded now.
--
-- KEYS  meta, stream, rewritten, runs, due
-- ARGV  the time or '', the log, the first seq as it was read, the last seq to drop,
--       how many events and bytes that drops, then run and fold by turns
-- Answers 1; 0 if somebody else dropped something meanwhile.
local now = time_of(ARGV[1])
local m, s, z, r, due = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
if redis.call('EXISTS', m) == 0 then return 0 end
local meta = load(m, s, '')
if meta.f ~= tonumber(ARGV[3]) then return 0 end
for i = 7, #ARGV, 2 do
  if redis.call('HEXISTS', m, 'o:' .. ARGV[i]) == 1 then
    redis.call('HSET', r, 'f:' .. ARGV[i], ARGV[i + 1])
  end
end
drop_through(s, z, tonumber(ARGV[4]))
meta.n, meta.b = meta.n - tonumber(ARGV[5]), meta.b - tonumber(ARGV[6])
local first = oldest(s, z)
meta.f = tonumber(ARGV[4]) + 1
meta.a = first and first.at or 0
if first then
  redis.call('ZADD', due, meta.a + AGE, due_member('a', ARGV[2]))
else
  redis.call('ZREM', due, due_member('a', ARGV[2]))
end
save(m, meta)
return 1
