-- Keep the reply of a claimed message.
--
-- KEYS  commands
-- ARGV  id, reply
local value = redis.call('HGET', KEYS[1], 'c:' .. ARGV[1])
if value then
  local begin = string.match(value, '^%d+ %d+ %w+ %x* ')
  redis.call('HSET', KEYS[1], 'c:' .. ARGV[1], begin .. '+' .. ARGV[2])
end
return 1
