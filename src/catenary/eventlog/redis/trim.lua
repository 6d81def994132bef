-- Drop what is older or more than is kept, of some logs of one bucket.
--
-- KEYS  due, then for each log: meta, stream, rewritten, runs, known
-- ARGV  the time or '', the logs' ids packed
-- Answers for each whether an open run must be folded first.
local now = time_of(ARGV[1])
local answers = {}
for i, log in ipairs(cmsgpack.unpack(ARGV[2])) do
  local at = 1 + (i - 1) * 5
  local m, s, z, r, k = KEYS[at + 1], KEYS[at + 2], KEYS[at + 3], KEYS[at + 4], KEYS[at + 5]
  answers[i] = 0
  if redis.call('EXISTS', m) == 1 then
    local meta = load(m, s, '')
    if trim(m, meta, s, z, KEYS[1], log, now) then answers[i] = 1 end
    keep(meta, now, m, s, z, r, k)
    save(m, meta)
  else
    redis.call('ZREM', KEYS[1], due_member('a', log))
  end
end
return answers
