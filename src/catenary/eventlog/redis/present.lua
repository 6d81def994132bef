-- Say that users are connected to a node, or are no longer, or ask whether they are to any.
--
-- KEYS  for each user: its nodes
-- ARGV  the time or '', 'here', 'gone' or 'ask', the node, how long in ms
-- Answers for each how many nodes have it, where that is asked.
local now = time_of(ARGV[1])
local answers = {}
for i, key in ipairs(KEYS) do
  if ARGV[2] == 'here' then
    redis.call('ZADD', key, now + tonumber(ARGV[4]), ARGV[3])
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    redis.call('PEXPIRE', key, ARGV[4])
  elseif ARGV[2] == 'gone' then
    redis.call('ZREM', key, ARGV[3])
  end
  answers[i] = redis.call('ZCOUNT', key, '(' .. now, '+inf')
end
return answers
