-- Hold open runs from now on: those that have a lease of their own, or any by force.
--
-- KEYS  meta, runs, known, open
-- ARGV  the log, the holder, 'any' or 'leased', the runs packed, the idempotency keys packed
-- Answers { the runs' fields of meta, of runs } by turns for each run, and the
-- values of the keys.
local m, r, k, open = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local answers, values = {}, {}
for _, run in ipairs(cmsgpack.unpack(ARGV[4])) do
  local start = redis.call('HGET', r, 'i:' .. run)
  local held = redis.call('HGET', m, 'o:' .. run)
  if start and held then
    local is_leased = cjson.decode(string.match(start, '^%d+ (.*)$')).lease ~= nil
    if ARGV[3] == 'any' or is_leased then
      redis.call('HSET', m, 'o:' .. run, string.match(held, '^%d+') .. ' ' .. ARGV[2])
      redis.call('HSET', open, run_member(ARGV[1], run), is_leased and '' or ARGV[2])
    end
  end
  answers[#answers + 1] = redis.call('HMGET', m, 'o:' .. run, 'l:' .. run, 'x:' .. run)
  answers[#answers + 1] = redis.call('HMGET', r, 'i:' .. run, 'e:' .. run, 'x:' .. run,
    't:' .. run, 'f:' .. run)
end
for i, key in ipairs(cmsgpack.unpack(ARGV[5])) do values[i] = redis.call('HGET', k, key) end
return { answers, values }
