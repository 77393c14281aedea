-- Raises the generation of an epoch. Follows read.lua and head.lua.
--
-- KEYS[1]  the epoch's hash
-- ARGV[1]  'beyond' what is there and at least to this number, 'to' this number unless it is there or past, or
--          'begin' with it where there is none
-- ARGV[2]  the number
-- ARGV[3]  how long it is kept from now on, ms; -1 = without end. It is never kept shorter than before
--
-- Answers the generation in force.

local key, number, now = KEYS[1], tonumber(ARGV[2]), clock()
local head = read_head(key)

local generation = head and head.generation or 0
if ARGV[1] == 'beyond' then
  generation = math.max(generation + 1, number)
elseif ARGV[1] == 'to' then
  generation = math.max(generation, number)
elseif generation == 0 then
  generation = number
end

local keep = tonumber(ARGV[3])
local ends = -1
if keep >= 0 and not (head and head.ends < 0) then
  ends = math.max(head and head.ends or 0, now + keep)
end

-- One that was lost and is begun again is told from the first by this.
local id = head and head.recent or ''
if #id == 0 then
  local time = redis.call('TIME')
  id = struct.pack('>I8', time[1] * 1000000 + time[2])
end

-- The first write is one that a server without memory allows; what follows it in a script is then
-- allowed, too.
if not head or generation ~= head.generation or head.ends >= 0 and head.ends <= now then
  redis.call('DEL', key)
  head = {version = (head and head.version or 0) + 1, created = now, cleared = now, last = -1, prune = 0}
else
  redis.call('PERSIST', key)
end
head.generation, head.hard, head.ends, head.sliding, head.recent = generation, ends, ends, 0, id
write_head(key, head)
if ends >= 0 then
  redis.call('PEXPIREAT', key, text(ends))
end
return generation
