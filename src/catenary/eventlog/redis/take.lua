-- Return a value that has not expired; 'take' removes it, so that one caller gets it.
--
-- KEYS  the value's
-- ARGV  the time or '', 'take' or 'get'
local stored = redis.call('GET', KEYS[1])
if not stored then return false end
if ARGV[2] == 'take' then redis.call('DEL', KEYS[1]) end
local ends, value = string.match(stored, '^(%d+) (.*)$')
return tonumber(ends) > time_of(ARGV[1]) and value
