-- Signs a partition out: nothing but a tombstone with the next generation is left. Fields as in
-- commit.lua.
--
-- key        the partition's hash
-- ending     the generation that ends, or empty for whichever it is
-- tombstone  life of the tombstone, ms
--
-- Answers the generation in force.
local function clear(key, ending, tombstone)
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

  local function natural(text)
    local number = tonumber(text or nil)
    if number and number >= 0 and number < 2 ^ 53 and number == math.floor(number) then
      return number
    end
  end

  local head = redis.pcall('HMGET', key, 'g', 'v')
  if head.err then head = {} end
  local expected = natural(ending)
  local generation = math.max(natural(head[1]) or 0, expected or 0)
  if expected and generation > expected then
    return generation
  end
  generation = generation + 1
  redis.call('DEL', key)
  redis.call('HSET', key, 'g', string.format('%.0f', generation),
    'v', string.format('%.0f', (natural(head[2]) or 0) + 1),
    'c', now, 'z', now, 'x', now, 'l', now, 's', '0', 'k', '0', 'n', '0', 'r', '')
  redis.call('PEXPIRE', key, tombstone)
  return generation
end
