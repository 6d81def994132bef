-- Take ended runs to report, or say that they were.
--
-- KEYS  ended, claims
-- ARGV  the time or '', 'take' with a holder, a limit and how long in ms, or 'done' with members
-- Answers members and scores by turns. What another process took is its own for that long.
local now = time_of(ARGV[1])
local ended, claims = KEYS[1], KEYS[2]
if ARGV[2] == 'done' then
  for i = 3, #ARGV do
    redis.call('ZREM', ended, ARGV[i])
    redis.call('HDEL', claims, ARGV[i])
  end
  return {}
end
local holder, limit, life = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('ZREMRANGEBYSCORE', ended, '-inf', (now - IDLE) * 1000)
local found, from = {}, 0
while #found < 2 * limit do
  local part = redis.call('ZRANGE', ended, from, from + 99, 'WITHSCORES')
  for i = 1, #part, 2 do
    local claim = redis.call('HGET', claims, part[i])
    local who, ends = string.match(claim or '', '^(%w+) (%d+)$')
    if (not who or who == holder or tonumber(ends) <= now) and #found < 2 * limit then
      redis.call('HSET', claims, part[i], holder .. ' ' .. string.format('%.0f', now + life))
      found[#found + 1] = part[i]
      found[#found + 1] = part[i + 1]
    end
  end
  if #part < 200 then break end
  from = from + 100
end
if #found > 0 then redis.call('PEXPIRE', claims, IDLE) end
return found
