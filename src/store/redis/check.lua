-- What would become of a commit. Follows commit.lua, and takes the same.
--
-- Answers as commit.lua, or {3}: it would be applied. Nothing is changed.

local ready = false
local answer = commit(KEYS[1], ARGV, function()
  ready = true
  return false
end)
return ready and {3} or answer
