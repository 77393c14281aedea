-- Whether a partition is as it was read. Follows read.lua and head.lua.
--
-- key         the partition's hash
-- generation  its generation
-- version     its version; 0 = absent or ended
local function unmoved(key, generation, version)
  local head = read_head(key) or {generation = 0, version = 0, ends = -1}
  local ended = head.ends >= 0 and head.ends <= clock()
  return head.generation == tonumber(generation) and (ended and 0 or head.version) == tonumber(version)
end
