-- Read a page of a log; one that is new gets its first term.
--
-- KEYS  meta, stream, rewritten
-- ARGV  the time or '', an epoch for a new log, after, limit of records, limit of bytes
-- Answers { epoch, head, first, former, batches }, the batches in order.
local now = time_of(ARGV[1])
local m, s, z = KEYS[1], KEYS[2], KEYS[3]
local meta = load(m, s, ARGV[2])
if meta.is_new then
  meta.u = now
  save(m, meta)
  redis.call('PEXPIRE', m, IDLE + 3600000)
end
-- A place may claim more than there is, in more digits than an id takes.
local after = math.min(tonumber(ARGV[3]), meta.h)
local limit, limit_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local found, events, bytes = {}, 0, 0

-- Two sources, each in order: a few at a time, the lower first.
local function source(fetch)
  local at, part, i = after, nil, 0
  return function()
    if not part or i >= #part then
      part, i = fetch(at), 0
      if #part == 0 then return nil end
    end
    return part[i + 1]
  end, function()
    i = i + 1
    at = header(part[i]).last
  end
end

local see_s, take_s = source(function(at)
  local part = redis.call('XRANGE', s, (at + 1) .. '-0', '+', 'COUNT', 16)
  for i = 1, #part do part[i] = part[i][2][2] end
  return part
end)
local see_z, take_z = source(function(at)
  return redis.call('ZRANGEBYSCORE', z, at + 1, '+inf', 'LIMIT', 0, 16)
end)
while events < limit and bytes < limit_bytes do
  local from_s, from_z = see_s(), see_z()
  if not from_s and not from_z then break end
  local is_s = from_s and (not from_z or header(from_s).last < header(from_z).last)
  local d = is_s and from_s or from_z
  if is_s then take_s() else take_z() end
  local has = header(d)
  found[#found + 1] = d
  -- Of the first one only the end may be wanted.
  events = events + math.min(has.events, has.last - after)
  bytes = bytes + #d
end
return { meta.e, meta.h, meta.f, meta.T, found }
