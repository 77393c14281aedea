-- The head of a record, which is the field h; each entry is a field e<entry id> beside it: version
-- and expiry (8 bytes each, big endian) .. value.
--
-- h = 1 (the form) and, 8 bytes each, big endian: generation, version, created, cleared, hard end,
-- end, sliding lifetime (0 = none), latest expiry of an entry (-1 = some entry has none), when to look
-- for expired entries (0 = never); then the ids of the first commit or sign-out and of recent ones, 8
-- bytes each. Points in time are ms since the epoch; of cleared and the ends, -1 is none.
local HEAD = '>Bi8i8i8i8i8i8i8i8i8'

-- What it says, or nil when there is none, or none of this form.
local function read_head(key)
  local packed = read('HGET', key, 'h')
  if type(packed) ~= 'string' or #packed < 73 or string.byte(packed) ~= 1 then return nil end
  local _, g, v, c, z, x, l, s, k, n = struct.unpack(HEAD, packed)
  -- A script keeps numbers as doubles: beyond this they would not be exact.
  if math.max(g, v, c, z, x, l, s, k, n) >= 2 ^ 53 or math.min(g, v) < 0 or math.min(z, x, l, k) < -1 then
    return nil
  end
  return {
    generation = g, version = v, created = c, cleared = z, hard = x, ends = l, sliding = s,
    last = k, prune = n, recent = string.sub(packed, 74)
  }
end

-- Writes it, and these fields and values with it.
local function write_head(key, head, puts)
  redis.call('HSET', key, 'h', struct.pack(HEAD, 1, head.generation, head.version, head.created,
    head.cleared, head.hard, head.ends, head.sliding, head.last, head.prune) .. head.recent, unpack(puts or {}))
end

-- Where an id is among recent ones.
local function find(recent, id)
  for at = 1, #recent, 8 do
    if string.sub(recent, at, at + 7) == id then return at end
  end
end

local function clock()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
  return string.format('%.0f', number)
end
