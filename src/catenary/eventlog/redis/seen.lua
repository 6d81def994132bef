-- Keep the furthest place of the current term that a client has acknowledged.
--
-- KEYS  meta
-- ARGV  the channel, epoch, seq
-- Answers 1 if it is further than what was known.
local m, seq = KEYS[1], tonumber(ARGV[3])
local v = redis.call('HMGET', m, 'e', 'h', 's')
if v[1] ~= ARGV[2] or seq > tonumber(v[2]) then return 0 end
local epoch, known = string.match(v[3] or '', '^(%w+):(%d+)$')
if epoch == ARGV[2] and tonumber(known) >= seq then return 0 end
redis.call('HSET', m, 's', ARGV[2] .. ':' .. ARGV[3])
redis.call(PUBLISH, ARGV[1], 's ' .. ARGV[2] .. ':' .. ARGV[3])
return 1
