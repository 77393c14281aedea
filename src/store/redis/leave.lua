-- Signs a partition out that is to be moved to another server. Follows read.lua, head.lua, clear.lua and
-- origin.lua. The tombstone remembers the move, so that it can be repeated until it is done.
--
-- KEYS[1]  the partition's hash
-- ARGV[1]  its generation
-- ARGV[2]  its version; 0 = absent or ended
-- ARGV[3]  id of the move's commit, 8 bytes
-- ARGV[4]  life of the tombstone, ms
--
-- Answers 1, or 0 when it is no longer as it was read.

local head = read_head(KEYS[1])
if head and find(head.recent, ARGV[3]) then
  return 1
end
if not unmoved(KEYS[1], ARGV[1], ARGV[2]) then
  return 0
end
clear(KEYS[1], ARGV[1], ARGV[4], ARGV[3])
return 1
