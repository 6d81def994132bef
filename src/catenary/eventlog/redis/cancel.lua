-- Store a request to cancel a run and all that it began.
--
-- KEYS  meta, runs, due
-- ARGV  the time or '', the log, the run, why and by whom as JSON
-- Answers 'not_found', 'ended', or 'stored', the time, and run and holder by turns.
local now = time_of(ARGV[1])
local m, r, due, log = KEYS[1], KEYS[2], KEYS[3], ARGV[2]
if redis.call('HEXISTS', r, 'i:' .. ARGV[3]) == 0 then return { 'not_found' } end
if redis.call('HEXISTS', m, 'o:' .. ARGV[3]) == 0 then return { 'ended' } end
local holders, children = {}, {}
local all = redis.call('HGETALL', m)
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'o:' then
    local run = string.sub(all[i], 3)
    holders[run] = string.match(all[i + 1], ' (.*)$')
    local start = cjson.decode(string.match(redis.call('HGET', r, 'i:' .. run), '^%d+ (.*)$'))
    local parent = start.parent_run_id
    if parent then
      children[parent] = children[parent] or {}
      table.insert(children[parent], run)
    end
  end
end
local answer = { 'stored', string.format('%.0f', now) }
local asked = { ARGV[3] }
while #asked > 0 do
  local run = table.remove(asked)
  local packed = '[' .. string.format('%.0f', now) .. ',' .. ARGV[4] .. ']'
  if redis.call('HSETNX', m, 'x:' .. run, packed) == 1 then
    redis.call('HSET', r, 'x:' .. run, packed)
    redis.call('ZADD', due, now + 10000, due_member('x', log, run))
  end
  answer[#answer + 1] = run
  answer[#answer + 1] = holders[run]
  for _, child in ipairs(children[run] or {}) do asked[#asked + 1] = child end
  -- Taken out, so that runs which name each other are asked once.
  children[run] = nil
end
return answer
