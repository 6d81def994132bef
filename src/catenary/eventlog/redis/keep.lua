-- Keep a value for a time. It carries its end, which the clock that is asked decides.
--
-- KEYS  the value's
-- ARGV  the time or '', value, how long in ms
local ends = time_of(ARGV[1]) + tonumber(ARGV[3])
redis.call('SET', KEYS[1], string.format('%.0f', ends) .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1
