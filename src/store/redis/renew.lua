-- Lets a lease run from now on, if it is this owner's. Follows read.lua.
--
-- KEYS[1]  the lease
-- ARGV[1]  owner, 16 bytes
-- ARGV[2]  how long it runs, ms
--
-- Answers 1, or 0 when it is not this owner's.

if read('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
