-- Signs a partition out: nothing but a tombstone with the next generation is left. Fields as in
-- commit.lua. Follows read.lua.
--
-- key        the partition's hash
-- ending     the generation that ends, or empty for whichever it is
-- tombstone  life of the tombstone, ms
-- id         of the sign-out, 8 bytes: a repeated one changes nothing
--
-- Answers {generation in force, whether this sign-out has raised it}.
local function clear(key, ending, tombstone, id)
  local time = redis.call('TIME')
  local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))

  local function natural(text)
    local number = tonumber(text or nil)
    if number and number >= 0 and number < 2 ^ 53 and number == math.floor(number) then
      return number
    end
  end

  local head = read('HMGET', key, 'g', 'v', 'r')
  local expected, stored = natural(ending), natural(head[1]) or 0
  local recent, known = head[3] or '', 0
  for at = 1, #recent, 8 do
    if string.sub(recent, at, at + 7) == id then known = 1 end
  end
  if expected and stored > expected or not expected and known == 1 then
    return {stored, known}
  end
  local generation = math.max(stored, expected or 0)
  generation = generation + 1
  redis.call('DEL', key)
  redis.call('HSET', key, 'g', string.format('%.0f', generation),
    'v', string.format('%.0f', (natural(head[2]) or 0) + 1),
    'c', now, 'z', now, 'x', now, 'l', now, 's', '0', 'k', '0', 'n', '0', 'r', id)
  redis.call('PEXPIRE', key, tombstone)
  return {generation, 1}
end
