-- Takes a lease if it is free or this owner's already. What is no lease is in nobody's way. Follows
-- read.lua.
--
-- KEYS[1]  the lease
-- ARGV[1]  owner, 16 bytes
-- ARGV[2]  how long it runs, ms
--
-- Answers -1 when it is granted, or how long the other may still have it, ms.

local owner = read('GET', KEYS[1])
if type(owner) == 'string' and #owner == 16 and owner ~= ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  if left >= 0 then
    return left
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return -1
