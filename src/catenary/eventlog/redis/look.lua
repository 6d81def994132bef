-- Look at logs of one bucket; one that is new gets its first term.
--
-- KEYS  for each log: meta, stream
-- ARGV  the time or '', the logs packed: { epoch, runs } each
-- Answers for each: { epoch, head, seen, { owner or '', cancel or '' } for each run }
local now = time_of(ARGV[1])
local answers = {}
for i, asked in ipairs(cmsgpack.unpack(ARGV[2])) do
  local m, s = KEYS[2 * i - 1], KEYS[2 * i]
  local meta = load(m, s, asked[1])
  if meta.is_new then
    meta.u = now
    save(m, meta)
    redis.call('PEXPIRE', m, IDLE + 3600000)
  end
  local fields, runs = {}, {}
  for _, run in ipairs(asked[2]) do
    fields[#fields + 1] = 'o:' .. run
    fields[#fields + 1] = 'x:' .. run
  end
  if #fields > 0 then
    local v = hmget(m, fields)
    for j = 1, #fields, 2 do
      runs[#runs + 1] = { v[j] and string.match(v[j], ' (.*)$') or '', v[j + 1] or '' }
    end
  end
  answers[i] = { meta.e, meta.h, meta.s, runs }
end
return cmsgpack.pack(answers)
