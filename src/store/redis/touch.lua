-- Starts a partition's sliding lifetime anew, up to its hard end. Follows read.lua and head.lua.
--
-- KEYS[1]  the partition's hash
-- ARGV[1]  life of a tombstone, ms
--
-- Answers {idle, hard}, the rest of its life in ms (-1 = without end), or {} when it has none.

local key, now = KEYS[1], clock()
local head = read_head(key)
if not head or head.ends >= 0 and head.ends <= now then return {} end
if head.sliding > 0 then
  head.ends = now + head.sliding
  if head.hard >= 0 then head.ends = math.min(head.hard, head.ends) end
  write_head(key, head)
  local tombstone = head.cleared >= 0 and head.cleared + tonumber(ARGV[1]) or 0
  redis.call('PEXPIREAT', key, text(math.max(head.ends, tombstone)))
end
local function left(at)
  return at >= 0 and at - now or -1
end
return {left(head.ends), left(head.hard)}
