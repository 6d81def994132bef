-- Begin a new term of a log; only if a place proves a loss, where one is given.
--
-- KEYS  meta, stream
-- ARGV  the time or '', an epoch, the channel, the epoch and the seq of the place or ''
-- Answers the epoch and the head.
local now = time_of(ARGV[1])
local m, s = KEYS[1], KEYS[2]
local meta = load(m, s, ARGV[2])
if ARGV[4] == '' or (meta.e == ARGV[4] and tonumber(ARGV[5]) > meta.h) then
  if not meta.is_new then begin_term(meta, ARGV[2]) end
  meta.p = PROCESS
  if meta.is_new then meta.u = now end
  save(m, meta)
  if meta.is_new then redis.call('PEXPIRE', m, IDLE + 3600000) end
  redis.call(PUBLISH, ARGV[3], 't ' .. meta.e .. ' ' .. meta.h)
end
return { meta.e, meta.h }
