-- Say how many connections users have to a node, or only ask how many they have to the others.
--
-- KEYS  for each user: its nodes
-- ARGV  the time or '', the node; to say something: for how many ms it holds, and for each user
--       how many connections
-- Answers for each how many connections it has to other nodes.
local now = time_of(ARGV[1])
local node = ARGV[2]
local answers = {}
for i, key in ipairs(KEYS) do
  local told = ARGV[3 + i]
  if told == '0' then
    redis.call('HDEL', key, node)
  elseif told then
    redis.call('HSET', key, node, now + tonumber(ARGV[3]) .. ' ' .. told)
    redis.call('PEXPIRE', key, ARGV[3])
  end
  local elsewhere = 0
  local found = redis.call('HGETALL', key)
  for at = 1, #found, 2 do
    local until_ms, count = string.match(found[at + 1], '^(%S+) (%d+)$')
    if tonumber(until_ms) <= now then
      if told then
        redis.call('HDEL', key, found[at])
      end
    elseif found[at] ~= node then
      elsewhere = elsewhere + tonumber(count)
    end
  end
  answers[i] = elsewhere
end
return answers
