-- Removes a partition without a trace. Follows read.lua and head.lua.
--
-- KEYS[1]  the partition's hash
-- ARGV[1]  the id of its last commit or sign-out, 8 bytes
--
-- Answers 1, or 0 when it has another one.

local head = read_head(KEYS[1])
if not head or string.sub(head.recent, -8) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1])
return 1
