-- Put batches in the place of others that hold the same numbers.
--
-- KEYS  meta, stream, rewritten
-- ARGV  how many are taken away, the last seq of each, then the new batches
-- Answers 1; 0 if one of those to be taken away is not there any more, or never was.
local m, s, z = KEYS[1], KEYS[2], KEYS[3]
if redis.call('EXISTS', m) == 0 then return 0 end
local count = tonumber(ARGV[1])
local in_stream, events, bytes = {}, 0, 0
local f = tonumber(redis.call('HGET', m, 'f'))
for i = 2, count + 1 do
  local entry = redis.call('XRANGE', s, ARGV[i] .. '-0', ARGV[i] .. '-0')[1]
  local d = entry and entry[2][2] or redis.call('ZRANGEBYSCORE', z, ARGV[i], ARGV[i])[1]
  if not d then return 0 end
  in_stream[i] = entry ~= nil
  local counts, size = share(header(d), f)
  events, bytes = events + counts, bytes + size
end
for i = 2, count + 1 do
  if in_stream[i] then
    redis.call('XDEL', s, ARGV[i] .. '-0')
  else
    redis.call('ZREMRANGEBYSCORE', z, ARGV[i], ARGV[i])
  end
end
for i = count + 2, #ARGV do
  local has = header(ARGV[i])
  local counts, size = share(has, f)
  redis.call('ZADD', z, has.last, ARGV[i])
  events, bytes = events - counts, bytes - size
end
redis.call('HINCRBY', m, 'n', 0 - events)
redis.call('HINCRBY', m, 'b', 0 - bytes)
local ttl = redis.call('PTTL', s)
if ttl > 0 then redis.call('PEXPIRE', z, ttl) elseif ttl == -1 then redis.call('PERSIST', z) end
return 1
