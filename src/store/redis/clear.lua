-- Signs a partition out: nothing but a tombstone with the next generation is left. Follows read.lua and head.lua.
--
-- key        the partition's hash
-- ending     the generation that ends, or empty for whichever it is
-- tombstone  life of the tombstone, ms
-- id         of the sign-out, 8 bytes: a repeated one changes nothing
--
-- Answers {generation in force, whether this sign-out has raised it}.
local function clear(key, ending, tombstone, id)
  local now = clock()
  local head = read_head(key) or {generation = 0, version = 0, recent = ''}
  local expected, stored = tonumber(ending), head.generation
  local known = find(head.recent, id) and 1 or 0
  if expected and stored > expected or not expected and known == 1 then
    return {stored, known}
  end
  local generation = math.max(stored, expected or 0) + 1
  redis.call('DEL', key)
  write_head(key, {
    generation = generation, version = head.version + 1, created = now, cleared = now, hard = now,
    ends = now, sliding = 0, last = 0, prune = 0, recent = id
  })
  redis.call('PEXPIRE', key, tombstone)
  return {generation, 1}
end
