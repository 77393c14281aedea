-- Starts a partition's sliding lifetime anew, up to its hard end. Fields as in commit.lua.
-- Follows read.lua.
--
-- KEYS[1]  the partition's hash
-- ARGV[1]  life of a tombstone, ms
--
-- Answers {idle, hard}, the rest of its life in ms (-1 = without end), or {} when it has none.

local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local head = read('HMGET', key, 'v', 'x', 'l', 's', 'z')
if not tonumber(head[1] or nil) then return {} end
local hard, ends = tonumber(head[2] or nil), tonumber(head[3] or nil)
local sliding, cleared = tonumber(head[4] or nil) or 0, tonumber(head[5] or nil)
if ends and ends <= now then return {} end
if sliding > 0 then
  ends = math.min(hard or now + sliding, now + sliding)
  redis.call('HSET', key, 'l', string.format('%.0f', ends))
  local tombstone = cleared and cleared + tonumber(ARGV[1]) or 0
  redis.call('PEXPIREAT', key, string.format('%.0f', math.max(ends, tombstone)))
end
return {ends and ends - now or -1, hard and hard - now or -1}
