-- Claim a client's message, once within the window.
--
-- KEYS  commands
-- ARGV  the time or '', 'claim' or 'again', id, digest, holder, window in ms, how many are kept
-- Answers 'new', 'conflict', or 'claimed' with its holder and, once there is one, the reply.
-- A value is "at number holder digest-in-hex " and the reply; a bare "+" marks its end.
local now = time_of(ARGV[1])
local c, id, digest, holder = KEYS[1], ARGV[3], ARGV[4], ARGV[5]
local function read(value)
  local at, number, who, what, done, reply = string.match(value, '^(%d+) (%d+) (%w+) (%x*) ([+-])(.*)$')
  return tonumber(at), tonumber(number), who, what, done == '+', reply
end
local value = redis.call('HGET', c, 'c:' .. id)
if ARGV[2] == 'again' then
  if value then
    local at, number, _, what, is_done = read(value)
    if not is_done then
      redis.call('HSET', c, 'c:' .. id, at .. ' ' .. number .. ' ' .. holder .. ' ' .. what .. ' -')
    end
  end
  return { 'new' }
end
if value then
  local at, _, who, what, is_done, reply = read(value)
  if at > now - tonumber(ARGV[6]) then
    if what ~= digest then return { 'conflict' } end
    if is_done then return { 'claimed', who, reply } end
    return { 'claimed', who }
  end
end
local number = redis.call('HINCRBY', c, 'next', 1)
if value then
  local _, former = read(value)
  redis.call('HDEL', c, 'n:' .. former)
end
redis.call('HSET', c, 'c:' .. id, now .. ' ' .. number .. ' ' .. holder .. ' ' .. digest .. ' -',
  'n:' .. number, id)
-- The oldest go: all that came so long ago that enough others followed.
local oldest = tonumber(redis.call('HGET', c, 'first') or '1')
while number - oldest >= tonumber(ARGV[7]) do
  local gone = redis.call('HGET', c, 'n:' .. oldest)
  if gone then redis.call('HDEL', c, 'n:' .. oldest, 'c:' .. gone) end
  oldest = oldest + 1
end
redis.call('HSET', c, 'first', oldest)
redis.call('PEXPIRE', c, tonumber(ARGV[6]) * 2)
return { 'new' }
