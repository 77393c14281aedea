-- Moves a partition: commits to one, and then signs the other out. Follows commit.lua and
-- clear.lua, whose functions it calls.
--
-- KEYS[1]  the hash of the partition that is left
-- KEYS[2]  the hash of the other
-- ARGV[1]  generation of the first
-- ARGV[2]  its version; 0 = absent or ended
-- then the arguments of the commit
--
-- Answers as commit.lua.

local from, to = KEYS[1], KEYS[2]
local args = {}
for at = 3, #ARGV do args[at - 2] = ARGV[at] end

local function unmoved(now, natural)
  local head = redis.pcall('HMGET', from, 'g', 'v', 'l')
  if head.err then head = {} end
  local version, ends = natural(head[2]) or 0, natural(head[3])
  if ends and ends <= now then version = 0 end
  return (natural(head[1]) or 0) == natural(ARGV[1]) and version == natural(ARGV[2])
end

local answer = commit(to, args, unmoved)
if answer[1] == 1 then
  clear(from, ARGV[1], args[6])
end
return answer
