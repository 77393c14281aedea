-- Puts a partition of another store where there is none. Follows read.lua and head.lua.
--
-- KEYS[1]  the partition's hash
-- ARGV[1]  its generation
-- ARGV[2]  its version
-- ARGV[3]  how long ago it was created, ms
-- ARGV[4]  how long ago it was signed out, ms; -1 = it was not, or that is forgotten
-- ARGV[5]  how long it lives unless something is committed, ms; -1 = without end, 0 = it has ended
-- ARGV[6]  how long it lives unless it is used, ms; the same
-- ARGV[7]  sliding lifetime, ms; 0 = none
-- ARGV[8]  ids of the first commit or sign-out and of recent ones, 8 bytes each
-- ARGV[9]  life of a tombstone, ms
-- then, per entry: entry id (16 bytes), expiry (ms since the epoch; -1 = none), the entry
--
-- Answers 1, or 0 when there is one.

local key, now = KEYS[1], clock()
if read_head(key) then return 0 end

local function at(left)
  left = tonumber(left)
  return left >= 0 and now + left or -1
end

redis.call('DEL', key)
local puts, last, prune, BATCH = {}, 0, 0, 1000
for i = 10, #ARGV, 3 do
  local expiry = tonumber(ARGV[i + 1])
  puts[#puts + 1], puts[#puts + 2] = 'e' .. ARGV[i], ARGV[i + 2]
  if #puts >= BATCH then
    redis.call('HSET', key, unpack(puts))
    puts = {}
  end
  if expiry == -1 then
    last = -1
  else
    if last ~= -1 then last = math.max(last, expiry) end
    if prune == 0 or expiry < prune then prune = expiry end
  end
end
-- Without an entry nothing is known of the last expiry.
if #ARGV < 10 then last = -1 end

local cleared, ends = tonumber(ARGV[4]), at(ARGV[6])
if cleared >= 0 then cleared = math.max(now - cleared, 0) end
write_head(key, {
  generation = tonumber(ARGV[1]), version = tonumber(ARGV[2]), created = math.max(now - tonumber(ARGV[3]), 0),
  cleared = cleared, hard = at(ARGV[5]), ends = ends, sliding = tonumber(ARGV[7]), last = last, prune = prune,
  recent = ARGV[8]
}, puts)
if ends >= 0 then
  local tombstone = cleared >= 0 and cleared + tonumber(ARGV[9]) or 0
  redis.call('PEXPIREAT', key, text(math.max(ends, tombstone)))
end
return 1
