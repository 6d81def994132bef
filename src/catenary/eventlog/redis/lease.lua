-- Renew a process's lease, and say who lives.
--
-- KEYS  leases
-- ARGV  holder, how long in ms; 0 ends it
-- Answers who lives. By the store's own clock.
local now = time_of('')
local leases, holder, life = KEYS[1], ARGV[1], tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', leases, '-inf', now)
if life == 0 then
  redis.call('ZREM', leases, holder)
  return {}
end
redis.call('ZADD', leases, now + life, holder)
redis.call('PEXPIRE', leases, life * 10)
return redis.call('ZRANGE', leases, 0, -1)
