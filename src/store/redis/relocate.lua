-- Moves a partition: commits to one, and then signs the other out. Follows the functions that it
-- calls: commit.lua, clear.lua and origin.lua.
--
-- KEYS[1]  the hash of the partition that is left
-- KEYS[2]  the hash of the other
-- ARGV[1]  generation of the first
-- ARGV[2]  its version; 0 = absent or ended
-- then the arguments of the commit
--
-- Answers as commit.lua.

local args = {}
for at = 3, #ARGV do args[at - 2] = ARGV[at] end
local answer = commit(KEYS[2], args, function() return unmoved(KEYS[1], ARGV[1], ARGV[2]) end)
if answer[1] == 1 then
  clear(KEYS[1], ARGV[1], args[6], args[1])
end
return answer
