-- Whether a partition is as it was read. Fields as in commit.lua. Follows
-- read.lua.
--
-- key         the partition's hash
-- generation  its generation
-- version     its version; 0 = absent or ended
local function unmoved(key, generation, version)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local head = read('HMGET', key, 'g', 'v', 'l')
  local stored, ends = tonumber(head[2] or nil) or 0, tonumber(head[3] or nil)
  if ends and ends <= now then stored = 0 end
  return (tonumber(head[1] or nil) or 0) == tonumber(generation) and stored == tonumber(version)
end
