-- Raises the generation of an epoch. Fields as in commit.lua. Follows read.lua.
--
-- KEYS[1]  the epoch's hash
-- ARGV[1]  'beyond' what is there and at least to this number, or 'begin' with it where there is none
-- ARGV[2]  the number
-- ARGV[3]  how long it is kept from now on, ms; -1 = without end. It is never kept shorter than before
--
-- Answers the generation in force.

local key, number = KEYS[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function natural(text)
  local number = tonumber(text or nil)
  if number and number >= 0 and number < 2 ^ 53 and number == math.floor(number) then
    return number
  end
end

local function text(number)
  return string.format('%.0f', number)
end

local head = read('HMGET', key, 'g', 'v', 'l', 'r')
local stored, version = natural(head[1]), natural(head[2])
local exists = stored and version and head[3]
local ends = natural(head[3])

-- One that was lost and is begun again is told from the first by this.
local id = head[4] or ''
if not exists or #id == 0 then
  id = struct.pack('>I8', time[1] * 1000000 + time[2])
end

local generation = stored or 0
if ARGV[1] == 'beyond' then
  generation = math.max(generation + 1, number)
elseif generation == 0 then
  generation = number
end

local keep = tonumber(ARGV[3])
local without_end = keep < 0 or exists and head[3] == ''
local last = not without_end and math.max(ends or 0, now + keep)
local fields = without_end and '' or text(last)

-- The first write is one that a server without memory allows; what follows it in a script is then
-- allowed, too.
if not exists or generation ~= stored or ends and ends <= now then
  redis.call('DEL', key)
  redis.call('HSET', key, 'g', text(generation), 'v', text((version or 0) + 1), 'c', text(now),
    'x', fields, 'l', fields, 's', '0', 'k', '-1', 'n', '0', 'r', id)
else
  redis.call('PERSIST', key)
  redis.call('HSET', key, 'x', fields, 'l', fields, 's', '0', 'r', id)
end
if last then
  redis.call('PEXPIREAT', key, text(last))
end
return generation
