-- Frees a lease, if it is this owner's. Follows read.lua.
--
-- KEYS[1]  the lease
-- ARGV[1]  owner, 16 bytes
--
-- Answers 1, or 0 when it is not this owner's.

if read('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('DEL', KEYS[1])
